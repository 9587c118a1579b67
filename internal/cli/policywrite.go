package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"lbctl/internal/admin"
	"lbctl/internal/kv"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policyfile"
	"lbctl/internal/printable"
)

// maxReason bounds the reason of a write, which the history shows in a table.
const maxReason = 1000

// A policyWriter is what the commands that change policies have in common.
type policyWriter struct {
	Out, Err io.Writer
	Terminal Terminal
	Store    *storeAddress
	Client   func() (*admin.Client, error) // for --wait

	Output  string
	Message string
	DryRun  bool
	Wait    waiter
}

// policyWriterFlags defines the flags of a command that changes policies.
func policyWriterFlags(f *factory, flags *flags) *policyWriter {
	w := &policyWriter{Out: f.out, Err: f.err, Terminal: f.terminal, Wait: waiter{Err: f.err, Interval: waitInterval}}
	define(flags, &w.Message, "message", "", "TEXT", "why, for the history", "", func(given string) (string, error) {
		if len(given) > maxReason {
			return "", fmt.Errorf("want at most %d bytes", maxReason)
		}
		return given, nil
	})
	flags.command.Flags().BoolVar(&w.DryRun, "dry-run", false, "show what would change, and write nothing")
	waitFlag(flags, &w.Wait.Limit, servingPolicies)
	outputFlag(flags, &w.Output)
	w.Store = storeFlags(flags)
	w.Client = daemonFlags(flags, &w.Output).client
	return w
}

// A policyEdit is a change of one policy.
type policyEdit struct {
	Before kv.Document
	Old    policy.Document // what Before says; zero if it can't be read
	New    policy.Document // one that says nothing deletes it
	Broken bool            // what is written can't be read, and New is zero
}

// A policyResult is the document of a command that changes policies.
type policyResult struct {
	DryRun    bool            `json:"dry_run"`
	Changed   int             `json:"changed"` // policies that were changed, or would be
	Documents []changedPolicy `json:"documents"`
}

// A changedPolicy is what happened to one policy.
type changedPolicy struct {
	Name        string              `json:"name"`
	Key         string              `json:"key"` // in Consul's KV
	Action      string              `json:"action"`
	Differences []policy.Difference `json:"differences"`
}

// The actions of a changedPolicy.
const (
	policyCreated   = "created"
	policyChanged   = "changed"
	policyDeleted   = "deleted"
	policyUnchanged = "unchanged"
)

// action says what an edit does. A policy that can't be read is always changed.
func (e policyEdit) action() string {
	switch {
	case e.Broken && !e.Before.Exists():
		return policyCreated
	case e.Broken:
		return policyChanged
	case e.New.IsZero() && e.Before.Exists():
		return policyDeleted
	case e.New.IsZero():
		return policyUnchanged
	case !e.Before.Exists():
		return policyCreated
	case e.Old.IsZero() || !e.Old.Equal(e.New):
		return policyChanged
	}
	return policyUnchanged
}

// edit returns the edit for the store.
func (e policyEdit) edit() (kv.Edit, error) {
	edit := kv.Edit{Before: e.Before}
	if e.New.IsZero() {
		return edit, nil
	}
	value, err := e.New.MarshalJSON()
	if err != nil {
		return edit, err
	}
	var indented bytes.Buffer // for people who look into Consul
	if err := json.Indent(&indented, value, "", "  "); err != nil {
		return edit, err
	}
	edit.Value = indented.Bytes()
	return edit, nil
}

// write writes the edits that change something, in as few transactions as possible. kind is for
// the history.
func (w *policyWriter) write(ctx context.Context, store *kv.Store, kind string, edits ...policyEdit) error {
	return w.do(ctx, store, edits, func() error { return w.commit(ctx, store, kind, edits) })
}

// do writes edits with write, prints what they change, and waits until nginx serves them, as the
// flags say.
func (w *policyWriter) do(ctx context.Context, store *kv.Store, edits []policyEdit, write func() error) error {
	if w.DryRun {
		return w.print(ctx, store, edits)
	}
	var quarantined map[string]bool
	if w.Wait.Limit > 0 {
		quarantined = w.quarantined(ctx)
	}
	if err := write(); err != nil {
		return err
	}
	if err := w.print(ctx, store, edits); err != nil || w.Wait.Limit == 0 {
		return err
	}
	return w.wait(ctx, store, edits, quarantined)
}

// commit writes the edits that change something. Those of one transaction are written all or none.
func (w *policyWriter) commit(ctx context.Context, store *kv.Store, kind string, all []policyEdit) error {
	var edits []kv.Edit
	for _, e := range all {
		if e.action() == policyUnchanged {
			continue
		}
		edit, err := e.edit()
		if err != nil {
			return err
		}
		edits = append(edits, edit)
	}
	for done := 0; done < len(edits); {
		part := transaction(edits[done:])
		if err := store.Write(ctx, kv.Change{Kind: kind, Why: w.Message}, part...); err != nil {
			err = explainConflicts(err)
			if done > 0 {
				err = fmt.Errorf("%w\nthe first %s, up to %q, are written; run the command again for the others", err, policies(done), edits[done-1].Before.Name)
			}
			return err
		}
		done += len(part)
	}
	return nil
}

