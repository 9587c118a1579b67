package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/certificates"
	"lbctl/internal/consul"
	"lbctl/internal/controller"
	"lbctl/internal/history"
	"lbctl/internal/printable"
)

const statusHelp = `Say what nginx serves, since when, and whether that is what Consul says.

The states are:
  serving   nginx serves what Consul says; a service with wrong or missing data
            keeps its last good state, and the first line names it
  pending   lbctl is about to apply a change, or nginx to fetch one
  degraded  Consul, the templates or nginx have a problem; nginx serves the last
            good configuration
  frozen    a rollback pinned a generation; 'lbctl resume' follows Consul again
  starting  nginx has no configuration yet, or lbctl has just started and Consul has
            not answered yet
  down      nginx does not answer

The exit code is 0 for serving, pending and frozen, 3 for the others, and 4 when
no daemon answers.`

const statusExample = `  lbctl status
  lbctl status --watch
  lbctl status --wait 60s && deploy
  lbctl status --ready     # for health checks
  lbctl status -o json | jq -r .state`

type statusOptions struct {
	Out, Err io.Writer
	Terminal Terminal
	Now      func() time.Time
	Client   func() (*admin.Client, error)

	Output   string
	Watch    bool
	Interval time.Duration
	Wait     time.Duration // 0: don't wait
	Ready    bool
}

func newStatusCmd(f *factory) *cobra.Command {
	opts := &statusOptions{Out: f.out, Err: f.err, Terminal: f.terminal, Now: f.now}
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Say what nginx serves, and whether that is what Consul says",
		Long:    statusHelp,
		Example: statusExample,
		Args:    atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	cmd.Flags().BoolVar(&opts.Watch, "watch", false, "repeat: redraw the page on a terminal, else print a line for each change")
	define(flags, &opts.Interval, "interval", "", "DURATION", "interval between queries of --watch and --wait", time.Second, parseDuration(100*time.Millisecond))
	define(flags, &opts.Wait, "wait", "", "DURATION", "block until nginx serves what Consul says, at most for this time", 0, parseDuration(time.Millisecond))
	cmd.Flags().BoolVar(&opts.Ready, "ready", false, "print nothing; exit 0 if nginx answers, whatever generation it serves")
	opts.Client = daemonFlags(flags, &opts.Output).client
	flags.check(func(mistake func(string, ...any)) {
		modes := 0
		for _, given := range []bool{opts.Watch, opts.Wait > 0, opts.Ready} {
			if given {
				modes++
			}
		}
		if modes > 1 {
			mistake("--watch, --wait and --ready: want only one of them")
		}
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), opts) }
	return cmd
}

func runStatus(ctx context.Context, opts *statusOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	switch {
	case opts.Ready:
		return checkReady(ctx, client)
	case opts.Watch:
		return watchStatus(ctx, opts, client)
	case opts.Wait > 0:
		return waitStatus(ctx, opts, client)
	}
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if err := writeStatus(opts, status); err != nil {
		return err
	}
	return stateError(status)
}

// stateError is errProblemFound for the states that need an operator.
func stateError(status controller.Status) error {
	switch status.State {
	case controller.Serving, controller.Pending, controller.Frozen:
		return nil
	default:
		return errProblemFound
	}
}

// checkReady is for health checks. If nginx does not answer, the reason goes to the
// standard error, where Docker and Consul record it.
func checkReady(ctx context.Context, client *admin.Client) error {
	_, err := client.Ready(ctx)
	var refused *admin.Error
	if errors.As(err, &refused) {
		return problemFound("%s", refused.Message)
	}
	return err
}

// waitStatus waits for the state serving. It stops if a generation is pinned, because only an
// operator changes that.
func waitStatus(ctx context.Context, opts *statusOptions, client *admin.Client) error {
	wait := waiter{Err: opts.Err, Limit: opts.Wait, Interval: opts.Interval}
	status, err := wait.until(ctx, client, servingConsul, func(status controller.Status) (bool, error) {
		if status.State == controller.Frozen {
			return false, problemFound("a generation is pinned, so the state will not change: 'lbctl resume' follows Consul again")
		}
		return status.State == controller.Serving, nil
	})
	if err != nil && !errors.Is(err, errProblemFound) {
		return err // there is no status
	}
	return errors.Join(writeStatus(opts, status), err)
}

const (
	clearBelow = "\x1b[J"
	home       = "\x1b[H"
	clearAll   = "\x1b[2J"
)

