package registrarcli

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"lbctl/internal/consultest"
	"lbctl/internal/registration"
	"lbctl/internal/testlog"
)

// patience is for conditions that take a fraction of a second on a quiet machine.
const patience = 20 * time.Second

// The test binary is also the registrar and its command.
func TestMain(m *testing.M) {
	if registration.IsWatchdog() {
		os.Exit(Main(nil, os.Stdout, os.Stderr))
	}
	if len(os.Args) > 2 && os.Args[1] == "as" {
		args := os.Args[3:]
		switch os.Args[2] {
		case "registrar":
			os.Exit(Main(args, os.Stdout, os.Stderr))
		case "server":
			os.Exit(serve(args[0]))
		}
	}
	os.Exit(m.Run())
}

// serve is a gRPC server with the health service. On SIGTERM it stops listening, prints
// that, and ends a while later with code 7.
func serve(port string) int {
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	<-signals
	server.Stop()
	fmt.Println("server: stopping")
	time.Sleep(500 * time.Millisecond)
	fmt.Println("server: ended")
	return 7
}

// process is a registrar in a process of its own.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

func launch(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	executable, err := os.Executable()
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(executable, append([]string{"as", "registrar"}, args...)...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	output, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.cmd.Stderr = p.cmd.Stdout
	require.NoError(t, p.cmd.Start())
	go func() {
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			p.mu.Lock()
			p.log.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
		}
		_ = p.cmd.Wait() // the tests check the code
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		testlog.Show(t, "the registrar", p.output)
	})
	return p
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(sig))
}

func (p *process) awaitLine(part string) {
	p.t.Helper()
	consultest.Eventually(p.t, patience, func() (bool, string) {
		return strings.Contains(p.output(), part), fmt.Sprintf("no line with %q", part)
	})
}

// code waits for the end and returns the exit code.
func (p *process) code() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("the registrar did not end within %s", patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// environment returns variables that register "web" with a ttl check and no drain.
func environment(agent *consultest.Server, more ...string) []string {
	return append([]string{
		"APP_NAME=web", "APP_PORT=7777", "SERVICE_ID=web-1", "HEALTH_CHECK_TYPE=ttl", "DRAIN=0s",
		"CONSUL_PORT=" + strconv.Itoa(agent.Port()),
	}, more...)
}

func status(t *testing.T, agent *consultest.Server) string {
	t.Helper()
	entries, _, err := agent.Client().Health().Service("web", "", false, nil)
	require.NoError(t, err)
	if len(entries) == 0 {
		return "absent"
	}
	return entries[0].Checks.AggregatedStatus()
}

func awaitStatus(t *testing.T, agent *consultest.Server, want string) {
	t.Helper()
	consultest.Eventually(t, patience, func() (bool, string) {
		got := status(t, agent)
		return got == want, fmt.Sprintf("web is %s, want %s", got, want)
	})
}

func TestMistakesAreUsage(t *testing.T) {
	p := launch(t, []string{"APP_NAME=", "APP_PORT=seven"}, "--drain=5")
	assert.Equal(t, exitUsage, p.code())
	assert.Equal(t, `registrar: 3 mistakes in the configuration:
  APP_NAME (or --name) is not set, want the name of the service, for example hello_server
  APP_PORT: "seven" is not a port, want a number from 1 to 65535
  --drain: "5" is not a time, want a number with its unit, for example 500ms, 5s or 2m
`, p.output())
}

func TestUsage(t *testing.T) {
	valid := []string{"APP_NAME=web", "APP_PORT=7777"}
	tests := []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"an unknown command", nil, []string{"start"}, "registrar: unknown command \"start\" for \"registrar\"\n"},
		{"an unknown flag", nil, []string{"--nmae=web"}, "registrar: unknown flag: --nmae\n"},
		{"exec without a command", nil, []string{"exec"}, "registrar: exec: no command given, want one, for example: registrar exec -- grpc_server -listen=:7777\n"},
		{"one mistake is one line", []string{"WEIGHT=0"}, nil, "registrar: WEIGHT: \"0\" is not a weight, want a number from 1 to 65535, or two such as 10/1 for passing and warning\n"},
		{"a connection with a missing CA file", []string{"CONSUL_HTTP_SSL=true", "CONSUL_CACERT=/nowhere/ca.pem"}, nil,
			"registrar: connect to the Consul agent: read the credentials for Consul: open /nowhere/ca.pem: no such file or directory\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := launch(t, append(valid, test.env...), test.args...)
			assert.Equal(t, exitUsage, p.code())
			assert.Equal(t, test.want, p.output())
		})
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"exec", "--help"}} {
		var out, errOut bytes.Buffer
		assert.Equal(t, 0, Main(args, &out, &errOut))
		assert.Empty(t, errOut.String())
		for _, s := range registration.Settings() {
			assert.Contains(t, out.String(), "--"+s.Flag+" "+s.Value)
			assert.Contains(t, out.String(), s.Env)
		}
		for line := range strings.Lines(out.String()) {
			assert.LessOrEqual(t, len(line), 101, line)
		}
	}
}

