package registrarcli

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

// wrapper returns a new script that starts its server without exec.
func wrapper(t *testing.T, server string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "wrapper.sh")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"+server+"\necho the wrapper goes on\n"), 0o755))
	return script
}

// awaitNumber waits for a line with name=NUMBER and returns the number.
func (p *process) awaitNumber(name string) int {
	p.t.Helper()
	p.awaitLine(name + "=")
	var n int
	_, err := fmt.Sscanf(p.output()[strings.Index(p.output(), name+"="):], name+"=%d", &n)
	require.NoError(p.t, err)
	return n
}

// awaitProcessEnd waits until the process has ended.
func awaitProcessEnd(t *testing.T, pid int) {
	t.Helper()
	consultest.Eventually(t, patience, func() (bool, string) {
		return !runs(pid), fmt.Sprintf("process %d still runs", pid)
	})
}

func runs(pid int) bool {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(content), ") Z ")
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

// The server of a script without exec ends with the registrar, in order: it gets SIGTERM
// and ends before the instance is deregistered.
func TestExecStopsTheServerOfAWrapper(t *testing.T) {
	agent := consultest.Start(t)
	executable, err := os.Executable()
	require.NoError(t, err)
	port := freePort(t)
	p := launch(t, environment(agent, "HEALTH_CHECK_TYPE=grpc", "APP_PORT="+port),
		"exec", "--", wrapper(t, executable+" as server "+port))
	awaitStatus(t, agent, api.HealthPassing)
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 128+int(syscall.SIGTERM), p.code(), "the script's exit code")
	_, err = net.Dial("tcp", "127.0.0.1:"+port)
	require.Error(t, err, "the server has ended")
	before, after := strings.Index(p.output(), "server: ended"), strings.Index(p.output(), "msg=deregistered")
	assert.True(t, before >= 0 && before < after, "the server ended by SIGTERM, before the deregistration")
	assert.Equal(t, "absent", status(t, agent))
}

// Processes that ignore SIGTERM are killed, also if the command itself has ended.
func TestExecKillsRemainingProcessesOfTheGroup(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent, "STOP_TIMEOUT=200ms"), "exec", "--", "sh", "-c",
		"sh -c 'trap \"\" TERM; echo left=$$; while :; do sleep 0.05; done' & wait")
	left := p.awaitNumber("left")
	awaitStatus(t, agent, api.HealthPassing)
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 128+int(syscall.SIGTERM), p.code())
	assert.False(t, runs(left), "process %d still runs", left)
}

// If a command ends by itself and leaves its server running, the server is stopped.
func TestExecStopsTheServerOfAWrapperThatEnds(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent), "exec", "--", "sh", "-c",
		"trap 'exit 3' USR1; sh -c 'echo left=$$; exec sleep 3600' & while :; do sleep 0.05; done")
	left := p.awaitNumber("left")
	awaitStatus(t, agent, api.HealthPassing)
	p.signal(syscall.SIGUSR1)
	assert.Equal(t, 3, p.code())
	assert.False(t, runs(left), "process %d still runs", left)
	assert.Equal(t, "absent", status(t, agent))
}

// The whole process group of the command ends when the registrar is killed, so that the next
// registrar finds the port free.
func TestExecKilledTakesTheGroupWithIt(t *testing.T) {
	agent := consultest.Start(t)
	for name, server := range map[string]string{
		"a server that ends by SIGTERM":      "sh -c 'echo sleeper=$$; exec sleep 3600'",
		"a server that ignores SIGTERM":      "sh -c 'trap \"\" TERM; echo sleeper=$$; while :; do sleep 0.05; done'",
		"a server that the script exec'd":    "echo sleeper=$$; exec sleep 3600",
		"a server that is stopped meanwhile": "sh -c 'trap \"exit\" TERM; echo sleeper=$$; kill -STOP $$; while :; do sleep 0.05; done'",
	} {
		t.Run(name, func(t *testing.T) {
			p := launch(t, environment(agent), "exec", "--", wrapper(t, server))
			pid := p.awaitNumber("sleeper")
			awaitWatchdog(t, p.cmd.Process.Pid)
			p.signal(syscall.SIGKILL)
			awaitProcessEnd(t, pid)
			assert.Equal(t, -1, p.code(), "no process holds the output open")
		})
	}
}

// A watchdog that was killed is started again.
func TestExecWatchdogIsStartedAgain(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent), "exec", "--", wrapper(t, "sh -c 'echo sleeper=$$; exec sleep 3600'"))
	pid := p.awaitNumber("sleeper")
	first := awaitWatchdog(t, p.cmd.Process.Pid)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	p.awaitLine("the watchdog ended")
	second := awaitWatchdog(t, p.cmd.Process.Pid)
	assert.NotEqual(t, first, second)
	p.signal(syscall.SIGKILL)
	awaitProcessEnd(t, pid)
	awaitProcessEnd(t, second)
}

// The watchdog ends with the registrar.
func TestExecLeavesNoWatchdog(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent), "exec", "--", "sleep", "3600")
	awaitStatus(t, agent, api.HealthPassing)
	watchdog := awaitWatchdog(t, p.cmd.Process.Pid)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		require.NoError(t, syscall.Kill(watchdog, sig), "a supervisor that signals all processes")
	}
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 128+int(syscall.SIGTERM), p.code())
	assert.False(t, runs(watchdog))
	assert.NotContains(t, p.output(), "the watchdog ended")
}

// The command is started only when a left-over server has ended.
func TestExecWaitsForTheEndOfALeftOverServer(t *testing.T) {
	agent := consultest.Start(t)
	executable, err := os.Executable()
	require.NoError(t, err)
	port := freePort(t)
	leftOver := exec.Command(executable, "as", "server", port)
	require.NoError(t, leftOver.Start())
	ended := make(chan struct{})
	go func() { _ = leftOver.Wait(); close(ended) }()
	t.Cleanup(func() { _ = leftOver.Process.Kill(); <-ended })
	consultest.Eventually(t, patience, func() (bool, string) {
		connection, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			connection.Close()
		}
		return err == nil, fmt.Sprint(err)
	})

	p := launch(t, environment(agent, "HEALTH_CHECK_TYPE=grpc", "APP_PORT="+port), "exec", "--", executable, "as", "server", port)
	p.awaitLine("a server answers the health check before the command is started")
	require.NoError(t, leftOver.Process.Kill())
	awaitStatus(t, agent, api.HealthPassing)
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 7, p.code(), "the command was able to listen")
}

// awaitWatchdog waits until the watchdog of a registrar has started, and returns its process
// id.
func awaitWatchdog(t *testing.T, registrar int) int {
	t.Helper()
	var found int
	consultest.Eventually(t, patience, func() (bool, string) {
		paths, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			var pid, parent int
			var state byte
			if n, _ := fmt.Sscanf(string(content), "%d (exec-watchdog) %c %d", &pid, &state, &parent); n == 3 && parent == registrar && state != 'Z' {
				found = pid
				return true, ""
			}
		}
		return false, fmt.Sprintf("registrar %d has no watchdog", registrar)
	})
	return found
}
