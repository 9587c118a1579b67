package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/policy"
	"lbctl/internal/routing"
)

const explainHelp = `Say what becomes of a request: which listener takes it, which route and service it
gets and why not another one, how it is balanced and who says so, and which instances
may get it. No request is sent.

URL is grpc://HOST/package.Service/Method, or has the scheme grpcs, http or https. Its
port is that of a listener; without one, it is the first listener for the scheme.
A key or password in a header is checked as nginx has it checked.

Exit code 3: no instance would get the request.`

const explainExample = `  lbctl explain grpc://localhost/protos.Ping/SayHello
  lbctl explain http://shop.example.com:8080/cart -X POST -H 'x-version: v2'`

type explainOptions struct {
	Out      io.Writer
	Terminal Terminal
	Now      func() time.Time
	Client   func() (*admin.Client, error)
	Command  string // the name of the command, for mistakes

	Output  string
	Request admin.Request
}

func newExplainCmd(f *factory) *cobra.Command {
	opts := &explainOptions{Out: f.out, Terminal: f.terminal, Now: f.now}
	cmd := &cobra.Command{
		Use:     "explain URL",
		Short:   "Say what becomes of a request, and why",
		Long:    explainHelp,
		Example: explainExample,
		Args:    atMost(1, "one URL"),
	}
	flags := newFlags(f, cmd)
	var header string
	define(flags, &header, "header", "", "HEADER", `a header of the request, such as "x-version: v2"; may be given several times`, "", func(given string) (string, error) {
		if name, _, ok := strings.Cut(given, ":"); !ok || strings.TrimSpace(name) == "" {
			return "", fmt.Errorf(`want "Name: value"`)
		}
		opts.Request.Headers = append(opts.Request.Headers, given)
		return given, nil
	})
	define(flags, &opts.Request.Method, "method", "", "METHOD", "the HTTP method (default GET; a gRPC call is a POST)", "", parseText)
	define(flags, &opts.Request.From, "from", "", "ADDRESS", "the address of the client: may it use the service?", "", parseText)
	outputFlag(flags, &opts.Output)
	at := daemonFlags(flags, &opts.Output)
	opts.Client = at.client
	cmd.ValidArgsFunction = completeURLs(at)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return &usageError{command: cmd.CommandPath(), mistakes: []error{fmt.Errorf("no URL is given, want one such as grpc://localhost/protos.Ping/SayHello")}}
		}
		opts.Command, opts.Request.URL = cmd.CommandPath(), args[0]
		return runExplain(cmd.Context(), opts)
	}
	return cmd
}

func runExplain(ctx context.Context, opts *explainOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	e, err := client.Explain(ctx, opts.Request)
	if refused := (*admin.Error)(nil); errors.As(err, &refused) && refused.Status == http.StatusBadRequest {
		return &usageError{command: opts.Command, mistakes: []error{err}}
	}
	if err != nil {
		return err
	}
	if err := printResult(opts.Out, opts.Output, e, func() error { return writeExplanation(opts, e) }); err != nil {
		return err
	}
	if e.Result != admin.ResultService && e.Result != admin.ResultHealth {
		return errProblemFound
	}
	return nil
}

