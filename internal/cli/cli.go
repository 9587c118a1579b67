// Package cli is lbctl's command line: the daemon, and the commands that query and
// control it. A command is one file: an options struct, a
// constructor that fills it from flags, and a run function that does the work
// and writes results to the standard output. Everything else goes to the
// standard error. exit.go defines the exit codes.
package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/spelling"
)

// A System is the environment of a command line.
type System struct {
	Args     []string // without the program's name
	In       io.Reader
	Out, Err io.Writer
	Environ  []string // NAME=value
	Terminal Terminal // the capabilities of Out
	// Now is the clock. Commands show times in its time zone.
	Now func() time.Time
}

// Main runs one command line until it is done or ctx is, and returns the exit
// code of the process.
func Main(ctx context.Context, system System) int {
	root := newRootCmd(&factory{
		in:       system.In,
		out:      system.Out,
		err:      system.Err,
		environ:  system.Environ,
		terminal: system.Terminal,
		now:      system.Now,
	})
	root.SetArgs(system.Args)
	root.SetOut(system.Out)
	root.SetErr(system.Err)
	err := root.ExecuteContext(ctx)
	printError(system.Err, err)
	return exitCode(err)
}

// A factory holds what the constructors of commands need.
type factory struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
	terminal Terminal
	now      func() time.Time
}

const rootHelp = `lbctl keeps nginx serving what Consul says.

Services register themselves in Consul. lbctl renders nginx's configuration from
the catalog, tests it, reloads nginx and verifies that nginx serves the new
configuration. If nginx does not, lbctl goes back to the last good one. Each
configuration that nginx has served is a numbered generation on disk.

'lbctl run' is the daemon. policy, deny, allow, access and key read and write what the
operator wants, in Consul itself. render, check, doctor and certificate work alone. The
other commands query the daemon over its unix socket or over HTTP.`

const rootExample = `  lbctl status                 what nginx serves, and whether that is what Consul says
  lbctl status --wait 60s      block until nginx serves what Consul says
  lbctl services               every service, its routes and its instances
  lbctl services hello_server  one service's instances, and why one gets no traffic
  lbctl explain URL            which service and instances a request gets, and why
  lbctl history                what happened, newest first
  lbctl logs -f                the requests, one line each, as they come
  lbctl diff                   how the last change altered nginx's configuration
  lbctl rollback               go back to the previous generation and stay there
  lbctl resume                 follow Consul again
  lbctl policy set cart timeout.read=5s
                               how a service is balanced
  lbctl doctor                 what is wrong with Consul, nginx or this machine, and how to mend it
  lbctl check --templates DIR  does nginx accept the output of these templates?`

const rootUsage = `{{with .Long}}{{.}}

{{else}}{{with .Short}}{{.}}.

{{end}}{{end}}Usage:

{{- if .HasParent}}
  {{.UseLine}}{{else}}
  lbctl COMMAND [flags]{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}
{{- $commands := .Commands}}
{{- range $group := .Groups}}

{{.Title}}
{{- range $commands}}{{if eq .GroupID $group.ID}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}
{{- if and .HasParent .HasAvailableSubCommands}}

Commands:
{{- range $commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}
{{- if and .HasParent .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}{{end}}
{{- if not .HasParent}}

Exit codes:
  0  success
  1  the command failed
  2  wrong usage: the command did nothing
  3  the command worked and found a problem
  4  no daemon answered

Use "lbctl COMMAND --help" for the help and the flags of a command.{{end}}
`

func init() { cobra.EnableCommandSorting = false } // help lists commands in the order in which they are added

// The groups of commands in lbctl's help.
const (
	groupQuery  = "query"
	groupChange = "change"
	groupRun    = "run"
	groupMore   = "more"
)

func newRootCmd(f *factory) *cobra.Command {
	root := &cobra.Command{
		Use:           "lbctl",
		Long:          rootHelp,
		Example:       rootExample,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return noCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetUsageTemplate(rootUsage)
	root.SetHelpTemplate(`{{.UsageString}}`)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{command: cmd.CommandPath(), mistakes: []error{err}}
	})
	root.AddGroup(
		&cobra.Group{ID: groupQuery, Title: "Query:"},
		&cobra.Group{ID: groupChange, Title: "Change:"},
		&cobra.Group{ID: groupRun, Title: "Run and prepare:"},
		&cobra.Group{ID: groupMore, Title: "More:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	add(groupQuery, newStatusCmd(f), newServicesCmd(f), newRoutesCmd(f), newExplainCmd(f), newHistoryCmd(f), newLogsCmd(f), newDiffCmd(f), newDoctorCmd(f))
	add(groupChange, newRollbackCmd(f), newResumeCmd(f), newAcceptCmd(f), newPolicyCmd(f))
	add(groupQuery, newAccessCmd(f))
	add(groupChange, newDenyCmd(f), newAllowCmd(f), newKeyCmd(f))
	add(groupRun, newRunCmd(f), newRenderCmd(f), newCheckCmd(f), newCertificateCmd(f))
	add(groupMore, newVersionCmd(f), newCompletionCmd(f))
	help := newHelpCmd()
	help.GroupID = groupMore
	root.SetHelpCommand(help)
	finishCompletions(root)
	return root
}

// newHelpCmd is cobra's help command, except that it fails for an unknown command.
func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Print help about a command",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			for _, command := range cmd.Root().Commands() {
				if command.IsAvailableCommand() && len(args) == 0 {
					names = append(names, cobra.CompletionWithDesc(command.Name(), command.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			command, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return noCommand(cmd.Root(), args[0])
			}
			command.InitDefaultHelpFlag()
			return command.Help()
		},
	}
}

func noCommand(root *cobra.Command, name string) error {
	hint := ""
	if similar := root.SuggestionsFor(name); len(similar) > 0 {
		hint = fmt.Sprintf("Did you mean %q?", cmp.Or(spelling.Nearest(name, similar), similar[0]))
	}
	return &usageError{command: root.CommandPath(), mistakes: []error{fmt.Errorf("there is no command %q", name)}, hint: hint}
}

// newGroupCmd makes a command that has only further commands.
func newGroupCmd(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use:   use + " COMMAND",
		Short: short,
		Long:  long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return noCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.DisableFlagsInUseLine = true
	group.SuggestionsMinimumDistance = 2
	group.AddCommand(commands...)
	return group
}

// exactly checks that a command gets n arguments. what names them in the error message.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return &usageError{
			command:  cmd.CommandPath(),
			mistakes: []error{fmt.Errorf("%s takes %s, got %s", cmd.CommandPath(), what, orNothing(quoteAll(args)))},
		}
	}
}

// atMost checks that a command gets at most n arguments. what names them in the
// error message.
func atMost(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		wanted := "no arguments"
		if n > 0 {
			wanted = "at most " + what
		}
		return &usageError{
			command:  cmd.CommandPath(),
			mistakes: []error{fmt.Errorf("%s takes %s, got %s", cmd.CommandPath(), wanted, quoteAll(args))},
		}
	}
}

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = fmt.Sprintf("%q", word)
	}
	return strings.Join(quoted, " ")
}
