package cli

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flags are one command's flags. Each can have an environment variable that
// gives its value where the command line does not. A value that can't be
// understood is kept as a mistake, and all mistakes are told at once, each
// under the name that its value was given by: the flag's or the variable's.
type flags struct {
	command   *cobra.Command
	environ   []string
	variables map[string]string // flag -> variable
	sources   map[string]string // flag -> what gave its value: "--workers", "LBCTL_WORKERS"
	checks    []func(mistake func(format string, args ...any))
	mistakes  []error
}

// newFlags gives the command flags that are complete, environment included,
// when its RunE begins.
func newFlags(f *factory, command *cobra.Command) *flags {
	own := &flags{command: command, environ: f.environ, variables: map[string]string{}, sources: map[string]string{}}
	command.Flags().SortFlags = false // the order they are defined in is for reading
	command.PreRunE = func(*cobra.Command, []string) error { return own.finish() }
	return own
}

// finish takes in the environment and tells all mistakes.
func (f *flags) finish() error {
	f.command.Flags().VisitAll(func(flag *pflag.Flag) {
		variable := f.variables[flag.Name]
		if variable == "" || flag.Changed {
			return
		}
		if given := lookup(f.environ, variable); given != "" {
			flag.Value.(interface{ set(source, given string) }).set(variable, given)
		}
	})
	if len(f.mistakes) == 0 { // what a value should be beside another one
		for _, check := range f.checks {
			check(f.mistake)
		}
	}
	if len(f.mistakes) == 0 {
		return nil
	}
	return &usageError{command: f.command.CommandPath(), mistakes: f.mistakes}
}

// check adds a check of values that belong together.
func (f *flags) check(check func(mistake func(format string, args ...any))) {
	f.checks = append(f.checks, check)
}

// given tells whether a flag or its variable was given at all.
func (f *flags) given(name string) bool { return f.sources[name] != "" }

// source is what gave a flag its value, the flag itself for a default.
func (f *flags) source(name string) string {
	if source := f.sources[name]; source != "" {
		return source
	}
	return "--" + name
}

func (f *flags) mistake(format string, args ...any) {
	f.mistakes = append(f.mistakes, fmt.Errorf(format, args...))
}

// A setting is a flag's value of type T.
type setting[T any] struct {
	flags  *flags
	flag   string
	into   *T
	parse  func(string) (T, error)
	kind   string // how --help names it
	before string // what --help shows as default
}

// define adds a flag. variable is "" for a flag that no environment sets; parse
// returns an error that says what was wanted: `want a number from 1 to 9`.
func define[T any](f *flags, into *T, name, variable, kind, usage string, before T, parse func(string) (T, error)) {
	*into = before
	shown := fmt.Sprint(before)
	if d, ok := any(before).(time.Duration); ok {
		shown = short(d)
	}
	s := &setting[T]{flags: f, flag: name, into: into, parse: parse, kind: kind, before: shown}
	if variable != "" {
		f.variables[name] = variable
		usage += " [$" + variable + "]"
	}
	letter := ""
	if name == "output" {
		letter = "o"
	}
	f.command.Flags().VarP(s, name, letter, usage)
}

func (s *setting[T]) Set(given string) error {
	s.set("--"+s.flag, given)
	return nil // a mistake is told with all others
}

func (s *setting[T]) set(source, given string) {
	s.flags.sources[s.flag] = source
	value, err := s.parse(given)
	if err != nil {
		s.flags.mistake("%s %q: %w", source, given, err)
		return
	}
	*s.into = value
}

func (s *setting[T]) String() string {
	if s.before == "0" || s.before == "0s" { // pflag leaves the default out of --help then
		return ""
	}
	return s.before
}

func (s *setting[T]) Type() string { return s.kind }

// The kinds of values that flags have.

func parseText(given string) (string, error) { return given, nil }

func parseDuration(least time.Duration) func(string) (time.Duration, error) {
	return func(given string) (time.Duration, error) {
		d, err := time.ParseDuration(given)
		if err != nil || d < least {
			return 0, fmt.Errorf("want a duration of at least %s, such as 90s", short(least))
		}
		return d, nil
	}
}

// parseDurationOrNone takes 0, too.
func parseDurationOrNone(least time.Duration) func(string) (time.Duration, error) {
	return func(given string) (time.Duration, error) {
		if given == "0" {
			return 0, nil
		}
		d, err := parseDuration(least)(given)
		if err != nil {
			return 0, fmt.Errorf("want 0 or a duration of at least %s, such as 90s", short(least))
		}
		return d, nil
	}
}

// short is d without the zero units that String shows: "5m" for "5m0s".
func short(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

func parseNumber(least, most int) func(string) (int, error) {
	return func(given string) (int, error) {
		n, err := strconv.Atoi(given)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("want a whole number from %d to %d", least, most)
		}
		return n, nil
	}
}

func parseShare(given string) (float64, error) {
	share, err := strconv.ParseFloat(given, 64)
	if err != nil || !(share > 0 && share <= 1) {
		return 0, fmt.Errorf("want a share above 0 and up to 1, such as 0.5")
	}
	return share, nil
}

func parseChoice(choices ...string) func(string) (string, error) {
	return func(given string) (string, error) {
		if !slices.Contains(choices, given) {
			return "", fmt.Errorf("want one of %s", strings.Join(choices, ", "))
		}
		return given, nil
	}
}

// parseListen takes the address nginx or the admin server is to listen on: an
// IP address (not a name: what it means could change under nginx) and a port.
func parseListen(given string) (string, error) {
	want := errors.New("want ADDRESS:PORT, such as 0.0.0.0:5000, 127.0.0.1:5000 or [::]:5000")
	host, port, err := net.SplitHostPort(given)
	if err != nil || net.ParseIP(host) == nil {
		return "", want
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", want
	}
	return given, nil
}
