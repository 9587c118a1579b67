package registrarcli

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"lbctl/internal/consultest"
)

// A stopped command answers no request, so its ttl check is critical until it runs again.
func TestExecStoppedCommandIsCritical(t *testing.T) {
	agent := consultest.Start(t)
	for name, command := range map[string]string{
		"the command itself":      "echo server=$$; exec sleep 3600",
		"the server of a wrapper": "sh -c 'echo server=$$; exec sleep 3600'; true",
	} {
		t.Run(name, func(t *testing.T) {
			p := launch(t, environment(agent, "CHECK_INTERVAL=100ms"), "exec", "--", "sh", "-c", command)
			server := p.awaitNumber("server")
			awaitStatus(t, agent, api.HealthPassing)
			require.NoError(t, syscall.Kill(server, syscall.SIGSTOP))
			awaitStatus(t, agent, api.HealthCritical)
			p.awaitLine("the command is stopped by a signal and answers no request")
			assert.Contains(t, checkOutput(t, agent), fmt.Sprintf("process %d of the command is stopped by a signal", server))
			require.NoError(t, syscall.Kill(server, syscall.SIGCONT))
			awaitStatus(t, agent, api.HealthPassing)
			p.awaitLine("the command runs again")
			p.signal(syscall.SIGTERM)
			p.code()
			awaitStatus(t, agent, "absent")
		})
	}
}

// A stopped command gets SIGTERM too.
func TestExecStopsAStoppedCommand(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent, "STOP_TIMEOUT=1h"), "exec", "--", "sh", "-c",
		"trap 'exit 3' TERM; echo server=$$; while :; do sleep 0.05; done")
	server := p.awaitNumber("server")
	awaitStatus(t, agent, api.HealthPassing)
	require.NoError(t, syscall.Kill(server, syscall.SIGSTOP))
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 3, p.code())
}

func checkOutput(t *testing.T, agent *consultest.Server) string {
	t.Helper()
	checks, err := agent.Client().Agent().Checks()
	require.NoError(t, err)
	if check := checks["service:web-1"]; check != nil {
		return check.Output
	}
	return "no such check"
}

// On a terminal the server's standard input is at its end. Otherwise the kernel would stop a
// server that reads it, because its process group is in the background.
func TestExecOnATerminal(t *testing.T) {
	agent := consultest.Start(t)
	terminal, line := openTerminal(t)
	executable, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(executable, "as", "registrar", "exec", "--", "sh", "-c", "read input; echo input is over; exec sleep 3600")
	cmd.Env = append(os.Environ(), environment(agent)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = line, line, line
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, cmd.Start())
	line.Close()
	output := make(chan string, 1000)
	go func() {
		lines := bufio.NewScanner(terminal)
		for lines.Scan() {
			output <- lines.Text()
		}
		close(output)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})

	awaitStatus(t, agent, api.HealthPassing)
	seen := ""
	consultest.Eventually(t, patience, func() (bool, string) {
		select {
		case text := <-output:
			seen += text + "\n"
		default:
		}
		return strings.Contains(seen, "input is over"), seen
	})
	// Ctrl-C reaches only the registrar.
	_, err = terminal.Write([]byte{3})
	require.NoError(t, err)
	awaitStatus(t, agent, "absent")
	_ = cmd.Wait()
	assert.Equal(t, 128+int(syscall.SIGTERM), cmd.ProcessState.ExitCode())
}

// openTerminal makes a pseudo-terminal and returns the user's side and the programs' side.
func openTerminal(t *testing.T) (terminal, line *os.File) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { terminal.Close() })
	fd := int(terminal.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	line, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	return terminal, line
}
