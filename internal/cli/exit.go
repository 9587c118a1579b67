package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"lbctl/internal/admin"
	"lbctl/internal/printable"
)

// The exit codes of every command; docs/cli.md promises them.
const (
	exitOK          = 0 // success
	exitFailure     = 1 // the command failed
	exitUsage       = 2 // the command line or the environment is wrong: the command did nothing
	exitProblem     = 3 // the command worked and found a problem: errProblemFound
	exitUnreachable = 4 // no daemon answered
)

// errProblemFound is the error of a command that worked and reports a problem, such as
// an nginx that does not answer. A command that returns exactly errProblemFound has
// printed the problem already, as its result.
var errProblemFound = errors.New("problem found")

// A problemError is an errProblemFound whose message is still to be printed.
type problemError struct{ message string }

func (e problemError) Error() string        { return e.message }
func (e problemError) Is(target error) bool { return target == errProblemFound }

func problemFound(format string, args ...any) error {
	return problemError{fmt.Sprintf(format, args...)}
}

// A usageError is a mistake in the command line or in the environment.
type usageError struct {
	command  string // "lbctl run"
	where    string // the mistakes are; empty: in flags and environment
	mistakes []error
	hint     string // another line, "" for none
}

func (e *usageError) Error() string {
	var text strings.Builder
	if len(e.mistakes) == 1 {
		text.WriteString(e.mistakes[0].Error())
	} else {
		fmt.Fprintf(&text, "%d mistakes %s:", len(e.mistakes), cmp.Or(e.where, "in flags and environment"))
		for _, mistake := range e.mistakes {
			fmt.Fprintf(&text, "\n  %s", mistake)
		}
	}
	if e.hint != "" {
		text.WriteString("\n" + e.hint)
	}
	fmt.Fprintf(&text, "\nTry '%s --help'.", e.command)
	return text.String()
}

// exitCode returns the exit code for an error. No other code decides on exit codes.
func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errProblemFound):
		return exitProblem
	case errors.Is(err, admin.ErrUnreachable):
		return exitUnreachable
	default:
		return exitFailure
	}
}

// printError prints the error, unless the command has printed it.
func printError(w io.Writer, err error) {
	var usage *usageError
	switch {
	case err == nil, err == errProblemFound:
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "lbctl: interrupted")
	case !errors.As(err, &usage): // a line from Consul or nginx must not look like a message of lbctl
		fmt.Fprintf(w, "lbctl: %s\n", strings.ReplaceAll(printable.Lines(err.Error()), "\n", "\n  "))
	default:
		fmt.Fprintf(w, "lbctl: %s\n", printable.Lines(err.Error()))
	}
}
