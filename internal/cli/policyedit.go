package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/kv"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policyfile"
	"lbctl/internal/printable"
)

type policyEditOptions struct {
	*policyWriter
	In io.Reader

	Environ []string
	Editor  string // a command of the shell
	Name    string
}

func newPolicyEditCmd(f *factory) *cobra.Command {
	opts := &policyEditOptions{In: f.in, Environ: f.environ}
	cmd := &cobra.Command{
		Use:   "edit NAME",
		Short: "Edit a policy with $VISUAL or $EDITOR",
		Long: `Edit a policy as YAML with $VISUAL, $EDITOR or vi. If what you save has mistakes, the
editor opens again with the mistakes at the top. A file that you leave unchanged writes
nothing. What you typed is never lost: if it can't be written, it stays in the file that
the message names. Without a terminal the editor opens three times at most.`,
		Example: `  lbctl policy edit cart -m "as agreed"`,
		Args:    exactly(1, "the name of a policy"),
	}
	flags := newFlags(f, cmd)
	opts.policyWriter = policyWriterFlags(f, flags)
	cmd.ValidArgsFunction = completeNewPolicies(opts.Store, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if opts.Name, err = policyName(cmd, args[0]); err != nil {
			return err
		}
		opts.Editor = cmp.Or(lookup(f.environ, "VISUAL"), lookup(f.environ, "EDITOR"), "vi")
		return runPolicyEdit(cmd.Context(), opts)
	}
	return cmd
}

func runPolicyEdit(ctx context.Context, opts *policyEditOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	before, err := store.Read(ctx, opts.Name)
	if err != nil {
		return err
	}
	old, broken := parseStored(before)
	body := string(before.Value)
	if broken == nil {
		var text bytes.Buffer
		if err := writeYAML(&text, policyfile.Document{Name: opts.Name, Policy: old}); err != nil {
			return err
		}
		body = text.String()
		if old.IsZero() {
			body += "# timeout.read: 5s\n"
		}
	}
	file, err := os.CreateTemp("", "lbctl-"+strings.ReplaceAll(opts.Name, "/", "-")+"-*.yaml")
	if err != nil {
		return err
	}
	file.Close()
	session := editSession{opts: opts, path: file.Name()}
	said, changed, err := session.run(ctx, editHead(ctx, opts, store)+body, broken)
	if err != nil {
		return err
	}
	if !changed {
		return os.Remove(session.path)
	}
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx) // a Ctrl-C in the editor was for the editor
	}
	if opts.DryRun {
		fmt.Fprintf(opts.Err, "Your text is in %s.\n", session.path)
	}
	edit := policyEdit{Before: before, Old: old, New: said}
	return opts.do(ctx, store, []policyEdit{edit}, func() error {
		if err := opts.commit(ctx, store, "edit", []policyEdit{edit}); err != nil {
			return fmt.Errorf("%w\n%s", err, session.kept(err))
		}
		return os.Remove(session.path)
	})
}

// An editSession is one file that the operator edits until it has no mistakes.
type editSession struct {
	opts *policyEditOptions
	path string
}

// blindTries is how often the editor opens without a terminal. A script as the editor would make
// mistakes for ever.
const blindTries = 3

// mistakeMark begins the lines at the top of the file that say what is wrong.
const mistakeMark = "#! "

// kept says where the text is that could not be written, and what to do with it.
func (s *editSession) kept(err error) string {
	if len(conflicts(err)) > 0 {
		return fmt.Sprintf("your text is in %s; 'lbctl policy edit %s' begins with what Consul has now, and 'lbctl policy apply -f %s' writes your text instead of it",
			s.path, s.opts.Name, s.path)
	}
	return fmt.Sprintf("your text is in %s; 'lbctl policy apply -f %s' writes it", s.path, s.path)
}

// run has the operator edit the text, and returns what the new one says. changed is false if the
// operator does not want to write. After an error, what was typed is in the file.
func (s *editSession) run(ctx context.Context, text string, mistakes error) (said policy.Document, changed bool, err error) {
	for tries := 1; ; tries++ {
		if err := os.WriteFile(s.path, []byte(mistakesText(mistakes)+text), 0o600); err != nil {
			return said, false, err
		}
		failed := s.edit()
		content, err := os.ReadFile(s.path)
		if err != nil {
			return said, false, errors.Join(failed, err)
		}
		edited := withoutMistakes(string(content))
		if failed != nil {
			failed = fmt.Errorf("run the editor %q: %w\nnothing was written", s.opts.Editor, failed)
			if edited != text || mistakes != nil {
				return said, false, fmt.Errorf("%w; your text is in %s", failed, s.path)
			}
			return said, false, errors.Join(failed, os.Remove(s.path))
		}
		switch {
		case edited == text && mistakes != nil:
			return said, false, fmt.Errorf("nothing was written, because %s has mistakes:\n%w", s.path, mistakes)
		case edited == text:
			fmt.Fprintln(s.opts.Err, "The file is unchanged: nothing was written.")
			return said, false, nil
		case policyfile.IsEmpty([]byte(edited)):
			fmt.Fprintf(s.opts.Err, "The file is empty: nothing was written. 'lbctl policy delete %s' deletes the policy.\n", s.opts.Name)
			return said, false, nil
		}
		said, mistakes = s.parse(edited)
		if mistakes == nil {
			return said, true, nil
		}
		if s.opts.Terminal == (Terminal{}) && (tries == blindTries || ctx.Err() != nil) {
			return said, false, fmt.Errorf("nothing was written, because %s has mistakes:\n%w", s.path, mistakes)
		}
		text = edited
	}
}

