package cli

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lbctl/internal/policy"
)

// flags are the flags of one command. A flag can have an environment variable, which
// sets its value if the command line does not. flags collects the mistakes of all
// values and reports them together. Each report names the flag or the variable that
// gave the value.
type flags struct {
	command   *cobra.Command
	environ   []string
	variables map[string]string // flag -> variable
	sources   map[string]string // flag -> the source of its value: "--workers", "LBCTL_WORKERS"
	checks    []func(mistake func(format string, args ...any))
	mistakes  []error
}

// newFlags gives the command flags. They have their values, also those of the
// environment, when its RunE begins.
func newFlags(f *factory, command *cobra.Command) *flags {
	own := &flags{command: command, environ: f.environ, variables: map[string]string{}, sources: map[string]string{}}
	command.Flags().SortFlags = false // help lists flags in the order in which they are defined
	command.PreRunE = func(*cobra.Command, []string) error { return own.finish() }
	if args := command.Args; args != nil {
		// A flag without its value takes the next flag for it, whose value then looks like an
		// argument: both mistakes are told.
		command.Args = func(command *cobra.Command, given []string) error {
			err := args(command, given)
			if usage := (*usageError)(nil); errors.As(err, &usage) {
				usage.mistakes = append(own.mistakes, usage.mistakes...)
			}
			return err
		}
	}
	return own
}

// finish reads the environment and returns all mistakes in one error.
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
	if len(f.mistakes) == 0 { // the checks compare values, which must be valid first
		for _, check := range f.checks {
			check(f.mistake)
		}
	}
	if len(f.mistakes) == 0 {
		return nil
	}
	return &usageError{command: f.command.CommandPath(), mistakes: f.mistakes}
}

// check adds a check that compares several flags.
func (f *flags) check(check func(mistake func(format string, args ...any))) {
	f.checks = append(f.checks, check)
}

// given reports whether the command line or the environment sets the flag.
func (f *flags) given(name string) bool { return f.sources[name] != "" }

// source is the name to blame for a flag's value: "--workers" or "LBCTL_WORKERS". It is
// the flag for a default.
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
	flags   *flags
	flag    string
	into    *T
	parse   func(string) (T, error)
	kind    string // the name of the value in --help
	initial string // the default in --help
}

// letters are the short forms of flags.
var letters = map[string]string{"output": "o", "message": "m", "file": "f", "method": "X", "header": "H"}

// define adds a flag. variable is "" for a flag without an environment variable. The
// error of parse says what was expected: `want a number from 1 to 9`.
func define[T any](f *flags, into *T, name, variable, kind, usage string, before T, parse func(string) (T, error)) {
	*into = before
	shown := fmt.Sprint(before)
	if d, ok := any(before).(time.Duration); ok {
		shown = shortDuration(d)
	}
	if v := reflect.ValueOf(&before).Elem(); v.Kind() == reflect.Struct && v.IsZero() {
		shown = "" // such as a time: there is no default
	}
	s := &setting[T]{flags: f, flag: name, into: into, parse: parse, kind: kind, initial: shown}
	if variable != "" {
		f.variables[name] = variable
		usage += " [$" + variable + "]"
	}
	f.command.Flags().VarP(s, name, letters[name], usage)
}

func (s *setting[T]) Set(given string) error {
	s.set("--"+s.flag, given)
	return nil // finish returns the mistakes
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
	if s.initial == "0" || s.initial == "0s" || s.initial == "[]" { // pflag leaves the default out of --help
		return ""
	}
	return s.initial
}

func (s *setting[T]) Type() string { return s.kind }

// The parsers of values.

func parseText(given string) (string, error) { return given, nil }

func parseDuration(least time.Duration) func(string) (time.Duration, error) {
	return func(given string) (time.Duration, error) {
		d, err := time.ParseDuration(given)
		if err != nil || d < least {
			return 0, fmt.Errorf("want a duration of at least %s, such as 90s", shortDuration(least))
		}
		return d, nil
	}
}

// parseDurationOrNone accepts 0, too.
func parseDurationOrNone(least time.Duration) func(string) (time.Duration, error) {
	return func(given string) (time.Duration, error) {
		if given == "0" {
			return 0, nil
		}
		d, err := parseDuration(least)(given)
		if err != nil {
			return 0, fmt.Errorf("want 0 or a duration of at least %s, such as 90s", shortDuration(least))
		}
		return d, nil
	}
}

// shortDuration formats d without the zero units of String: "5m" for "5m0s".
func shortDuration(d time.Duration) string {
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

var sizePattern = regexp.MustCompile(`^([1-9][0-9]{0,14})([kKmMgG]?)$`)

// parseSize parses a number of bytes, with k, m or g for units of 1,024.
func parseSize(least, most int64) func(string) (int64, error) {
	return func(given string) (int64, error) {
		if match := sizePattern.FindStringSubmatch(given); match != nil {
			n, err := strconv.ParseInt(match[1], 10, 64)
			shift := map[string]int{"k": 10, "m": 20, "g": 30}[strings.ToLower(match[2])]
			if err == nil && n <= most>>shift && n<<shift >= least {
				return n << shift, nil
			}
		}
		return 0, fmt.Errorf("want a size from %s to %s, in bytes or with k, m or g, such as 64m", policy.Size(least), policy.Size(most))
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

// parseListen parses an address to listen on: an IP address and a port. It refuses
// host names, because a name can resolve to another address at the next start.
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