// watchStatus shows the status until it is interrupted: on a terminal as a page
// that stays in place, elsewhere as a line, or a document, for each change.
func watchStatus(ctx context.Context, opts *statusOptions, client *admin.Client) error {
	before := ""
	for first := true; ; first = false {
		status, err := client.Status(ctx)
		if ctx.Err() != nil {
			return nil // the user ended the watch
		}
		if opts.Terminal.Width > 0 && opts.Output == outputText {
			if err := redraw(opts, first, status, err); err != nil {
				return err
			}
		} else if line := statusLine(opts, status, err); line != before {
			before = line
			if opts.Output == outputText {
				line = clock(opts.Now(), opts.Now()) + "  " + line
			}
			if _, err := fmt.Fprintln(opts.Out, line); err != nil {
				return err
			}
		}
		if sleep(ctx, opts.Interval) != nil {
			return nil
		}
	}
}

func redraw(opts *statusOptions, first bool, status controller.Status, err error) error {
	var page strings.Builder
	if first {
		page.WriteString(clearAll)
	}
	page.WriteString(home)
	text := opts.Terminal.wrap(printable.Line(fmt.Sprint(err)), 0)
	if err == nil {
		text = statusText(opts.Terminal, opts.Now(), status)
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if room := opts.Terminal.Height - 2; room > 0 && len(lines) > room {
		lines = append(lines[:room-1], "…")
	}
	for _, line := range lines {
		page.WriteString(line + "\x1b[K\n")
	}
	page.WriteString(opts.Terminal.paint(dim, "\x1b[K\n"+opts.Now().Format("15:04:05")+", Ctrl-C to end") + clearBelow)
	_, err = io.WriteString(opts.Out, page.String())
	return err
}

// statusLine is what a watch prints when it has changed: a line, or a document of a stream.
func statusLine(opts *statusOptions, status controller.Status, err error) string {
	switch {
	case forPrograms(opts.Output) && err != nil:
		return ofStream(opts.Output, map[string]string{"error": err.Error()})
	case forPrograms(opts.Output):
		return ofStream(opts.Output, status)
	case err != nil:
		return fmt.Sprintf("%-8s  %s", "unknown", printable.Line(err.Error()))
	}
	line := fmt.Sprintf("%-8s  %s", status.State, status.Summary)
	for _, problem := range status.Problems {
		line += "; " + problem.Subject + ": " + problem.Message
	}
	return line
}

func writeStatus(opts *statusOptions, status controller.Status) error {
	return printResult(opts.Out, opts.Output, status, func() error {
		_, err := io.WriteString(opts.Out, statusText(opts.Terminal, opts.Now(), status))
		return err
	})
}

// stateStyle is the colour of a state.
func stateStyle(state controller.State) style {
	switch state {
	case controller.Serving:
		return green
	case controller.Pending, controller.Frozen, controller.Starting:
		return yellow
	default:
		return red
	}
}

const labelWidth = 12 // "Last change" and a space

func statusText(terminal Terminal, now time.Time, status controller.Status) string {
	var out strings.Builder
	fmt.Fprintln(&out, terminal.paint(stateStyle(status.State), terminal.wrap(status.Summary, 0)))
	out.WriteByte('\n')
	row := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&out, "%s %s\n", terminal.paint(bold, fmt.Sprintf("%-*s", labelWidth, label)), terminal.wrap(text, labelWidth+1))
		}
	}
	row("State", string(status.State))
	row("nginx", nginxText(status.Nginx, now))
	if why := status.Nginx.WorkersReason; why != "" {
		row("Workers", "limited: "+why)
	}
	row("Consul", consulText(status.Consul, now))
	row("Endpoints", endpointsText(status.Endpoints, status.State == controller.Serving))
	row("Services", fmt.Sprintf("%d, with %s in rotation", status.Services, plural(status.Instances, "instance")))
	row("TLS", certificatesText(status.Certificates, now))
	if pending := status.Pending; pending != nil {
		row("Pending", pendingText(pending, now))
	}
	if frozen := status.Frozen; frozen != nil {
		pinned := strings.TrimSpace(fmt.Sprintf("generation %d %s", frozen.Generation, since(frozen.Since, now)))
		row("Pinned", pinned+"; 'lbctl resume' follows Consul again")
	}
	row("Last change", lastChangeText(status, now))
	row("lbctl", fmt.Sprintf("%s, up %s", status.Version, since(status.Started, now)))
	if len(status.Problems) > 0 {
		fmt.Fprintf(&out, "\n%s\n", terminal.paint(bold, "Problems"))
		for _, problem := range status.Problems {
			text := problem.Subject + ": " + problem.Message
			if !problem.Since.IsZero() {
				text += " (" + since(problem.Since, now) + ")"
			}
			fmt.Fprintf(&out, "  %s\n", terminal.wrap(text, 2))
		}
	}
	return out.String()
}