// parse reads the text. The lines in its error are those of the file with the mistakes at the
// top.
func (s *editSession) parse(text string) (policy.Document, error) {
	said, err := policyfile.ParseOne("", []byte(text), s.opts.Name)
	if err == nil {
		return said, nil
	}
	above := strings.Count(mistakesText(err), "\n")
	_, err = policyfile.ParseOne("", []byte(strings.Repeat("\n", above)+text), s.opts.Name)
	return said, err
}

func mistakesText(mistakes error) string {
	if mistakes == nil {
		return ""
	}
	text := mistakeMark + "Nothing is written yet, because there are mistakes. Leave the file as it is to give up.\n"
	for line := range strings.SplitSeq(printable.Lines(mistakes.Error()), "\n") {
		text += mistakeMark + "  " + line + "\n"
	}
	return text
}

func withoutMistakes(text string) string {
	var rest strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, mistakeMark) {
			rest.WriteString(line)
		}
	}
	return rest.String()
}

// assignment matches an editor like "TERM=xterm vi".
var assignment = regexp.MustCompile(`^\s*[A-Za-z_][A-Za-z0-9_]*=`)

// edit runs the editor on the file.
func (s *editSession) edit() error {
	command := s.opts.Editor + ` "$1"`
	if !assignment.MatchString(command) {
		command = "exec " + command // else a Ctrl-C ends the shell, and the editor goes on alone
	}
	editor := exec.Command("sh", "-c", command, "lbctl", s.path)
	editor.Stdin, editor.Stdout, editor.Stderr = s.opts.In, s.opts.Out, s.opts.Err
	editor.Env = s.opts.Environ
	interrupts := make(chan os.Signal, 1) // the terminal sends them to both
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	return editor.Run()
}

// editHead is the comment at the top of the file.
func editHead(ctx context.Context, opts *policyEditOptions, store *kv.Store) string {
	var head strings.Builder
	comment := func(format string, args ...any) {
		fmt.Fprintln(&head, strings.TrimRight("# "+printable.Line(fmt.Sprintf(format, args...)), " "))
	}
	comment("The policy %q, in Consul's KV as %s. Save the file to write it;", opts.Name, store.Key(opts.Name))
	comment("leave it unchanged to write nothing. A line that begins with # is a comment.")
	comment("'lbctl policy explain' lists the fields, 'lbctl policy explain timeout.read' documents one.")
	if service := policyfile.Service(opts.Name); service != "" {
		comment("")
		layers, note := otherLayers(ctx, opts, store, service)
		if len(layers) > 0 {
			comment("Others say, the strongest last; what this policy says is stronger:")
		}
		for _, l := range layers {
			for _, v := range l.Document.Values() {
				comment("  %-12s %s", l.Source, v)
			}
		}
		if note != "" {
			comment("%s", note)
		}
	}
	return head.String() + "\n"
}

// otherLayers returns what is said of a service besides its own policy, and a note about what is
// not known or not there.
func otherLayers(ctx context.Context, opts *policyEditOptions, store *kv.Store, service string) (layers []policy.Layer, note string) {
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	_, general, err := readPolicy(ctx, store, policyfile.Default)
	if err != nil {
		note = fmt.Sprintf("The policy %q can't be read. ", policyfile.Default)
	} else if !general.IsZero() {
		layers = append(layers, policy.Layer{Source: store.Key(policyfile.Default), Document: general})
	}
	client, err := opts.Client()
	var effective admin.ServicePolicy
	if err == nil {
		effective, err = client.Policy(ctx, service, "")
	}
	var unknown *admin.Error
	switch {
	case errors.As(err, &unknown):
		return layers, note + "No service of that name is balanced now."
	case err != nil:
		return layers, note + "No daemon answers, so what the service says of itself is not shown."
	}
	for _, l := range effective.Layers {
		if l.Level == policy.LevelMetadata {
			layers = append(layers, l)
		}
	}
	if len(layers) == 0 {
		note += "Nobody else says anything about this service: what is built in holds."
	}
	return layers, note
}
