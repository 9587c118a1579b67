package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lbctl/internal/admin"
	"lbctl/internal/consulclient"
	"lbctl/internal/daemon"
	"lbctl/internal/disk"
	"lbctl/internal/doctor"
	"lbctl/internal/printable"
)

const doctorHelp = `Check what goes wrong in practice, and say how to mend it: Consul, the token and its
rights, nginx and its limits, ports, directories, and what is in the catalog. The command
changes nothing.

With a running daemon on this machine, the checks are of its flags and variables. Without
one, they are of the flags and variables of this command, which are those of 'lbctl run':
they show what it would meet.

The exit code is 3 if a check fails. docs/doctor.md lists all checks.`

const doctorExample = `  lbctl doctor
  lbctl doctor --all                 # also what is fine
  lbctl doctor -o json | jq -r '.findings[] | select(.state == "failed") | .mend'`

type doctorOptions struct {
	Out      io.Writer
	Terminal Terminal
	Factory  *factory
	Root     *cobra.Command
	Flags    *flags

	Output string
	All    bool
	Daemon *daemonAddress
	Config daemon.Config
}

func newDoctorCmd(f *factory) *cobra.Command {
	opts := &doctorOptions{Out: f.out, Terminal: f.terminal, Factory: f}
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "Check what goes wrong in practice, and say how to mend it",
		Long:    doctorHelp,
		Example: doctorExample,
		Args:    atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	cmd.Flags().BoolVar(&opts.All, "all", false, "show what is fine too")
	opts.Daemon = &daemonAddress{flags: flags, output: &opts.Output}
	define(flags, &opts.Daemon.addr, "addr", "LBCTL_ADDR", "URL",
		"address of the daemon: http://HOST:PORT or unix:///PATH (default its socket)", "", parseText)
	configFlags(flags, &opts.Config)
	opts.Flags = flags
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		opts.Root = cmd.Root()
		return runDoctor(cmd.Context(), opts)
	}
	return cmd
}

func runDoctor(ctx context.Context, opts *doctorOptions) error {
	report := doctor.Examine(ctx, subject(ctx, opts))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := printResult(opts.Out, opts.Output, report, func() error { return writeReport(opts, report) })
	if err == nil && report.State == doctor.Failed {
		return errProblemFound
	}
	return err
}

// subject finds out what is to be examined.
func subject(ctx context.Context, opts *doctorOptions) doctor.Subject {
	s := doctor.Subject{Config: opts.Config, Version: version, Environ: opts.Factory.environ, Known: knownVariables(opts.Root)}
	s.Operator, _ = consulclient.New(nil) // with the variables of this command; Consul tells the error
	s.Daemon = findDaemon(ctx, opts)
	if pid := s.Daemon.PID; pid != 0 && pid != os.Getpid() {
		if err := adoptSettings(&s, pid); err != nil {
			s.Daemon.Foreign = err.Error()
		}
	} else if pid == 0 && s.Daemon.Status != nil {
		s.Daemon.Foreign = "it runs on another machine, or in a container"
	}
	s.Consul, s.ConsulErr = consulclient.New(nil)
	return s
}

// findDaemon asks the daemon for its status, and finds its process.
func findDaemon(ctx context.Context, opts *doctorOptions) (found doctor.Daemon) {
	opts.Daemon.stateDir, opts.Daemon.runDir = opts.Config.StateDir, opts.Config.RunDir
	// The daemon locks both; the command line may name only one.
	found.PID = cmp.Or(lockHolder(daemon.RunDir(opts.Config.StateDir, opts.Config.RunDir)), lockHolder(opts.Config.StateDir))
	client, err := opts.Daemon.client()
	if err != nil {
		found.Err = err
		return found
	}
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := client.Status(asking)
	if err != nil {
		found.Err = err
		return found
	}
	services, err := client.Services(asking)
	if err != nil {
		found.Err = err
		return found
	}
	found.Status, found.Services = &status, append([]admin.Service{}, services...)
	return found
}

// lockHolder returns the process of the daemon that uses a directory, 0 if there is none.
func lockHolder(dir string) int {
	content, err := disk.ReadFile(filepath.Join(dir, "lock"), 64)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || pid != os.Getpid() && !slices.Contains(words(pid, "cmdline"), "run") {
		return 0 // it has ended, and another process may have its number
	}
	return pid
}

