// Package consultest runs real Consul agents for tests: one server that is
// ready in a fraction of a second, or a cluster of servers that can be stopped
// and started one by one.
//
// Everything listens on loopback addresses and free ports, so tests of several
// packages run side by side. Agents end with the test, and also when the test
// binary is killed.
package consultest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// ManagementToken is the token with all rights of agents started with [ACL].
const ManagementToken = "5e0c5a2b-7d4e-4f0e-9a52-0c1f7f0c9e11"

// startTimeout is long, because several test binaries with the race detector may share
// two cores.
const startTimeout = 60 * time.Second

type options struct {
	acl        bool
	persistent bool
	streaming  bool
	authority  *Authority
	maxConns   int
}

// Option changes how agents are started.
type Option func(*options)

// ACL switches access control on: agents require tokens, deny by default, and allow
// everything with [ManagementToken]. [Server.Client] uses that token.
func ACL() Option { return func(o *options) { o.acl = true } }

// Persistent keeps the state of a server started with [Start] on disk, so that
// [Server.Start] after [Server.Stop] finds it again. It costs two seconds at
// each start, for the election. Without it a restarted server knows nothing,
// like an agent whose data was wiped. Clusters are always persistent.
func Persistent() Option { return func(o *options) { o.persistent = true } }

// Streaming makes a client agent answer queries from a stream of a server, which is
// Consul's default, instead of asking the leader each time.
func Streaming() Option { return func(o *options) { o.streaming = true } }

// MaxConns sets how many connections the agent allows a client, limits.http_max_conns_per_client;
// default 4096.
func MaxConns(n int) Option { return func(o *options) { o.maxConns = n } }

// Start starts a single Consul server for the test, and waits until it is the leader.
// Without Consul it skips the test, or fails it when LB_TEST_REQUIRE=1 is set.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	s := newServer(t, Binary(t), o, "node-1", "127.0.0.1")
	s.settings["server"] = true
	if o.persistent {
		s.settings["bootstrap"] = true
	} else {
		s.dev = true
	}
	s.Start()
	s.WaitReady()
	return s
}

// Binary is the path of the consul binary for tests: the one on PATH, or else bin/consul
// beside go.mod. Without both it skips the test, or fails it when LB_TEST_REQUIRE=1
// is set.
func Binary(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("consul"); err == nil {
		return path
	}
	missing := "consul is neither on PATH nor in bin/ beside go.mod: \"make bin/consul\" builds it"
	if root, err := moduleRoot(); err == nil {
		path := filepath.Join(root, "bin", "consul")
		if _, err := exec.LookPath(path); err == nil {
			return path
		}
	}
	if os.Getenv("LB_TEST_REQUIRE") == "1" {
		t.Fatal(missing)
	}
	t.Skip("SKIPPED, NOT TESTED: " + missing)
	return ""
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = parent
	}
}

// NewToken creates an ACL token with the given rules (Consul's policy
// language) and returns its secret. The server must run with [ACL].
func (s *Server) NewToken(rules string) string {
	s.t.Helper()
	client := s.Client()
	name := fmt.Sprintf("policy-%d", time.Now().UnixNano())
	policy, _, err := client.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
	if err != nil {
		s.t.Fatalf("create ACL policy: %v", err)
	}
	token, _, err := client.ACL().TokenCreate(&api.ACLToken{
		Policies: []*api.ACLLink{{ID: policy.ID}},
	}, nil)
	if err != nil {
		s.t.Fatalf("create ACL token: %v", err)
	}
	return token.SecretID
}

// Eventually calls condition until it returns true. The string that condition returns
// says what it found. When the timeout is over, Eventually fails the test with the last
// of these strings.
func Eventually(t testing.TB, timeout time.Duration, condition func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		ok, found := condition()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", timeout, strings.TrimSpace(found))
		}
		time.Sleep(10 * time.Millisecond)
	}
}
