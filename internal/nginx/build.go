package nginx

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// NoStream is the StreamModule of an nginx that can't balance TCP.
const NoStream = "-"

// A Build is the result of `nginx -V`.
type Build struct {
	Version string // "1.30.6"

	// StreamModule is the file to load for stream{}: "" if stream is built in,
	// NoStream if this nginx can load none.
	StreamModule string

	// CountsConnections: it can say how many connections and requests it has
	// (Instance.Connections).
	CountsConnections bool
}

func readBuild(binary, runDir string) (Build, error) {
	out, err := exec.Command(binary, "-V").CombinedOutput()
	if err != nil {
		return Build{}, fmt.Errorf("run %s -V: %w: %s", binary, err, reason(string(out), ""))
	}
	version, stream, modules, err := parseBuild(string(out))
	if err != nil {
		return Build{}, fmt.Errorf("run %s -V: %w", binary, err)
	}
	build := Build{Version: version, CountsConnections: stubStatusInside.MatchString(string(out))}
	if stream {
		return build, nil
	}
	dirs := []string{modules}
	if resolved, err := filepath.EvalSymlinks(binary); err == nil {
		// nginx may be unpacked in another directory than its --prefix.
		dirs = append(dirs, filepath.Join(filepath.Dir(resolved), "modules"))
	}
	for _, dir := range dirs {
		module := filepath.Join(dir, "ngx_stream_module.so")
		if loads(binary, module, runDir) {
			build.StreamModule = module
			return build, nil
		}
	}
	build.StreamModule = NoStream
	return build, nil
}

var (
	versionLine      = regexp.MustCompile(`nginx version: \S+/(\d+\.\d+\.\d+)`)
	streamInside     = regexp.MustCompile(`\s--with-stream(\s|$)`)
	stubStatusInside = regexp.MustCompile(`\s--with-http_stub_status_module(\s|$)`)
	modulesPath      = regexp.MustCompile(`\s--modules-path=(\S+)`)
	prefixPath       = regexp.MustCompile(`\s--prefix=(\S+)`)
)

// parseBuild reads the output of nginx -V: the version, whether stream is built
// in, and the directory of dynamic modules.
func parseBuild(output string) (version string, stream bool, modules string, err error) {
	match := versionLine.FindStringSubmatch(output)
	if match == nil {
		return "", false, "", fmt.Errorf("want a line like %q, got %q", "nginx version: nginx/1.30.6", output)
	}
	version = match[1]
	stream = streamInside.MatchString(output)
	prefix := "/usr/local/nginx" // configure's default
	if match := prefixPath.FindStringSubmatch(output); match != nil {
		prefix = match[1]
	}
	modules = "modules"
	if match := modulesPath.FindStringSubmatch(output); match != nil {
		modules = match[1]
	}
	if !filepath.IsAbs(modules) {
		modules = filepath.Join(prefix, modules)
	}
	return version, stream, modules, nil
}

// loads reports whether binary can load the module. A module of another version fails,
// for example after an upgrade of only one of the two.
func loads(binary, module, runDir string) bool {
	if _, err := os.Stat(module); err != nil {
		return false
	}
	for _, parent := range []string{runDir, os.TempDir()} { // the disk of the first may be full
		dir, err := os.MkdirTemp(parent, "test-")
		if err != nil {
			continue
		}
		defer os.RemoveAll(dir)
		quotedModule, err := Quote(module)
		if err != nil {
			return false
		}
		quotedPid, err := Quote(filepath.Join(dir, "nginx.pid"))
		if err != nil {
			continue
		}
		conf := fmt.Sprintf("load_module %s;\npid %s;\nevents {}\n", quotedModule, quotedPid)
		path := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
			continue
		}
		return exec.Command(binary, "-e", "stderr", "-t", "-q", "-c", path).Run() == nil
	}
	return false
}