// transaction returns the first edits, as many as fit into one transaction of Consul.
func transaction(edits []kv.Edit) []kv.Edit {
	size := 0
	for n, e := range edits {
		// As Consul gets them: in base64, what was there before with quotes escaped.
		size += (len(e.Value)+2*len(e.Before.Value))*4/3 + 1<<10
		if n > 0 && (n == kv.MaxEdits || size > kv.MaxTransaction) {
			return edits[:n]
		}
	}
	return edits
}

// print prints what the edits changed, or would change.
func (w *policyWriter) print(ctx context.Context, store *kv.Store, edits []policyEdit) error {
	result := policyResult{DryRun: w.DryRun, Documents: []changedPolicy{}}
	for _, e := range edits {
		changed := changedPolicy{Name: e.Before.Name, Key: store.Key(e.Before.Name), Action: e.action(), Differences: policy.Diff(e.Old, e.New)}
		if changed.Differences == nil {
			changed.Differences = []policy.Difference{}
		}
		if changed.Action != policyUnchanged {
			result.Changed++
		}
		result.Documents = append(result.Documents, changed)
	}
	w.warnOfUnknown(ctx, result.Documents)
	return printResult(w.Out, w.Output, result, func() error { return w.writeText(result) })
}

func (w *policyWriter) writeText(result policyResult) error {
	var out strings.Builder
	unchanged := 0
	for _, d := range result.Documents {
		if d.Action == policyUnchanged {
			if unchanged++; len(result.Documents) > 1 {
				continue
			}
			fmt.Fprintf(&out, "%s is unchanged: nothing was written\n", d.Name)
			continue
		}
		verb := d.Action
		if w.DryRun {
			verb = "would be " + verb
		}
		fmt.Fprintf(&out, "%s %s\n%s", w.Terminal.paint(bold, d.Name), verb, differencesText(w.Terminal, d.Differences))
	}
	if unchanged > 0 && len(result.Documents) > 1 {
		verb := "are"
		if unchanged == 1 {
			verb = "is"
		}
		fmt.Fprintf(&out, "%s %s unchanged\n", policies(unchanged), verb)
	}
	_, err := io.WriteString(w.Out, out.String())
	return err
}

func policies(n int) string {
	if n == 1 {
		return "1 policy"
	}
	return fmt.Sprintf("%d policies", n)
}

// differencesText has a line for each difference: "  timeout.read  1s -> 5s".
func differencesText(terminal Terminal, differences []policy.Difference) string {
	names, width := make([]string, len(differences)), 0
	for n, d := range differences {
		names[n] = d.Field
		if d.Path != "" {
			names[n] += " for " + string(d.Path)
		}
		width = max(width, len(names[n]))
	}
	var out strings.Builder
	side := func(s style, text string) string {
		if text == "" {
			return terminal.paint(dim, "not set")
		}
		return terminal.paint(s, printable.Line(text))
	}
	for n, d := range differences {
		fmt.Fprintf(&out, "  %-*s  %s -> %s\n", width, names[n], side(red, d.Before), side(green, d.After))
	}
	return out.String()
}

// warnOfUnknown warns of policies whose services are not in Consul. They are no mistake, because
// the service may be about to come.
func (w *policyWriter) warnOfUnknown(ctx context.Context, documents []changedPolicy) {
	var services []string
	for _, d := range documents {
		if service := policyfile.Service(d.Name); service != "" && d.Action != policyDeleted {
			services = append(services, service)
		}
	}
	w.Store.warnOfUnknown(ctx, w.Err, services, "its policy")
}

// explainConflicts adds to the conflicts in an error what somebody else changed meanwhile.
func explainConflicts(err error) error {
	found := conflicts(err)
	if len(found) == 0 {
		return err
	}
	var all []error
	for _, c := range found {
		before, _ := policy.ParseDocument(c.Read.Value)
		now, _ := policy.ParseDocument(c.Stored.Value)
		text := strings.TrimRight(differencesText(Terminal{}, policy.Diff(before, now)), "\n")
		if text != "" {
			text = "\n" + text
		}
		all = append(all, fmt.Errorf("%w%s", c, text))
	}
	return errors.Join(all...)
}

// conflicts returns all conflicts in an error.
func conflicts(err error) []*kv.ConflictError {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*kv.ConflictError
		for _, e := range joined.Unwrap() {
			all = append(all, conflicts(e)...)
		}
		return all
	}
	var c *kv.ConflictError
	if errors.As(err, &c) {
		return []*kv.ConflictError{c}
	}
	return nil
}