// TestManualHasEverySetting compares the manual's table with the settings.
func TestManualHasEverySetting(t *testing.T) {
	manual, err := os.ReadFile(filepath.Join("..", "..", "docs", "registrar.md"))
	require.NoError(t, err)
	for _, s := range registration.Settings() {
		row := fmt.Sprintf("| `%s` | `--%s` | %s |", s.Env, s.Flag, s.Default)
		if s.Default != "" && !strings.HasPrefix(s.Default, "(") {
			row = fmt.Sprintf("| `%s` | `--%s` | `%s` |", s.Env, s.Flag, s.Default)
		} else if s.Default != "" {
			row = fmt.Sprintf("| `%s` | `--%s` | %s |", s.Env, s.Flag, strings.Trim(s.Default, "()"))
		}
		assert.Contains(t, string(manual), row)
	}
}

func TestGivesUpAfterTheAttempts(t *testing.T) {
	agent := consultest.Start(t)
	agent.Stop()
	env := environment(agent, "REGISTER_DELAY=10ms")
	last := fmt.Sprintf("registrar: register \"web-1\" with the Consul agent at 127.0.0.1:%d: 10 attempts failed, the last one: ", agent.Port())
	t.Run("without a command", func(t *testing.T) {
		p := launch(t, env)
		assert.Equal(t, exitFailure, p.code())
		assert.Contains(t, p.output(), last)
		assert.Contains(t, p.output(), "connection refused")
		assert.Equal(t, 10, strings.Count(p.output(), "registration failed"))
	})
	t.Run("with a command, which is stopped", func(t *testing.T) {
		p := launch(t, env, "exec", "--", "sh", "-c", "trap 'echo got TERM; exit 0' TERM; while :; do sleep 0.05; done")
		assert.Equal(t, exitFailure, p.code())
		assert.Contains(t, p.output(), last)
		assert.Contains(t, p.output(), "got TERM")
	})
}

func TestRunLeavesOnSIGTERM(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent, "DRAIN=1h"))
	awaitStatus(t, agent, api.HealthPassing)
	p.signal(syscall.SIGTERM)
	awaitStatus(t, agent, api.HealthMaint)
	p.signal(syscall.SIGINT)
	assert.Equal(t, 0, p.code())
	awaitStatus(t, agent, "absent")
}

// The order that loses no request: the instance leaves the rotation while the server serves,
// then the server ends, then the instance is deregistered.
func TestExecLeavesInOrder(t *testing.T) {
	agent := consultest.Start(t)
	executable, err := os.Executable()
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	require.NoError(t, listener.Close())
	serves := func() bool {
		connection, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			connection.Close()
		}
		return err == nil
	}

	p := launch(t, environment(agent, "HEALTH_CHECK_TYPE=grpc", "APP_PORT="+port, "DRAIN=1h"),
		"exec", "--", executable, "as", "server", port)
	awaitStatus(t, agent, api.HealthPassing)
	require.True(t, serves(), "it is registered as passing")

	p.signal(syscall.SIGTERM)
	awaitStatus(t, agent, api.HealthMaint)
	require.True(t, serves(), "it serves during the drain")
	p.signal(syscall.SIGINT)
	p.awaitLine("server: stopping")
	assert.NotEqual(t, "absent", status(t, agent), "the server is still ending")

	assert.Equal(t, 7, p.code(), "the command's own code")
	awaitStatus(t, agent, "absent")
	for _, lines := range [][2]string{
		{"left the rotation", "server: stopping"}, {"server: ended", "msg=deregistered"},
	} {
		before, after := strings.Index(p.output(), lines[0]), strings.Index(p.output(), lines[1])
		assert.True(t, before >= 0 && before < after, "%q comes before %q", lines[0], lines[1])
	}
}

func TestExecCodes(t *testing.T) {
	agent := consultest.Start(t)
	script := filepath.Join(t.TempDir(), "not-executable")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"), 0o644))
	tests := []struct {
		name    string
		command []string
		want    int
	}{
		{"success", []string{"true"}, 0},
		{"the command's own code", []string{"sh", "-c", "exit 42"}, 42},
		{"128 and the signal that ended it", []string{"sh", "-c", "kill -USR1 $$"}, 128 + int(syscall.SIGUSR1)},
		{"no such command", []string{"no-such-command"}, 127},
		{"no such file", []string{"/no/such/command"}, 127},
		{"not executable", []string{script}, 126},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := launch(t, environment(agent), append([]string{"exec", "--"}, test.command...)...)
			assert.Equal(t, test.want, p.code())
			awaitStatus(t, agent, "absent")
		})
	}
}

