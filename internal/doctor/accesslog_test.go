package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"lbctl/internal/accesslog"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
)

func TestAccessLogDirectory(t *testing.T) {
	s := local(t, nil)
	fine(t, Examine(t.Context(), s), "access-log")

	s.Config.Nginx.AccessLogDir = filepath.Join(nginxtest.MemoryDir(t), "made", "by", "lbctl")
	fine(t, Examine(t.Context(), s), "access-log")

	s.Config.Nginx.AccessLogDir = "/proc/lbctl"
	fires(t, Examine(t.Context(), s), "access-log", Failed, "/proc")

	if dir := t.TempDir(); accesslog.InMemory(dir) != nil {
		s.Config.Nginx.AccessLogDir = dir
		fires(t, Examine(t.Context(), s), "access-log", Failed, dir+" is not on a tmpfs")
	}
	file := filepath.Join(nginxtest.MemoryDir(t), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	s.Config.Nginx.AccessLogDir = file
	fires(t, Examine(t.Context(), s), "access-log", Failed, file+" is no directory")
}

// TestServersWithALogOfTheirOwn has operators' servers whose requests lbctl can't see.
func TestServersWithALogOfTheirOwn(t *testing.T) {
	s := local(t, nil)
	s.Config.Nginx.AccessLogDir = nginxtest.MemoryDir(t)
	dir := filepath.Join(nginx.CurrentDir(s.Config.StateDir), "http.d")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	own := filepath.Join(dir, "own.conf")
	log := accesslog.Path(s.Config.Nginx.AccessLogDir)
	for _, good := range []string{"server { listen 1; }\n", "# access_log off;\n", fmt.Sprintf("access_log %q lbctl buffer=64k flush=200ms;\n", log)} {
		require.NoError(t, os.WriteFile(own, []byte(good), 0o600))
		fine(t, Examine(t.Context(), s), "access-log")
	}
	for _, bad := range []string{"access_log off", "access_log /var/log/own.log combined"} {
		require.NoError(t, os.WriteFile(own, []byte("server {\n    "+bad+";\n}\n"), 0o600))
		fires(t, Examine(t.Context(), s), "access-log", Warning, fmt.Sprintf("http.d/own.conf:2 has %q: requests there look lost", bad))
	}
}

// TestClosedAccessLogDirectory has a directory in which nginx's workers can't open the log again.
func TestClosedAccessLogDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives nginx's workers another user")
	}
	s := local(t, nil)
	s.Config.Nginx.AccessLogDir = nginxtest.MemoryDir(t)
	fine(t, Examine(t.Context(), s), "nginx-user")
	require.NoError(t, os.Chmod(s.Config.Nginx.AccessLogDir, 0o700))
	fires(t, Examine(t.Context(), s), "nginx-user", Failed, s.Config.Nginx.AccessLogDir+" is closed for it")
}

func TestFullAccessLog(t *testing.T) {
	dir := nginxtest.Dir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=60m,mode=755"); err != nil {
		t.Skipf("it needs a disk of its own: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := local(t, nil)
	s.Config.Nginx.AccessLogDir = dir
	log := accesslog.Path(dir)
	require.NoError(t, os.WriteFile(log, make([]byte, 40<<20), 0o600))
	fine(t, Examine(t.Context(), s), "access-log") // the room that the log has taken is its own

	require.NoError(t, os.WriteFile(log, nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 40<<20), 0o600))
	fires(t, Examine(t.Context(), s), "access-log", Warning, "room for 20 MiB", "at least 45 MiB")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 58<<20), 0o600))
	fires(t, Examine(t.Context(), s), "access-log", Failed, "room for 2 MiB", "the circuit breaker does not see them")
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	fires(t, Examine(t.Context(), s), "access-log", Failed, "may not write to "+dir, "read-only")
}

// TestLostAccessLog removes the log while lbctl can't notice it.
func TestLostAccessLog(t *testing.T) {
	b := startBalancer(t)
	s := b.subject(t)
	fine(t, Examine(t.Context(), s), "access-log")
	b.PauseLbctl()
	require.NoError(t, os.Remove(accesslog.Path(b.AccessLogDir())))
	s.Daemon.Status = nil // it does not answer
	fires(t, Examine(t.Context(), s), "access-log", Failed, "writes to a file that was removed")
	b.ContinueLbctl()
	b.Eventually("lbctl has made another one", func() error {
		if f := findings(Examine(t.Context(), s), "access-log")[0]; f.State != OK {
			return fmt.Errorf("%s", f.Found)
		}
		return nil
	})
}