func nginxText(nginx controller.Nginx, now time.Time) string {
	if !nginx.Running {
		return nginx.Version + ", not running"
	}
	text := fmt.Sprintf("%s, process %d, %s", nginx.Version, nginx.PID, plural(nginx.Workers, "worker"))
	if nginx.OldWorkers > 0 {
		text += fmt.Sprintf(" and %d old still finishing requests", nginx.OldWorkers)
		if !nginx.OldWorkersSince.IsZero() {
			text += ", the oldest for " + age(now.Sub(nginx.OldWorkersSince))
		}
		if nginx.OldWorkersMemory > 0 {
			text += fmt.Sprintf(", %d MiB", (nginx.OldWorkersMemory+1<<20-1)>>20)
		}
	}
	if nginx.Generation == 0 {
		return text + ", serves no generation"
	}
	return text + fmt.Sprintf(", generation %d %s", nginx.Generation, since(nginx.Since, now))
}

// endpointsText says how servers are delivered to nginx, and for how many upstreams
// nginx has fetched the newest ones. In the state serving, an upstream that nginx has
// not fetched yet is right nevertheless: after a reload the new workers inherit the
// servers of the old ones.
func endpointsText(e controller.EndpointsStatus, serving bool) string {
	if e.By == "" {
		return "" // an older daemon
	}
	if e.By != "dns" {
		return "by reload: " + e.Reason
	}
	text := fmt.Sprintf("by DNS; nginx has the servers of %s", plural(e.Upstreams, "upstream"))
	switch n := len(e.Unfetched); {
	case n > 0 && serving:
		text = fmt.Sprintf("by DNS; nginx will soon ask again for the servers of %s", plural(n, "upstream"))
	case n > 0:
		text = fmt.Sprintf("by DNS; nginx has the newest servers of %d of %s", e.Upstreams-n, plural(e.Upstreams, "upstream"))
	}
	if n := len(e.ByReload); n > 0 {
		text += fmt.Sprintf("; by reload for %s (%s)", e.ByReload[0].Service, e.ByReload[0].Reason)
		if n > 1 {
			text += fmt.Sprintf(" and %d more", n-1)
		}
	}
	return text
}

func consulText(consul consul.Status, now time.Time) string {
	switch {
	case consul.Refused:
		return fmt.Sprintf("%s, refuses the token or the certificate %s: %s", consul.Address, since(consul.Since, now), consul.LastError)
	case !consul.Reachable && consul.LastError != "":
		why := strings.TrimPrefix(consul.LastError, "Consul at "+consul.Address+" does not answer: ")
		return fmt.Sprintf("%s, does not answer %s: %s", consul.Address, since(consul.Since, now), why)
	case !consul.Reachable:
		return fmt.Sprintf("%s, has not answered yet", consul.Address)
	case consul.Leader == "":
		return fmt.Sprintf("%s, no leader %s: changes wait", consul.Address, since(consul.Since, now))
	default:
		return fmt.Sprintf("%s, leader %s, fine %s", consul.Address, consul.Leader, since(consul.Since, now))
	}
}

// certificatesText says how many certificates there are, and which one expires first.
func certificatesText(all []certificates.Certificate, now time.Time) string {
	if len(all) == 0 {
		return ""
	}
	first := slices.MinFunc(all, func(a, b certificates.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	left := first.NotAfter.Sub(now)
	in := plural(int(left.Hours()/24), "day")
	if left < 48*time.Hour {
		in = plural(int(left.Hours()), "hour")
	}
	switch {
	case left <= 0:
		return fmt.Sprintf("%s; %s has expired", plural(len(all), "certificate"), first.Name)
	case len(all) == 1:
		return fmt.Sprintf("1 certificate; %s expires in %s", first.Name, in)
	default:
		return fmt.Sprintf("%d certificates; the first to expire is %s, in %s", len(all), first.Name, in)
	}
}

func pendingText(pending *controller.PendingChange, now time.Time) string {
	text := pending.Change
	if !pending.Since.IsZero() {
		text += ", " + since(pending.Since, now)
	}
	return text + ": " + pending.Reason
}

// lastChangeText describes the newest of the last change in the history and the last apply,
// which may be the repetition of a failure. Its time is when it was over, as in the history.
func lastChangeText(status controller.Status, now time.Time) string {
	change := history.Event{}
	if status.LastChange != nil {
		change = *status.LastChange
	}
	if apply := status.LastApply; apply != nil {
		if over := apply.At.Add(seconds(apply.TookSeconds)); over.After(change.Time) {
			change = history.Event{Time: over, Kind: apply.Outcome, TookSeconds: apply.TookSeconds}
		}
	}
	if change.Time.IsZero() {
		return "none"
	}
	what, _ := kindText(change.Kind)
	return fmt.Sprintf("%s at %s, took %s", what, ago(change.Time, now), elapsed(seconds(change.TookSeconds)))
}
