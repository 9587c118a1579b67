package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"lbctl/internal/disk"
)

// testTimeout limits nginx -t, which resolves host names and so may hang on a name
// server that does not answer.
const testTimeout = 30 * time.Second

// Test runs nginx -t on files in a temporary directory. It changes neither the
// generations nor the running nginx. An ErrRejected has nginx's message with file and
// line (nginx.conf:12). Test can't find errors that appear only at a reload, such as a
// port that another process uses.
//
// The configuration must include generation.conf in its http block and must name
// <run>/nginx.pid as its pid file: lbctl needs the first to verify what nginx serves,
// and the second to make it reload.
func (i *Instance) Test(ctx context.Context, files map[string][]byte) error {
	if err := i.validate(files); err != nil {
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	dir, err := os.MkdirTemp(i.opts.RunDir, "test-")
	if err != nil {
		return fmt.Errorf("test the configuration: %w: %w", ErrStore, err)
	}
	defer os.RemoveAll(dir)
	// nginx -t binds a unix socket if it is free, and removes it afterwards, even if
	// another nginx has bound it since. So the test gets its own socket.
	files = withFile(files, GenerationFile, i.generationConf(0, "generation.sock"))
	if err := writeFiles(dir, files); err != nil {
		return fmt.Errorf("test the configuration: %w: %w", ErrStore, err)
	}
	return i.runTest(ctx, dir)
}

func (i *Instance) runTest(ctx context.Context, dir string) error {
	limited, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	cmd := exec.CommandContext(limited, i.opts.Binary, "-e", "stderr", "-t", "-q", "-c", filepath.Join(dir, MainFile))
	cmd.Dir = dir // the path of the socket is relative to it
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	why := reason(output.String(), dir)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("test the configuration: %w", ctx.Err())
	case limited.Err() != nil:
		return fmt.Errorf("%w: nginx -t did not finish in %s; it may be waiting for a name server", ErrRejected, testTimeout)
	case errors.As(err, &exit) && why != "":
		return fmt.Errorf("%w: nginx -t: %s", ErrRejected, why)
	case err != nil:
		return fmt.Errorf("%w: run nginx -t: %w", ErrRejected, err)
	}
	if why != "" {
		i.opts.Logger.Debug("nginx -t warns", "message", why)
	}
	return nil
}

var namesPid = regexp.MustCompile(`(?m)^(?:[^#\n]*[\s;}])?pid\s+(?:"([^"\n]*)"|'([^'\n]*)'|([^\s;]+))\s*;`)

// validate finds the mistakes in files that nginx -t does not find.
func (i *Instance) validate(files map[string][]byte) error {
	var problems []string
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		switch {
		case !fs.ValidPath(name) || name == "." || strings.ContainsFunc(name, unicode.IsControl):
			problem("file name %q: want a path below the generation, such as %q", name, "conf.d/api.conf")
			continue
		case IsReserved(name):
			problem("file name %q: lbctl writes this file itself", name)
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, isFile := files[dir]; isFile || IsReserved(dir) {
				problem("file name %q: %q is a file, not a directory", name, dir)
			}
		}
	}
	main, ok := files[MainFile]
	if !ok {
		problem("no file %q, got %q", MainFile, names)
		return errors.New(strings.Join(problems, "; "))
	}
	included := slices.ContainsFunc(names, func(name string) bool {
		return IncludesGeneration(files[name])
	})
	if !included {
		problem(`%s: no "include generation.conf;", want it in the http block: lbctl needs it to verify which generation nginx serves`, MainFile)
	}
	want := fmt.Sprintf("pid %s;", i.pidPath())
	if match := namesPid.FindSubmatch(main); match == nil {
		problem("%s: no pid file, want %q at the top level: lbctl finds nginx's process with it", MainFile, want)
	} else if pid := string(bytes.Join(match[1:], nil)); pid != i.pidPath() {
		problem("%s: pid file %q, want %q: lbctl finds nginx's process with it", MainFile, pid, want)
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	return nil
}

// Marked reports whether a generation's generation.conf, which makes nginx answer the
// generation's number, is unchanged since lbctl wrote it.
func (i *Instance) Marked(number int) bool {
	found, err := disk.ReadFile(filepath.Join(i.store.path(number), GenerationFile), maxFile)
	return err == nil && bytes.Equal(found, i.generationConf(number, i.socketPath()))
}

// generationConf is a server that answers generation n on a unix socket. It has the access log of
// the configuration, because Connections counts its requests too.
func (i *Instance) generationConf(n int, socket string) []byte {
	listen, _ := Quote("unix:" + socket) // cannot fail: New has checked both paths
	marker, _ := Quote(BootstrapPattern(BootstrapDir(i.opts.StateDir), markerFile))
	connections := ""
	if i.build.CountsConnections {
		connections = "\n    location = /connections { stub_status; }"
	}
	return fmt.Appendf(nil, `# Written by lbctl: how nginx tells which generation it serves.
server {
    listen %s;
    log_not_found off;
    keepalive_timeout 0; # a kept connection would stay with an old worker
    default_type text/plain;
    location = /generation { return 200 "%d\n"; }
    include %s;%s
    location / { return 404 "not here\n"; }
}
`, listen, n, marker, connections)
}

func withFile(files map[string][]byte, name string, content []byte) map[string][]byte {
	more := maps.Clone(files)
	more[name] = content
	return more
}
