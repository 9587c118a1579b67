package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"lbctl/internal/kv"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policyfile"
)

type policyApplyOptions struct {
	*policyWriter
	In io.Reader

	Files []string // paths of files and directories; "-" is In
}

func newPolicyApplyCmd(f *factory) *cobra.Command {
	opts := &policyApplyOptions{In: f.in}
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Write the policies of files",
		Long: `Write the policies of files in YAML or JSON, and show what changes. A document has the
name of its policy and its fields; a file can have several, separated by "---". Each
replaces the whole policy. Policies that are in no file stay as they are.

FILE is a file, a directory with .yaml, .yml and .json files, or - for the standard
input. If anything in the files is wrong, nothing is written.`,
		Example: `  lbctl policy apply -f policies.yaml --dry-run
  lbctl policy apply -f policies/ -m "as reviewed"
  lbctl policy apply -f - <<END
  name: service/cart
  timeout.read: 5s
  END`,
		Args: atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	define(flags, &opts.Files, "file", "", kindFile, "a file, a directory, or - for the standard input; can be given several times", nil,
		func(given string) ([]string, error) { return append(opts.Files, given), nil })
	opts.policyWriter = policyWriterFlags(f, flags)
	flags.check(func(mistake func(format string, args ...any)) {
		if len(opts.Files) == 0 {
			mistake("-f is missing: want the files to apply, or - for the standard input")
		}
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runPolicyApply(cmd.Context(), opts) }
	return cmd
}

func runPolicyApply(ctx context.Context, opts *policyApplyOptions) error {
	documents, err := readPolicyFiles(opts)
	if err != nil {
		return fmt.Errorf("nothing was written, because the files have mistakes:\n%w", err)
	}
	if len(documents) == 0 {
		return errors.New("the files have no policy")
	}
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	stored, err := store.List(ctx, "")
	if err != nil {
		return err
	}
	var edits []policyEdit
	for _, d := range documents {
		edit := policyEdit{Before: kv.Document{Name: d.Name}, New: d.Policy}
		if n := slices.IndexFunc(stored, func(s kv.Document) bool { return s.Name == d.Name }); n >= 0 {
			edit.Before = stored[n]
			edit.Old, _ = policy.ParseDocument(stored[n].Value) // what can't be read is replaced
		}
		edits = append(edits, edit)
	}
	return opts.write(ctx, store, "apply", edits...)
}

// readPolicyFiles reads the documents of all files, and returns all mistakes in one error.
func readPolicyFiles(opts *policyApplyOptions) ([]policyfile.Document, error) {
	var all []policyfile.Document
	var errs []error
	positions := map[string]string{}
	for _, given := range opts.Files {
		files, err := policyFiles(given)
		errs = append(errs, err)
		for _, file := range files {
			text, err := readPolicyFile(file, opts.In)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			source := file
			if file == "-" {
				source = "standard input"
			}
			documents, err := policyfile.Parse(source, text)
			errs = append(errs, err)
			for _, d := range documents {
				if first, twice := positions[d.Name]; twice && d.Name != "" {
					errs = append(errs, fmt.Errorf("%s: a second document %q, the first is %s", d.Position, d.Name, first))
				}
				positions[d.Name] = d.Position
			}
			all = append(all, documents...)
		}
	}
	return all, errors.Join(errs...)
}

// policyFiles returns the files of a directory with policies, or a file itself.
func policyFiles(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path) // sorted
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the directory %s has no .yaml, .yml or .json file", path)
	}
	return files, nil
}

// maxPolicyFile is how many bytes a file with policies may have.
const maxPolicyFile = 16 << 20

func readPolicyFile(path string, in io.Reader) ([]byte, error) {
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	if in == nil {
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPolicyFile+1))
	if err == nil && len(text) > maxPolicyFile {
		err = fmt.Errorf("read %s: it has more than %d MiB", path, maxPolicyFile>>20)
	}
	return text, err
}
