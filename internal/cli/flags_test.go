package cli

import (
	"bytes"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// flagValues has the values of a command with a flag of each kind.
type flagValues struct {
	listen string
	wait   time.Duration
	number int
	share  float64
	format string
}

func newSample(environ ...string) (*cobra.Command, *flagValues) {
	s := new(flagValues)
	cmd := &cobra.Command{Use: "sample", SilenceErrors: true, SilenceUsage: true, RunE: func(*cobra.Command, []string) error { return nil }}
	cmd.SetOut(new(bytes.Buffer))
	flags := newFlags(&factory{environ: environ}, cmd)
	define(flags, &s.listen, "listen", "LBCTL_LISTEN", "ADDRESS:PORT", "where", "0.0.0.0:5000", parseListen)
	define(flags, &s.wait, "wait", "LBCTL_WAIT", "DURATION", "how long", 5*time.Minute, parseDuration(time.Second))
	define(flags, &s.number, "number", "LBCTL_NUMBER", "N", "how many", 0, parseNumber(1, 9))
	define(flags, &s.share, "share", "LBCTL_SHARE", "SHARE", "how much", 0.5, parseShare)
	define(flags, &s.format, "format", "LBCTL_FORMAT", "FORMAT", "what", "text", parseChoice("text", "json"))
	flags.check(func(mistake func(string, ...any)) {
		if s.number == 7 {
			mistake("%s %d: seven is taken", flags.source("number"), s.number)
		}
	})
	return cmd, s
}

func TestFlags(t *testing.T) {
	defaults := flagValues{listen: "0.0.0.0:5000", wait: 5 * time.Minute, share: 0.5, format: "text"}
	with := func(change func(*flagValues)) flagValues { s := defaults; change(&s); return s }
	for name, test := range map[string]struct {
		args    []string
		environ []string
		want    flagValues
		err     string
	}{
		"nothing given": {want: defaults},
		"a variable gives a value": {
			environ: []string{"LBCTL_NUMBER=3", "LBCTL_WAIT=90s"},
			want:    with(func(s *flagValues) { s.number, s.wait = 3, 90*time.Second }),
		},
		"a flag wins over its variable, even over a mistaken one": {
			args:    []string{"--number=4"},
			environ: []string{"LBCTL_NUMBER=many"},
			want:    with(func(s *flagValues) { s.number = 4 }),
		},
		"an empty variable counts as not set": {environ: []string{"LBCTL_FORMAT="}, want: defaults},
		"the last of two variables counts": {
			environ: []string{"LBCTL_NUMBER=1", "LBCTL_NUMBER=2"},
			want:    with(func(s *flagValues) { s.number = 2 }),
		},
		"IPv6 addresses are addresses": {
			args: []string{"--listen", "[::]:5000"},
			want: with(func(s *flagValues) { s.listen = "[::]:5000" }),
		},
		"all mistakes are reported at once, with the flag or variable": {
			args:    []string{"--listen=localhost:5000", "--share", "2"},
			environ: []string{"LBCTL_NUMBER=many", "LBCTL_WAIT=5", "LBCTL_FORMAT=yaml"},
			err: `5 mistakes in flags and environment:
  --listen "localhost:5000": want ADDRESS:PORT, such as 0.0.0.0:5000, 127.0.0.1:5000 or [::]:5000
  --share "2": want a share above 0 and up to 1, such as 0.5
  LBCTL_WAIT "5": want a duration of at least 1s, such as 90s
  LBCTL_NUMBER "many": want a whole number from 1 to 9
  LBCTL_FORMAT "yaml": want one of text, json
Try 'sample --help'.`,
		},
		"a value that contradicts another one is named too": {
			environ: []string{"LBCTL_NUMBER=7"},
			err:     "LBCTL_NUMBER 7: seven is taken\nTry 'sample --help'.",
		},
		"port 0 is invalid": {
			args: []string{"--listen=0.0.0.0:0"},
			err:  "--listen \"0.0.0.0:0\": want ADDRESS:PORT, such as 0.0.0.0:5000, 127.0.0.1:5000 or [::]:5000\nTry 'sample --help'.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, got := newSample(test.environ...)
			cmd.SetArgs(append([]string{}, test.args...)) // nil means the arguments of the test binary
			err := cmd.Execute()
			if test.err != "" {
				require.EqualError(t, err, test.err)
				assert.Equal(t, exitUsage, exitCode(err))
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, *got)
		})
	}
}

func TestFlagsHelp(t *testing.T) {
	cmd, _ := newSample()
	assert.Equal(t, `      --listen ADDRESS:PORT   where [$LBCTL_LISTEN] (default 0.0.0.0:5000)
      --wait DURATION         how long [$LBCTL_WAIT] (default 5m)
      --number N              how many [$LBCTL_NUMBER]
      --share SHARE           how much [$LBCTL_SHARE] (default 0.5)
      --format FORMAT         what [$LBCTL_FORMAT] (default text)
`, cmd.LocalFlags().FlagUsages())
}

// A flag without a value looks so in the help of every command, and an empty default is left out.
func TestFlagsHelpOfEveryCommand(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		help := command.LocalFlags().FlagUsages()
		for _, odd := range []string{"[=true]", "(default [])", "(default )", "(default false)"} {
			assert.NotContains(t, help, odd, command.CommandPath())
		}
		for _, sub := range command.Commands() {
			walk(sub)
		}
	}
	walk(newRootCmd(&factory{}))
}
