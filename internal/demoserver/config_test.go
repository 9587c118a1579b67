package demoserver

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// environment returns a LookupEnv for "NAME=value" pairs.
func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, pair := range pairs {
			if k, v, _ := strings.Cut(pair, "="); k == name {
				return v, true
			}
		}
		return "", false
	}
}

func TestParse(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	defaults := config{listen: ":7777", name: host, drain: 10 * time.Second, logFormat: "text"}
	with := func(change func(*config)) config {
		cfg := defaults
		change(&cfg)
		return cfg
	}
	for name, test := range map[string]struct {
		args []string
		env  []string
		want config
	}{
		"nothing set gives the defaults": {want: defaults},
		"flags": {
			args: []string{"-listen=:1", "-name", "x", "-delay=1s", "-notice=2s", "-drain=3s", "-metrics=:9777", "-log-level=debug", "-log-format=json"},
			want: config{listen: ":1", name: "x", delay: time.Second, notice: 2 * time.Second, drain: 3 * time.Second, metrics: ":9777", logLevel: slog.LevelDebug, logFormat: "json"},
		},
		"environment": {
			env:  []string{"GRPC_SERVER_LISTEN=:2", "GRPC_SERVER_LOG_LEVEL=warn"},
			want: with(func(c *config) { c.listen = ":2"; c.logLevel = slog.LevelWarn }),
		},
		"a flag wins over its variable": {
			args: []string{"-name=flag"}, env: []string{"GRPC_SERVER_NAME=variable"},
			want: with(func(c *config) { c.name = "flag" }),
		},
		"metrics that are off": {args: []string{"-metrics=off"}, env: []string{"GRPC_SERVER_METRICS=:9777"}, want: defaults},
		"an empty variable is an unset one": {
			env: []string{"GRPC_SERVER_DRAIN=", "GRPC_SERVER_NAME="}, want: defaults,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(test.args, environment(test.env...))
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
}

func TestParseReportsEveryMistake(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		env  []string
		want []string
	}{
		"a stray argument": {args: []string{"7777"}, want: []string{`unexpected argument "7777"`}},
		"bad flag syntax":  {args: []string{"-name=x", "-=", "-delay=x"}, want: []string{"bad flag syntax: -="}},
		"a flag's value":   {args: []string{"-drain", "10"}, want: []string{`invalid value "10" for flag -drain: want a duration such as`}},
		"a negative value": {args: []string{"-delay=-1s"}, want: []string{`invalid value "-1s" for flag -delay: want a duration`}},
		"a variable's value": {
			env:  []string{"GRPC_SERVER_LOG_FORMAT=xml"},
			want: []string{`invalid value "xml" for variable GRPC_SERVER_LOG_FORMAT: want text or json`},
		},
		"several": {
			args: []string{"-colour=red", "-drain=soon", "-notice=1s", "stray"},
			env:  []string{"GRPC_SERVER_DELAY=x", "GRPC_SERVER_LOG_LEVEL=loud"},
			want: []string{"-colour", "-drain", `"stray"`, "GRPC_SERVER_DELAY", `"loud" for variable GRPC_SERVER_LOG_LEVEL: want debug, info`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.args, environment(test.env...))
			for _, want := range test.want {
				assert.ErrorContains(t, err, want)
			}
		})
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	new(config).flags().VisitAll(func(f *flag.Flag) {
		assert.Regexp(t, `\n  -`+f.Name+` .* `+variable(f.Name)+` `, help)
	})
	for code := range 4 {
		assert.Regexp(t, fmt.Sprintf(`\n  %d  [a-z]`, code), help, "the exit codes are aligned")
	}
	_, err := parse([]string{"--help"}, environment())
	assert.ErrorIs(t, err, flag.ErrHelp)
}
