package integration

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
)

// policy writes a document as somebody does who writes to Consul by hand. It returns Consul's
// index of the write.
func (s *system) policy(t *testing.T, name, document string) uint64 {
	t.Helper()
	_, err := s.consul.KV().Put(&api.KVPair{Key: "lb/" + name, Value: []byte(document)}, nil)
	require.NoError(t, err)
	pair, _, err := s.consul.KV().Get("lb/"+name, nil)
	require.NoError(t, err)
	return pair.ModifyIndex
}

// servesPolicies waits until nginx serves the policies of a write.
func (s *system) servesPolicies(index uint64) {
	s.Eventually(fmt.Sprintf("nginx serves the policies of index %d", index), func() error {
		status, err := s.Status()
		if err == nil && status.Policies.ServedIndex < index {
			err = fmt.Errorf("it serves %d of %d: %s", status.Policies.ServedIndex, status.Policies.Index, status.Summary)
		}
		return err
	})
}

// problem waits until the status has a problem of a subject with all these words.
func (s *system) problem(subject string, words ...string) {
	s.Eventually("a problem of "+subject, func() error {
		status, err := s.Status()
		if err != nil {
			return err
		}
		for _, p := range status.Problems {
			missing := func() bool {
				for _, word := range words {
					if !strings.Contains(p.Message, word) {
						return true
					}
				}
				return false
			}
			if p.Subject == subject && !missing() {
				return nil
			}
		}
		return fmt.Errorf("the problems are %v, want %q of %s", status.Problems, words, subject)
	})
}

func (s *system) withoutProblems() {
	s.Eventually("there is no problem", func() error {
		status, err := s.Status()
		if err == nil && (len(status.Problems) > 0 || status.State != controller.Serving) {
			err = fmt.Errorf("%s: %v", status.Summary, status.Problems)
		}
		return err
	})
}

func TestAPolicyBrokenByHandCostsItsServiceTheNewestChangeOnly(t *testing.T) {
	t.Parallel() // it mostly waits
	s, _, load := startInACrowd(t)
	s.servesPolicies(s.policy(t, "service/"+hello, `{"timeout.read": "77s"}`))
	s.wrote("grpc.conf", "grpc_read_timeout 77s;")

	s.policy(t, "service/"+hello, `{"timeout.read": "77x", "timeout.sned": "1s"}`)
	s.problem("service "+hello, "lb/service/"+hello, `timeout.read "77x", want a duration`, `unknown field "timeout.sned", did you mean timeout.send?`, "its last good version is kept")
	for n := range crowd {
		if n%7 == 0 {
			s.policy(t, "service/"+other(n), fmt.Sprintf(`{"timeout.send": "%ds"}`, 200+n))
		}
	}
	s.servesPolicies(s.policy(t, "service/"+other(1), `{"timeout.read": "78s"}`))
	s.wrote("grpc.conf", "grpc_send_timeout 207s;")
	s.wrote("grpc.conf", "grpc_read_timeout 78s;")
	s.wrote("grpc.conf", "grpc_read_timeout 77s;")

	s.policy(t, "default", `{"timeout.connect": "never"}`)
	s.problem(`policy "lb/default"`, `timeout.connect "never", want a duration`, "it is left out, because there is no earlier good version")
	s.policy(t, "defualt", `{}`)
	s.problem(`policy "lb/defualt"`, `unknown key, want lb/default or lb/service/NAME; 'consul kv delete lb/defualt' removes it`)

	// lbctl has only its snapshot now, and the documents in Consul are still broken.
	s.StopLbctl()
	s.StartLbctl()
	s.problem("service "+hello, `timeout.read "77x"`, "its last good version is kept")
	s.wrote("grpc.conf", "grpc_read_timeout 77s;")

	_, err := s.consul.KV().Delete("lb/defualt", nil)
	require.NoError(t, err)
	s.policy(t, "default", `{"timeout.connect": "250ms"}`)
	s.servesPolicies(s.policy(t, "service/"+hello, `{"timeout.read": "79s"}`))
	s.wrote("grpc.conf", "grpc_read_timeout 79s;")
	s.wrote("grpc.conf", "grpc_connect_timeout 250ms;")
	s.withoutProblems()
	lostNothing(t, load.Stop())
}

func TestPoliciesStayInForceWithoutConsul(t *testing.T) {
	t.Parallel() // it mostly waits
	s, _, load := startInACrowd(t)
	s.policy(t, "default", `{"timeout.read": "66s"}`)
	s.servesPolicies(s.policy(t, "service/"+hello, `{"timeout.send": "67s"}`))
	lines := []string{"grpc_read_timeout 66s;", "grpc_send_timeout 67s;"}
	for _, line := range lines {
		s.wrote("grpc.conf", line)
	}
	generation := func() int {
		status, err := s.Status()
		require.NoError(t, err)
		return status.Nginx.Generation
	}
	before := generation()

	s.agent.Stop()
	s.StopLbctl()
	s.StartLbctl()
	s.Eventually("lbctl serves its snapshot", func() error {
		status, err := s.Status()
		if err == nil && status.State == controller.Starting {
			err = errors.New(status.Summary)
		}
		return err
	})
	s.problem("consul")
	for _, line := range lines {
		s.wrote("grpc.conf", line)
	}
	assert.Equal(t, before, generation(), "no reload without policies in between")
	lostNothing(t, load.Stop())
}

// A token that lost its rights must not look like an operator who deleted all policies.
func TestPoliciesThatTheTokenCanNoLongerReadStayInForce(t *testing.T) {
	t.Parallel() // it mostly waits
	server := consultest.Start(t, consultest.ACL())
	const services = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
	token := server.NewToken(services + ` key_prefix "lb/" { policy = "read" }`)
	s := &system{
		Balancer: lbtest.Start(t, lbtest.Options{Consul: server.Addr, Token: token, Nginx: newest(t)}),
		agent:    server,
		consul:   server.Client(),
	}
	s.backends(t, 1, 1)
	s.servesPolicies(s.policy(t, "service/"+hello, `{"timeout.send": "67s"}`))
	s.wrote("grpc.conf", "grpc_send_timeout 67s;")

	self, _, err := s.consul.ACL().TokenReadSelf(&api.QueryOptions{Token: token})
	require.NoError(t, err)
	rules, _, err := s.consul.ACL().PolicyRead(self.Policies[0].ID, nil)
	require.NoError(t, err)
	rules.Rules = services
	_, _, err = s.consul.ACL().PolicyUpdate(rules, nil)
	require.NoError(t, err)
	s.policy(t, "service/"+hello, `{"timeout.send": "68s"}`)
	hidden := []string{"can't read all keys", `key_prefix "lb/" { policy = "read" }`}
	s.problem("consul", hidden...)
	s.wrote("grpc.conf", "grpc_send_timeout 67s;")
	s.StopLbctl()
	s.StartLbctl()
	s.problem("consul", hidden...)
	s.backends(t, 2, 2)
	s.wrote("grpc.conf", "grpc_send_timeout 67s;")
}
