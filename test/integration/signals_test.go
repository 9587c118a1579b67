package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// TestLogWithoutReader ends the reader of the daemon's standard output and error, after the
// first byte of the log: all later lines are lost.
func TestLogWithoutReader(t *testing.T) {
	consul, dir := consultest.Start(t), nginxtest.Dir(t)
	cmd := daemon(t, consul, dir)
	for i := range 1000 { // for each of them lbctl logs a line before it does anything else
		cmd.Env = append(cmd.Env, fmt.Sprintf("LBCTL_UNKNOWN_%d=", i))
	}
	ended := startWithoutReader(t, cmd)

	s := lbtest.StartBackend(t, "server-1")
	s.Register(t, consul.Client(), hello)
	lbtest.Eventually(t, "the service is in the configuration", func() error {
		select {
		case err := <-ended:
			require.FailNow(t, "lbctl has ended", "%v", err)
		default:
		}
		text, err := os.ReadFile(filepath.Join(dir, "current", "grpc.conf"))
		if err == nil && !strings.Contains(string(text), hello) {
			err = fmt.Errorf("not there yet")
		}
		return err
	})
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	assert.NoError(t, <-ended, "it ends normally after SIGINT")
}

// startWithoutReader starts cmd with a pipe as its standard output and error, and closes the
// pipe's reader once it has read a byte. The channel gets cmd's end. cmd ends with the test.
func startWithoutReader(t *testing.T, cmd *exec.Cmd) <-chan error {
	t.Helper()
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = writer, writer
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended, waited := make(chan error), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(waited)
		runtime.LockOSThread() // Pdeathsig takes effect when the starting thread ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	require.NoError(t, <-started)
	require.NoError(t, writer.Close())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-waited
	})
	_, err = reader.Read(make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, reader.Close())
	return ended
}

// TestSignalsOfOneSecond sends the daemon one signal again and again, all within the second
// in which they count as one. The daemon must end in order.
func TestSignalsOfOneSecond(t *testing.T) {
	dir := nginxtest.Dir(t)
	cmd := daemon(t, consultest.Start(t), dir)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lbtest.Eventually(t, "the daemon has written a configuration", func() error {
		_, err := os.Stat(filepath.Join(dir, "current", "nginx.conf"))
		return err
	})
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for first := time.Now(); time.Since(first) < 500*time.Millisecond; time.Sleep(time.Millisecond) {
		if cmd.Process.Signal(syscall.SIGTERM) != nil {
			break // it has ended
		}
	}
	assert.NoError(t, <-ended, "it ends normally, as after one SIGTERM")
}

// daemon is an lbctl run without an admin port, which is not started yet.
func daemon(t *testing.T, consul *consultest.Server, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(lbtest.Binary(t), "run", "--state-dir", dir, "--nginx", newest(t).Path, "--admin", "none",
		"--log-level", "debug", "--open-files", "1024",
		"--grpc-listen", address(t), "--http-listen", address(t), "--dns-listen", address(t))
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+consul.Addr)
	return cmd
}

// TestHangup sends SIGHUP to the daemon. The daemon must read its files again, and keep the
// old content of those that it can't read.
func TestHangup(t *testing.T) {
	dir := t.TempDir()
	token, templates := filepath.Join(dir, "token"), filepath.Join(dir, "templates")
	require.NoError(t, os.Mkdir(templates, 0o755))
	require.NoError(t, os.WriteFile(token, []byte("11111111-1111-1111-1111-111111111111"), 0o600))
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", token)
	s := alone(t, newest(t), "--templates", templates)
	s.backends(t, 1, 1)
	hangup := func(want string) {
		t.Helper()
		n := strings.Count(s.Log(), "SIGHUP")
		require.NoError(t, syscall.Kill(s.PID(), syscall.SIGHUP))
		s.Eventually("the daemon says "+want, func() error {
			lines := strings.SplitAfter(s.Log(), "SIGHUP")
			if len(lines) < n+2 || !strings.Contains(lines[n+1], want) {
				return fmt.Errorf("SIGHUP in the log: %d times", len(lines)-1)
			}
			return nil
		})
	}
	hangup("certificates and templates again\"")

	broken := filepath.Join(templates, "broken.conf.ctmpl")
	require.NoError(t, os.WriteFile(broken, []byte("{{ nothing }}"), 0o644))
	require.NoError(t, os.Remove(token))
	hangup(token)
	s.Eventually("the daemon says which template fails", func() error {
		if !strings.Contains(s.Log(), "template broken.conf.ctmpl") {
			return errors.New("the log doesn't name it")
		}
		return nil
	})
	s.WaitServing(hello, 1)
	out, err := s.Lbctl("history")
	require.NoError(t, err)
	assert.Regexp(t, `read again .*`+regexp.QuoteMeta(token), out)

	require.NoError(t, os.Remove(broken))
	require.NoError(t, os.WriteFile(filepath.Join(templates, "own.conf.ctmpl"), []byte("# read at SIGHUP\n"), 0o644))
	require.NoError(t, os.WriteFile(token, []byte("22222222-2222-2222-2222-222222222222"), 0o600))
	hangup("certificates and templates again\"")
	s.Eventually("the new template's file is in the configuration", func() error {
		_, err := os.Stat(filepath.Join(s.StateDir, "current", "own.conf"))
		return err
	})
	s.WaitServing(hello, 1)
}

// TestCommandWithoutReader shows that a command ends quietly with its reader.
func TestCommandWithoutReader(t *testing.T) {
	cmd := exec.Command("bash", "-c", `"$0" completion bash | head -1; exit ${PIPESTATUS[0]}`, lbtest.Binary(t))
	out, err := cmd.CombinedOutput()
	if err != nil { // nil: the command ended before head did
		assert.Equal(t, 128+int(syscall.SIGPIPE), cmd.ProcessState.ExitCode())
	}
	assert.Equal(t, 1, strings.Count(string(out), "\n"), "nothing but head's line: %s", out)
}

func address(t *testing.T) string { return fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t)) }
