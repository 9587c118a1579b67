package democlient

import (
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	with := func(change func(*config)) config {
		cfg := config{target: "localhost:5000", calls: 1, workers: 1, connections: 1, timeout: 5 * time.Second}
		change(&cfg)
		return cfg
	}
	for name, test := range map[string]struct {
		args []string
		want config
	}{
		"nothing is one call to localhost": {want: with(func(*config) {})},
		"a port": {
			args: []string{"-port=1"}, want: with(func(c *config) { c.target = "localhost:1" }),
		},
		"a host has the default port": {
			args: []string{"-addr=lb"}, want: with(func(c *config) { c.target = "lb:5000" }),
		},
		"a host and a port": {
			args: []string{"-addr=lb", "-port=1"}, want: with(func(c *config) { c.target = "lb:1" }),
		},
		"an address with a port": {
			args: []string{"-addr=lb:2"}, want: with(func(c *config) { c.target = "lb:2" }),
		},
		"a port alone as address": {
			args: []string{"-addr=:2"}, want: with(func(c *config) { c.target = "localhost:2" }),
		},
		"an IPv6 address": {
			args: []string{"-addr=::1"}, want: with(func(c *config) { c.target = "[::1]:5000" }),
		},
		"an IPv6 address in brackets": {
			args: []string{"-addr=[::1]"}, want: with(func(c *config) { c.target = "[::1]:5000" }),
		},
		"an IPv6 address with a port": {
			args: []string{"-addr=[::1]:2"}, want: with(func(c *config) { c.target = "[::1]:2" }),
		},
		"a gRPC target stays as it is": {
			args: []string{"-addr=dns:///lb:2"}, want: with(func(c *config) { c.target = "dns:///lb:2" }),
		},
		"a unix socket stays as it is": {
			args: []string{"-addr=unix:/run/lb.sock"}, want: with(func(c *config) { c.target = "unix:/run/lb.sock" }),
		},
		"TLS has a default port of its own": {
			args: []string{"-tls", "-ca=ca.pem"}, want: with(func(c *config) { c.target, c.tls, c.ca = "localhost:5443", true, "ca.pem" }),
		},
		"TLS on another port, with a client's certificate": {
			args: []string{"-tls", "-addr=lb:1", "-cert=c", "-key=k"},
			want: with(func(c *config) { c.target, c.tls, c.cert, c.key = "lb:1", true, "c", "k" }),
		},
		"no more workers than calls": {
			args: []string{"-n=3", "-c=9"}, want: with(func(c *config) { c.calls = 3; c.workers = 3 }),
		},
		"a duration needs no number of calls": {
			args: []string{"-duration=1m", "-c=9"},
			want: with(func(c *config) { c.calls = 0; c.workers = 9; c.duration = time.Minute }),
		},
		"a duration and a number of calls": {
			args: []string{"-duration=1m", "-n=10"},
			want: with(func(c *config) { c.calls = 10; c.duration = time.Minute }),
		},
		"streams go on, a message a second": {
			args: []string{"-stream"},
			want: with(func(c *config) { c.stream = true; c.calls = 0; c.interval = time.Second }),
		},
		"streams with all options": {
			args: []string{"-stream", "-n=7", "-interval=0s"},
			want: with(func(c *config) { c.stream = true; c.calls = 7 }),
		},
		"all other flags": {
			args: []string{"-authority=a.example", "-connections=2", "-interval=1ms", "-timeout=1s", "-json", "-quiet"},
			want: with(func(c *config) {
				c.authority, c.connections, c.interval, c.timeout = "a.example", 2, time.Millisecond, time.Second
				c.json, c.quiet = true, true
			}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(test.args)
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
}

func TestParseReportsEveryMistake(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"a number":                   {[]string{"-port=0"}, []string{`invalid value "0" for flag -port: want a whole number from 1 to 65535`}},
		"a duration":                 {[]string{"-timeout=0s"}, []string{`invalid value "0s" for flag -timeout: want a duration such as`}},
		"an address's port":          {[]string{"-addr=lb:http"}, []string{`invalid value "lb:http" for flag -addr: port "http"`}},
		"two ports":                  {[]string{"-addr=lb:1", "-port=2"}, []string{`-addr "lb:1" already has the port, leave out -port 2`}},
		"a target and a port":        {[]string{"-addr=unix:/x", "-port=2"}, []string{"leave out -port 2"}},
		"bad flag syntax":            {[]string{"-n=x", "-="}, []string{"flag -n", "bad flag syntax: -="}},
		"a file for TLS without TLS": {[]string{"-ca=x", "-cert=y"}, []string{"flag -ca is for TLS, want -tls too", "flag -cert is for TLS", "want both -cert and -key"}},
		"several": {
			[]string{"-colour=red", "-n", "many", "-c=0", "-interval=soon", "stray"},
			[]string{"-colour", `"many" for flag -n`, `"0" for flag -c`, `"soon" for flag -interval`, `unexpected argument "stray"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.args)
			for _, want := range test.want {
				assert.ErrorContains(t, err, want)
			}
		})
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	new(config).flags(new(string), new(int)).VisitAll(func(f *flag.Flag) {
		assert.Contains(t, help, "\n  -"+f.Name+" ")
	})
}