func writeExplanation(opts *explainOptions, e admin.Explanation) error {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n\n", opts.Terminal.paint(bold, opts.Terminal.wrap(summary(e), 0)))
	fact := func(name, text string) {
		if text != "" {
			const width = 8
			fmt.Fprintf(&out, "%-*s  %s\n", width, name, opts.Terminal.wrap(text, width+2))
		}
	}
	if e.Certificate != "" {
		fact("Client", "needs a certificate "+e.Certificate+"; without one nginx refuses the request")
	}
	fact("Listener", listenerText(e.Listener.Name, e.Listener.Addresses))
	if e.Refused == nil || e.Path != "" {
		fact("Host", orNothing(e.Host))
		fact("Path", e.Path)
	}
	if e.Taken != nil {
		fact("Route", wayText(routing.Listener{Protocol: e.Listener.Protocol}, *e.Taken))
		fact("Upstream", e.Upstream)
		fact("Networks", strings.Join(e.Taken.Networks, ", "))
	}
	for n, line := range policyLines(e.Policy) {
		name := "Policy"
		if n > 0 {
			name = ""
		}
		fact(name, line)
	}
	for n, line := range e.LeftOut {
		name := "Left out"
		if n > 0 {
			name = ""
		}
		fact(name, line)
	}
	if e.Denials > 0 {
		fact("Access", plural(e.Denials, "denied network")+", see 'lbctl access list'; --from ADDRESS says whether a client is denied")
	}
	fact("Note", e.Note)
	if _, err := io.WriteString(opts.Out, out.String()); err != nil {
		return err
	}
	if len(e.Instances) > 0 {
		fmt.Fprintln(opts.Out)
		if err := writeInstances(&servicesOptions{Out: opts.Out, Terminal: opts.Terminal, Now: opts.Now}, e.Instances, false); err != nil {
			return err
		}
	}
	return writeLost(opts, e)
}

// summary says in one line what becomes of the request.
func summary(e admin.Explanation) string {
	request := e.Method + " " + e.Path
	if e.Certificate != "" {
		request += " with a client certificate"
	}
	about := e.Service
	if e.Taken != nil && e.Taken.Health {
		about = "lbctl itself"
	}
	switch {
	case e.Result == admin.ResultHealth:
		return fmt.Sprintf("lbctl itself answers %s, with %s", request, healthText)
	case e.Result == admin.ResultService && e.Wanted != "":
		return fmt.Sprintf("%s is for %s, %s", request, e.Service, e.Wanted)
	case e.Result == admin.ResultService && e.Key != "":
		return fmt.Sprintf("%s is for %s: its key %s is good", request, e.Service, e.Key)
	case e.Result == admin.ResultService:
		return fmt.Sprintf("%s is for %s", request, e.Service)
	case e.Result == admin.ResultNoInstance:
		return fmt.Sprintf("%s is for %s, which has no instance in rotation: the client gets %s", request, e.Service, e.Answer)
	case e.Result == admin.ResultDenied:
		return fmt.Sprintf("%s is for %s, but %s. The client gets %s", request, about, e.Denied, e.Answer)
	case e.Taken != nil:
		return fmt.Sprintf("%s is for %s, but nginx answers it itself: the client gets %s", request, about, e.Answer)
	case e.Path == "":
		return "nginx refuses the request: the client gets " + e.Answer
	default:
		return fmt.Sprintf("nginx answers %s itself: the client gets %s", request, e.Answer)
	}
}

// policyLines has a line for each field that somebody sets, and one for the others.
func policyLines(fields []policy.Explained) []string {
	var lines []string
	for _, f := range fields {
		if f.Source != policy.SourceBuiltIn {
			lines = append(lines, fmt.Sprintf("%s %s, from %s", f.Name, f.Value, f.Source))
		}
	}
	switch {
	case len(lines) > 0:
		lines = append(lines, "all other fields as built in; -o json shows them")
	case len(fields) > 0:
		lines = append(lines, "all fields as built in; -o json shows them")
	}
	return lines
}

// writeLost prints the other routes that match the host and path.
func writeLost(opts *explainOptions, e admin.Explanation) error {
	if len(e.Lost) == 0 {
		return nil
	}
	fmt.Fprintln(opts.Out)
	t := &table{header: []string{"OTHER ROUTE", "SERVICE", "WHY NOT"}, prose: true}
	for _, lost := range e.Lost {
		t.add(text(wayText(routing.Listener{Protocol: e.Listener.Protocol}, lost.Way)), serviceCell(lost.Way), text(lost.Reason))
	}
	return t.write(opts.Out, opts.Terminal)
}
