package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/kv"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policyfile"
	"lbctl/internal/printable"
	"lbctl/internal/render"
)

type policyListOptions struct {
	Out, Err io.Writer
	Terminal Terminal
	Now      func() time.Time
	Store    *storeAddress
	Client   func() (*admin.Client, error)

	Output string
}

// A listedPolicy is a policy in the document of "policy list".
type listedPolicy struct {
	Name   string `json:"name"`
	Key    string `json:"key"` // in Consul's KV
	Fields int    `json:"fields"`
	// Last is the last write; null if it was made without lbctl.
	Last     *policyEntry `json:"last"`
	Problems []string     `json:"problems"`
}

func newPolicyListCmd(f *factory) *cobra.Command {
	opts := &policyListOptions{Out: f.out, Err: f.err, Terminal: f.terminal, Now: f.now}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the policies, and what is wrong with them",
		Long: `List the policies: how many fields they set, who wrote them last, and what is wrong
with them. A policy that can't be read keeps its service's last good one in force. If the
daemon answers, values that have no effect are there too, and why nginx refuses the policy
"default".`,
		Args: atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	opts.Store = storeFlags(flags)
	opts.Client = daemonFlags(flags, &opts.Output).client
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runPolicyList(cmd.Context(), opts) }
	return cmd
}

func runPolicyList(ctx context.Context, opts *policyListOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	documents, err := store.List(ctx, "")
	if err != nil {
		return err
	}
	latest, err := store.Latest(ctx, documents)
	unrecorded := "without lbctl" // who wrote what the history does not have
	var denied *kv.PermissionError
	if errors.As(err, &denied) {
		unrecorded = "-"
		fmt.Fprintf(opts.Err, "who wrote them is not known: %s\n", printable.Line(denied.Error()))
	} else if err != nil {
		return err
	}
	services, all, err := consulServices(ctx)
	if err != nil || !all {
		services = nil
	}
	found, err := opts.daemonProblems(ctx)
	if err != nil {
		return err
	}
	listed := []listedPolicy{}
	for _, d := range documents {
		p := listedPolicy{Name: d.Name, Key: store.Key(d.Name), Problems: policyfile.Problems(d.Name, d.Value, services)}
		if said, err := policy.ParseDocument(d.Value); err == nil {
			p.Fields = len(said.Values())
			p.Problems = append(p.Problems, render.PolicyProblems(found, p.Key)...)
		}
		if e, ok := latest[d.Name]; ok && e.Index == d.Index {
			last := entryOf(e)
			p.Last = &last
		}
		listed = append(listed, p)
	}
	if !forPrograms(opts.Output) {
		printable.Fields(&listed)
	}
	return printResult(opts.Out, opts.Output, listed, func() error { return writePolicyList(opts, listed, unrecorded) })
}

// daemonProblems returns the problems that the daemon knows; none if it does not answer.
func (opts *policyListOptions) daemonProblems(ctx context.Context) ([]render.Problem, error) {
	client, err := opts.Client()
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := client.Status(asking)
	if err != nil {
		return nil, ctx.Err()
	}
	return status.Problems, nil
}

func writePolicyList(opts *policyListOptions, listed []listedPolicy, unrecorded string) error {
	if len(listed) == 0 {
		_, err := fmt.Fprintln(opts.Out, "There is no policy: what is built in holds, and what the services say of themselves.")
		return err
	}
	t := &table{header: []string{"POLICY", "FIELDS", "WHEN", "BY", "WHY"}, shrinkFirst: 4}
	for _, p := range listed {
		when, by, why := "-", unrecorded, "-"
		if p.Last != nil {
			when, by, why = ago(p.Last.When, opts.Now()), p.Last.By, orDash(p.Last.Why)
		}
		t.add(cell{p.Name, cyan}, text(fmt.Sprint(p.Fields)), text(when), text(by), text(why))
	}
	if err := t.write(opts.Out, opts.Terminal); err != nil {
		return err
	}
	var lines []string
	for _, p := range listed {
		for _, problem := range p.Problems {
			lines = append(lines, opts.Terminal.wrap(p.Key+": "+problem, 0))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(opts.Out, "\n%s\n", strings.Join(lines, "\n"))
	return err
}
