package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/daemon"
	"lbctl/internal/kv"
	"lbctl/internal/nginx"
	"lbctl/internal/printable"
	"lbctl/internal/render"
)

const renderHelp = `Render nginx's configuration once from Consul, and print it. The command needs no
daemon and does not change nginx.

The output is the configuration that 'lbctl run' with the same flags would give to
nginx, except that only the daemon keeps state: it holds instances, and serves the
last good state of services with wrong data.`

type renderOptions struct {
	Out, Err io.Writer
	Terminal Terminal

	Output           string
	StateDir, RunDir string
	KVPrefix         string
	Nginx            daemon.NginxConfig
	Dir              string // "": print
	Timeout          time.Duration
}

// A rendered is the document of lbctl render.
type rendered struct {
	Hash     string            `json:"hash"`
	Files    map[string]string `json:"files"`
	Problems []render.Problem  `json:"problems"`
}

func newRenderCmd(f *factory) *cobra.Command {
	opts := &renderOptions{Out: f.out, Err: f.err, Terminal: f.terminal}
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Render nginx's configuration once, from Consul",
		Long:  renderHelp,
		Example: `  lbctl render
  lbctl render --templates ./templates --out /tmp/conf`,
		Args: atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	directoryFlags(flags, &opts.StateDir, &opts.RunDir)
	kvPrefixFlag(flags, &opts.KVPrefix)
	nginxFlags(flags, &opts.Nginx)
	define(flags, &opts.Dir, "out", "", kindDir, "write the files to this directory, and create it if needed", "", parseDirectory)
	define(flags, &opts.Timeout, "timeout", "", "DURATION", "how long to wait for Consul", 30*time.Second, parseDuration(time.Millisecond))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runRender(cmd.Context(), opts) }
	return cmd
}

func runRender(ctx context.Context, opts *renderOptions) error {
	build, err := readBuild(opts.Nginx.Binary)
	if err != nil {
		return err
	}
	settings, err := opts.Nginx.Settings(opts.StateDir, daemon.RunDir(opts.StateDir, opts.RunDir), build)
	if err != nil {
		return err
	}
	shown, err := opts.Nginx.OpenCertificates(opts.StateDir, settings, true)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	configuration, err := render.Once(limited, render.Options{
		Settings:     settings,
		Policies:     kv.PolicyPrefix(opts.KVPrefix),
		TemplatesDir: opts.Nginx.Templates,
		Certificates: shown,
		AccessKeys:   kv.AccessPrefix(opts.KVPrefix),
		Logger:       discardLogger(),
	})
	if err != nil {
		return err
	}
	for _, problem := range configuration.Problems {
		fmt.Fprintln(opts.Err, printable.Line(problem.Subject+": "+problem.Message))
	}
	if opts.Dir != "" {
		if err := writeFiles(opts.Dir, configuration.Files); err != nil {
			return err
		}
	}
	result := rendered{
		Hash:     configuration.Hash,
		Files:    map[string]string{},
		Problems: append([]render.Problem{}, configuration.Problems...),
	}
	for name, content := range configuration.Files {
		result.Files[name] = string(content)
	}
	return printResult(opts.Out, opts.Output, result, func() error {
		if opts.Dir != "" {
			_, err := fmt.Fprintf(opts.Err, "%s written to %s\n", plural(len(configuration.Files), "file"), opts.Dir)
			return err
		}
		return printFiles(opts.Out, opts.Terminal, configuration.Files)
	})
}

// readBuild finds out the version and the modules of nginx. It leaves no files behind.
func readBuild(binary string) (build nginx.Build, err error) {
	err = withNginx(binary, func(instance *nginx.Instance, _ string) error {
		build = instance.Build()
		return nil
	})
	return build, err
}

// withNginx calls use with an instance in temporary directories.
func withNginx(binary string, use func(instance *nginx.Instance, runDir string) error) (err error) {
	dir, err := os.MkdirTemp("", "lbctl-")
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); removeErr != nil {
			err = errors.Join(err, removeErr)
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's workers run as another user
		return err
	}
	runDir := filepath.Join(dir, "run")
	instance, err := nginx.New(nginx.Options{StateDir: dir, RunDir: runDir, Binary: binary, Logger: discardLogger()})
	if err != nil {
		return err
	}
	return use(instance, runDir)
}

func writeFiles(dir string, files map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// printFiles prints files as nginx -T does, the main one first. It escapes control
// characters on a terminal only, because the terminal would act on them.
func printFiles(w io.Writer, terminal Terminal, files map[string][]byte) error {
	const first = "nginx.conf"
	names := slices.Sorted(maps.Keys(files))
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case a == first:
			return -1
		case b == first:
			return 1
		}
		return 0
	})
	for i, name := range names {
		text := fmt.Sprintf("# configuration file %s:\n%s\n", name, strings.TrimRight(string(files[name]), "\n"))
		if i > 0 {
			text = "\n" + text
		}
		if terminal.Width > 0 {
			text = printable.Lines(text)
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}
