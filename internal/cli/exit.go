package cli

import (
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
	exitOK          = 0 // done, and all is as it should be
	exitFailure     = 1 // the command could not do its work
	exitUsage       = 2 // the command line or the environment is wrong: nothing was done
	exitNotRight    = 3 // there is an answer, and it is not what it should be
	exitUnreachable = 4 // no daemon answered
)

// errNotRight marks the answer of a command that worked, about a thing that is
// not as it should be. An error that is exactly errNotRight has been printed
// already, as the command's result.
var errNotRight = errors.New("not as it should be")

// A notRightError is errNotRight with a sentence still to be printed.
type notRightError struct{ message string }

func (e notRightError) Error() string        { return e.message }
func (e notRightError) Is(target error) bool { return target == errNotRight }

func notRight(format string, args ...any) error {
	return notRightError{fmt.Sprintf(format, args...)}
}

// A usageError is a mistake in the command line or in the environment.
type usageError struct {
	command  string // "lbctl run"
	mistakes []error
	hint     string // one line more, "" for none
}

func (e *usageError) Error() string {
	var text strings.Builder
	if len(e.mistakes) == 1 {
		text.WriteString(e.mistakes[0].Error())
	} else {
		fmt.Fprintf(&text, "%d mistakes in flags and environment:", len(e.mistakes))
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

// exitCode is the one place where an error becomes an exit code.
func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errNotRight):
		return exitNotRight
	case errors.Is(err, admin.ErrUnreachable):
		return exitUnreachable
	default:
		return exitFailure
	}
}

// printError tells the user what went wrong, unless the command has done so.
func printError(w io.Writer, err error) {
	var usage *usageError
	switch {
	case err == nil, err == errNotRight:
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "lbctl: interrupted")
	case !errors.As(err, &usage): // lines of a message from others must not look like ours
		fmt.Fprintf(w, "lbctl: %s\n", strings.ReplaceAll(printable.Lines(err.Error()), "\n", "\n  "))
	default:
		fmt.Fprintf(w, "lbctl: %s\n", printable.Lines(err.Error()))
	}
}