func TestExecDeregistersACrashedServerAtOnce(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent, "DRAIN=1h"), "exec", "--", "sh", "-c", "trap 'exit 3' USR1; while :; do sleep 0.05; done")
	awaitStatus(t, agent, api.HealthPassing)
	p.signal(syscall.SIGUSR1) // goes on to the command
	assert.Equal(t, 3, p.code())
	awaitStatus(t, agent, "absent")
}

func TestExecEndsTheDrainWithTheServer(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent, "DRAIN=1h"), "exec", "--", "sh", "-c", "trap 'exit 3' USR1; while :; do sleep 0.05; done")
	awaitStatus(t, agent, api.HealthPassing)
	p.signal(syscall.SIGTERM)
	awaitStatus(t, agent, api.HealthMaint)
	p.signal(syscall.SIGUSR1)
	assert.Equal(t, 3, p.code())
	awaitStatus(t, agent, "absent")
}

func TestExecKillsAServerThatDoesNotEnd(t *testing.T) {
	agent := consultest.Start(t)
	stubborn := []string{"exec", "--", "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"}
	t.Run("after the timeout", func(t *testing.T) {
		p := launch(t, environment(agent, "STOP_TIMEOUT=100ms"), stubborn...)
		awaitStatus(t, agent, api.HealthPassing)
		p.awaitLine("deaf")
		p.signal(syscall.SIGTERM)
		assert.Equal(t, 128+int(syscall.SIGKILL), p.code())
		awaitStatus(t, agent, "absent")
	})
	t.Run("after more signals", func(t *testing.T) {
		p := launch(t, environment(agent, "STOP_TIMEOUT=1h"), stubborn...)
		awaitStatus(t, agent, api.HealthPassing)
		p.awaitLine("deaf")
		p.signal(syscall.SIGTERM)
		p.awaitLine("stopping the server")
		p.signal(syscall.SIGINT)
		p.awaitLine("a third request kills it")
		p.signal(syscall.SIGTERM)
		assert.Equal(t, 128+int(syscall.SIGKILL), p.code())
		awaitStatus(t, agent, "absent")
	})
}

func TestExecRegistersTheServerOnceItAnswers(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent, "HEALTH_CHECK_TYPE=tcp", "HEALTH_CHECK_ENDPOINT=127.0.0.1:1", "READY_TIMEOUT=1h"),
		"exec", "--", "sleep", "3600")
	p.awaitLine("server started")
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 128+int(syscall.SIGTERM), p.code())
	assert.NotContains(t, p.output(), "registered")
	assert.NotContains(t, p.output(), "drain")
}

// The second signal cuts the drain short. After the drain it does nothing, so that a
// supervisor that signals twice does not kill the command; the third one kills it.
func TestExecSecondSignalAfterTheDrainKillsNobody(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent, "STOP_TIMEOUT=1h"), "exec", "--", "sh", "-c",
		"trap 'echo got TERM' TERM; trap 'exit 3' USR1; while :; do sleep 0.05; done")
	awaitStatus(t, agent, api.HealthPassing)
	p.signal(syscall.SIGTERM)
	p.awaitLine("got TERM")
	p.signal(syscall.SIGINT)
	p.awaitLine("a third request kills it")
	p.signal(syscall.SIGUSR1)
	assert.Equal(t, 3, p.code(), "it ended by itself")
	assert.NotContains(t, p.output(), "killing")
}

// SIGHUP, also from a closed terminal, makes the registrar read its credentials again. It
// ends only a command that does not handle it.
func TestSIGHUPReadsTheCredentialsAgain(t *testing.T) {
	agent := consultest.Start(t)
	for name, command := range map[string][]string{
		"alone": nil,
		"exec":  {"exec", "--", "sh", "-c", "trap 'echo got HUP' HUP; while :; do sleep 0.05; done"},
	} {
		t.Run(name, func(t *testing.T) {
			p := launch(t, environment(agent), command...)
			awaitStatus(t, agent, api.HealthPassing)
			p.signal(syscall.SIGHUP)
			p.awaitLine("credentials for Consul read again")
			if command != nil {
				p.awaitLine("got HUP")
			}
			p.signal(syscall.SIGTERM)
			p.code()
			awaitStatus(t, agent, "absent")
		})
	}
}

// A Ctrl-C at a terminal reaches the whole process group. It must not reach the command.
func TestExecKeepsTheCommandOutOfItsGroup(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent), "exec", "--", "sh", "-c", "echo pgid=$(ps -o pgid= -p $$ | tr -d ' ') pid=$$; exec sleep 3600")
	p.awaitLine("pgid=")
	var pgid, pid int
	at := strings.Index(p.output(), "pgid=")
	_, err := fmt.Sscanf(p.output()[at:], "pgid=%d pid=%d", &pgid, &pid)
	require.NoError(t, err)
	assert.Equal(t, pid, pgid)
	p.signal(syscall.SIGINT)
	assert.Equal(t, 128+int(syscall.SIGTERM), p.code())
}