// words reads a file of /proc/PID with strings that end with NUL; none if it can't be read.
func words(pid int, name string) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// adoptSettings takes the flags and variables of the daemon, and its variables for Consul.
func adoptSettings(s *doctor.Subject, pid int) error {
	args, environ := words(pid, "cmdline"), words(pid, "environ")
	run := slices.Index(args, "run")
	if run < 0 || environ == nil {
		return fmt.Errorf("process %d belongs to another user", pid)
	}
	cmd, opts := newRun(&factory{out: io.Discard, err: io.Discard, environ: environ, now: time.Now})
	err := cmd.ParseFlags(args[run+1:])
	if err == nil {
		err = cmd.PreRunE(cmd, nil)
	}
	if err != nil {
		return fmt.Errorf("its command line is for another version of lbctl: %w", err)
	}
	// A relative path was meant for the daemon's working directory, so what the command line says
	// counts. It may name the directory of sockets alone.
	stateDir := s.Config.StateDir
	if lockHolder(stateDir) != pid {
		stateDir = opts.Config.StateDir
	}
	if lockHolder(stateDir) != pid {
		return errors.New("its state directory is not known: name it with --state-dir")
	}
	opts.Config.StateDir, opts.Config.RunDir = stateDir, s.Config.RunDir
	s.Config, s.Environ = opts.Config, environ
	for _, line := range os.Environ() {
		if name, _, _ := strings.Cut(line, "="); strings.HasPrefix(name, "CONSUL_") {
			os.Unsetenv(name)
		}
	}
	for _, line := range environ { // Consul's package reads its variables only from the process
		if name, value, _ := strings.Cut(line, "="); strings.HasPrefix(name, "CONSUL_") {
			os.Setenv(name, value)
		}
	}
	return nil
}

var variablePattern = regexp.MustCompile(`\[\$(\w+)\]`)

// knownVariables returns the variables of all commands.
func knownVariables(command *cobra.Command) (names []string) {
	command.Flags().VisitAll(func(flag *pflag.Flag) {
		if match := variablePattern.FindStringSubmatch(flag.Usage); match != nil && !slices.Contains(names, match[1]) {
			names = append(names, match[1])
		}
	})
	for _, sub := range command.Commands() {
		names = append(names, knownVariables(sub)...)
	}
	return names
}

// writeReport prints what has failed, then warnings, and then a line about the rest.
func writeReport(opts *doctorOptions, report doctor.Report) error {
	printable.Fields(&report)
	var out strings.Builder
	states := []doctor.State{doctor.Failed, doctor.Warning}
	if opts.All {
		states = append(states, doctor.Skipped, doctor.OK)
	}
	for _, state := range states {
		for _, f := range report.Findings {
			if f.State == state {
				writeFinding(&out, opts.Terminal, f)
			}
		}
	}
	if out.Len() > 0 {
		out.WriteByte('\n')
	}
	var counts []string
	for _, state := range []doctor.State{doctor.Failed, doctor.Warning, doctor.OK, doctor.Skipped} {
		n := report.Count(state)
		switch {
		case n > 0 && state == doctor.Warning:
			counts = append(counts, plural(n, "warning"))
		case n > 0:
			counts = append(counts, fmt.Sprintf("%d %s", n, state))
		}
	}
	summary := strings.Join(counts, ", ")
	if !opts.All {
		summary += "; --all shows all"
	}
	fmt.Fprintln(&out, summary)
	_, err := io.WriteString(opts.Out, out.String())
	return err
}

func writeFinding(out *strings.Builder, terminal Terminal, f doctor.Finding) {
	const indent = 9 // the longest state, and two spaces
	styles := map[doctor.State]style{doctor.Failed: red, doctor.Warning: yellow, doctor.OK: green, doctor.Skipped: dim}
	word := terminal.paint(styles[f.State], string(f.State)) + strings.Repeat(" ", indent-len(f.State))
	fmt.Fprintf(out, "%s%s\n", word, terminal.wrap(f.Check+": "+f.Found, indent))
	for _, more := range []struct{ label, text string }{{"wanted: ", f.Wanted}, {"mend: ", f.Mend}} {
		if more.text != "" {
			fmt.Fprintf(out, "%s%s\n", strings.Repeat(" ", indent), terminal.wrap(more.label+more.text, indent))
		}
	}
}
