package registrarcli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"lbctl/internal/consultest"
)

// loopUntilTERM is a server that writes a file when it gets SIGTERM.
func loopUntilTERM(file string) string {
	return fmt.Sprintf("trap 'echo TERM >%s; exit 0' TERM; while :; do sleep 0.05; done", file)
}

// After Ctrl-C in "registrar exec ... 2>&1 | tee log", tee ends at once. The registrar still
// drains, stops the server and deregisters.
func TestReaderOfTheOutputEnds(t *testing.T) {
	agent := consultest.Start(t)
	dir := t.TempDir()
	ended := filepath.Join(dir, "ended")
	executable, err := os.Executable()
	require.NoError(t, err)
	pipeline := exec.Command("sh", "-c", `"$0" as registrar exec -- sh -c "$1" 2>&1 | tee "$2"`,
		executable, loopUntilTERM(ended), filepath.Join(dir, "log"))
	pipeline.Env = append(os.Environ(), environment(agent, "DRAIN=300ms")...)
	pipeline.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, pipeline.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-pipeline.Process.Pid, syscall.SIGKILL)
		_ = pipeline.Wait()
	})

	awaitStatus(t, agent, api.HealthPassing)
	require.NoError(t, syscall.Kill(-pipeline.Process.Pid, syscall.SIGINT))
	awaitStatus(t, agent, "absent")
	assert.FileExists(t, ended, "the server got SIGTERM")
}

// A reader that stops reading must not stop the registrar.
func TestReaderOfTheOutputDoesNotRead(t *testing.T) {
	agent := consultest.Start(t)
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer reader.Close()
	fill(t, writer)

	executable, err := os.Executable()
	require.NoError(t, err)
	ended := filepath.Join(t.TempDir(), "ended")
	cmd := exec.Command(executable, "as", "registrar", "exec", "--", "sh", "-c", loopUntilTERM(ended))
	cmd.Env = append(os.Environ(), environment(agent)...)
	cmd.Stdout, cmd.Stderr = writer, writer
	require.NoError(t, cmd.Start())
	writer.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})

	awaitStatus(t, agent, api.HealthPassing)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	awaitStatus(t, agent, "absent")
	assert.FileExists(t, ended, "the server got SIGTERM")
}

// fill writes to the pipe until it is full.
func fill(t *testing.T, pipe *os.File) {
	t.Helper()
	fd := int(pipe.Fd()) // in blocking mode, as in the registrar
	require.NoError(t, unix.SetNonblock(fd, true))
	for {
		if _, err := unix.Write(fd, make([]byte, 4096)); err == unix.EAGAIN {
			break
		} else {
			require.NoError(t, err)
		}
	}
	require.NoError(t, unix.SetNonblock(fd, false))
}

// blockedWriter writes nothing until it is released.
type blockedWriter struct {
	release chan struct{}
	mu      sync.Mutex
	text    bytes.Buffer
}

func (b *blockedWriter) Write(text []byte) (int, error) {
	<-b.release
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(text)
}

func (b *blockedWriter) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestOutputSaysHowMuchIsMissing(t *testing.T) {
	blocked := &blockedWriter{release: make(chan struct{})}
	o := newOutput(blocked)
	for i := range outputQueue + 12 {
		fmt.Fprintf(o, "line %d\n", i)
	}
	close(blocked.release)
	consultest.Eventually(t, patience, func() (bool, string) {
		fmt.Fprintln(o, "the end")
		text := blocked.String()
		return strings.Contains(text, "lines of the log are missing here") && strings.HasSuffix(text, "the end\n"), text
	})
	assert.True(t, strings.HasPrefix(blocked.String(), "line 0\nregistrar: "), blocked.String())
}
