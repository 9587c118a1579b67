package consultest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/testlog"
)

// Server is a running Consul agent, server or client.
type Server struct {
	// Addr is where the HTTP API listens, "host:port". It stays the same when
	// the agent is stopped and started again.
	Addr string
	// Node is the agent's node name.
	Node string
	// Token is the management token of agents started with [ACL], else empty.
	Token string

	t        testing.TB
	binary   string
	dir      string
	dev      bool
	ip       string
	settings map[string]any
	process  *process

	tlsAddr   string // with TLS
	authority *Authority
}

func newServer(t testing.TB, binary string, o options, node, ip string) *Server {
	t.Helper()
	s := &Server{
		Node:   node,
		t:      t,
		binary: binary,
		dir:    t.TempDir(),
		ip:     ip,
		settings: map[string]any{
			"node_name":                   node,
			"bind_addr":                   ip,
			"client_addr":                 ip,
			"log_level":                   "info",
			"disable_update_check":        true,
			"disable_host_node_id":        true,
			"disable_anonymous_signature": true,
			"enable_script_checks":        false,
			// As in the agents of this repository's images, see
			// build/consul/client.hcl.
			"use_streaming_backend": o.streaming,
			"connect":               map[string]any{"enabled": false},
			"peering":               map[string]any{"enabled": false},
			"limits":                map[string]any{"http_max_conns_per_client": cmp.Or(o.maxConns, 4096)},
			"performance":           map[string]any{"raft_multiplier": 1, "leave_drain_time": "100ms"},
			// By default gossip notices a dead agent after seven seconds, with these
			// settings after one.
			"gossip_lan": map[string]any{
				"probe_interval":  "200ms",
				"probe_timeout":   "100ms",
				"suspicion_mult":  2,
				"gossip_interval": "100ms",
			},
		},
	}
	if o.acl {
		s.Token = ManagementToken
		s.settings["acl"] = map[string]any{
			"enabled":        true,
			"default_policy": "deny",
			"tokens":         map[string]any{"initial_management": ManagementToken, "agent": ManagementToken},
		}
	}
	s.assignPorts()
	if o.authority != nil {
		s.listenTLS(o.authority)
	}
	t.Cleanup(func() {
		s.Kill()
		testlog.Show(t, "Consul's "+s.Node, s.logTail)
	})
	return s
}

// assignPorts picks free ports below the range the kernel hands out for
// outgoing connections, so that they stay free while the agent is stopped.
func (s *Server) assignPorts() {
	s.t.Helper()
	ports := map[string]int{"dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1}
	taken := map[int]bool{} // Consul refuses to start with one port for two purposes
	for _, name := range []string{"http", "server", "serf_lan"} {
		for ports[name] = freePort(s.t, s.ip); taken[ports[name]]; {
			ports[name] = freePort(s.t, s.ip)
		}
		taken[ports[name]] = true
	}
	s.settings["ports"] = ports
	s.Addr = net.JoinHostPort(s.ip, strconv.Itoa(ports["http"]))
}

func freePort(t testing.TB, ip string) int {
	t.Helper()
	for range 200 {
		port := 20000 + rand.IntN(12000)
		address := net.JoinHostPort(ip, strconv.Itoa(port))
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		tcp.Close()
		udp, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		udp.Close()
		return port
	}
	t.Fatalf("no free port found on %s", ip)
	return 0
}

func (s *Server) write(name string, content []byte) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatalf("write Consul's configuration: %v", err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		s.t.Fatalf("write Consul's configuration: %v", err)
	}
}

// Start starts a stopped agent again, with the same addresses, and waits until
// its HTTP API answers. It does not wait for a leader: use [Server.WaitReady].
func (s *Server) Start() {
	s.t.Helper()
	if s.process != nil {
		s.t.Fatalf("start Consul's %s: it is running", s.Node)
	}
	settings := maps.Clone(s.settings)
	args := []string{"agent", "-config-dir", filepath.Join(s.dir, "config")}
	if s.dev {
		args = append(args, "-dev")
	} else {
		settings["data_dir"] = filepath.Join(s.dir, "data")
	}
	content, err := json.MarshalIndent(settings, "", "  ")
	if err != nil {
		s.t.Fatalf("encode Consul's configuration: %v", err)
	}
	s.write("config/10-test.json", content)

	s.process, err = start(s.binary, args, filepath.Join(s.dir, "log"))
	if err != nil {
		s.t.Fatalf("start Consul's %s: %v", s.Node, err)
	}
	s.await("its HTTP API answers", func() error {
		_, err := s.Client().Agent().Self()
		return err
	})
}

// WaitReady waits until the agent sees a leader and its own node in the
// catalog.
func (s *Server) WaitReady() {
	s.t.Helper()
	s.await("it is in the catalog", func() error {
		checks, _, err := s.Client().Health().Node(s.Node, nil)
		if err == nil && len(checks) == 0 {
			err = fmt.Errorf("node %s is not in the catalog", s.Node)
		}
		return err
	})
}

func (s *Server) await(what string, condition func() error) {
	s.t.Helper()
	deadline := time.Now().Add(startTimeout)
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-s.process.done:
			s.t.Fatalf("Consul's %s ended before %s: %v\n%s", s.Node, what, s.process.err, s.logTail())
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("wait for Consul's %s until %s: not within %s: %v\n%s", s.Node, what, startTimeout, err, s.logTail())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Stop ends the agent with SIGTERM and waits for its end. By Consul's defaults, a client
// leaves the cluster and a server does not. Stop does nothing when the agent isn't
// running.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the agent at once (SIGKILL), as a crash would. It does nothing when
// the agent isn't running.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) {
	if s.process == nil {
		return
	}
	s.process.signal(sig)
	select {
	case <-s.process.done:
	case <-time.After(20 * time.Second):
		s.process.signal(syscall.SIGKILL)
		<-s.process.done
	}
	s.process = nil
}

// Pause stops the agent's process without ending it (SIGSTOP), like a frozen machine:
// the kernel accepts connections, and nothing answers.
func (s *Server) Pause() { s.process.signal(syscall.SIGSTOP) }

// Config is a client configuration for the agent, with the management token
// when access control is on.
func (s *Server) Config() *api.Config {
	return &api.Config{Address: s.Addr, Scheme: "http", Token: s.Token}
}

// Client is a new client of the agent, with the management token when access
// control is on.
func (s *Server) Client() *api.Client {
	s.t.Helper()
	client, err := api.NewClient(s.Config())
	if err != nil {
		s.t.Fatalf("make a client of Consul's %s: %v", s.Node, err)
	}
	return client
}

// Port is the port of [Server.Addr].
func (s *Server) Port() int {
	return s.settings["ports"].(map[string]int)["http"]
}

// PID is the process id of the running agent.
func (s *Server) PID() int { return s.process.cmd.Process.Pid }

func (s *Server) serfAddr() string {
	return net.JoinHostPort(s.ip, strconv.Itoa(s.settings["ports"].(map[string]int)["serf_lan"]))
}

func (s *Server) logTail() string {
	content, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-60):], []byte("\n")))
}

type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; read it after done is closed
}

func start(binary string, args []string, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(binary, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = agentAttributes()

	started := make(chan error)
	go func() {
		defer log.Close()
		// The kernel ends the agent when the thread that started it ends (see
		// agentAttributes), so keep that thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) signal(sig syscall.Signal) {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Signal(sig) // it may have ended meanwhile
	}
}
