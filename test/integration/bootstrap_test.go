package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
)

// TestNginxThatStartedDropsItsBootstrapServers restarts nginx while one of its bootstrap
// servers is in maintenance. That instance must get no calls once lbctl says that nginx
// serves what Consul says.
func TestNginxThatStartedDropsItsBootstrapServers(t *testing.T) {
	t.Parallel() // it mostly waits
	routes := func(t *testing.T, s *system, name string, meta map[string]string) {
		meta["lb-protocol"] = "http"
		require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
			Name: name, Address: "127.0.0.1", Port: 9, Meta: meta,
		}))
		s.WaitServing(name, 1)
	}
	tests := []struct {
		name   string
		before func(t *testing.T, s *system)
		state  controller.State
	}{
		{"a host that looks like a name that nginx asks for", func(t *testing.T, s *system) {
			routes(t, s, "odd", map[string]string{"lb-host": "nobody.u.lbctl.internal.example"})
		}, controller.Serving},
		{"a path that looks like a name that nginx asks for", func(t *testing.T, s *system) {
			routes(t, s, "odd", map[string]string{"lb-path": "/nobody.u.lbctl.internal"})
		}, controller.Serving},
		{"a generation with a service that is gone is pinned", func(t *testing.T, s *system) {
			routes(t, s, "gone", map[string]string{"lb-path": "/gone"})
			s.settled(t, 2)
			before, err := s.Status()
			require.NoError(t, err)
			require.NoError(t, s.consul.Agent().ServiceDeregister("gone"))
			s.Eventually("the service has left", func() error {
				if _, err := s.Lbctl("accept"); err != nil {
					return err
				}
				status, err := s.Status()
				if err == nil && (status.Services != 1 || status.State != controller.Serving || status.Nginx.Generation == before.Nginx.Generation) {
					err = errors.New(status.Summary)
				}
				return err
			})
			_, err = s.Lbctl("rollback", fmt.Sprint(before.Nginx.Generation))
			require.NoError(t, err)
		}, controller.Frozen},
		{"an older lbctl wrote the files", asAnOlderLbctl, controller.Serving},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := alone(t, asking(t))
			s.backends(t, 1, 3)
			s.settled(t, 1)
			tt.before(t, s)
			drops := strings.Count(s.Log(), droppedBootstrap)
			s.KillLbctl() // so that the bootstrap servers stay as they are
			s.Nginx().Stop()
			require.NoError(t, s.consul.Agent().EnableServiceMaintenance(hello+"-server-1", "test"))
			s.StartNginx()
			load := lbtest.StartLoad(t, s.GRPC, 2, pause)
			load.WaitMore(t, 20)
			load.Stop()

			s.StartLbctl()
			s.Eventually("nginx serves what Consul says", func() error {
				status, err := s.Status()
				if err == nil && (status.State != tt.state) {
					err = errors.New(status.Summary)
				}
				if err == nil && tt.state == controller.Frozen && strings.Count(s.Log(), droppedBootstrap) == drops {
					err = errors.New("nginx has not dropped its bootstrap servers")
				}
				return err
			})
			load = lbtest.StartLoad(t, s.GRPC, 2, pause)
			load.WaitMore(t, 100)
			result := load.Stop()
			lostNothing(t, result)
			assert.Zero(t, load.First("server-1"), "the instance in maintenance")
		})
	}
}

// asAnOlderLbctl changes the state directory to that of an older lbctl. That one stored no
// list of upstreams with a generation, and its nginx said only whether it had bootstrap
// servers.
func asAnOlderLbctl(t *testing.T, s *system) {
	t.Helper()
	s.KillLbctl()
	notes, err := filepath.Glob(filepath.Join(s.StateDir, "generations", "*", "generation.json"))
	require.NoError(t, err)
	for _, path := range notes {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var note map[string]any
		require.NoError(t, json.Unmarshal(text, &note))
		require.Contains(t, note, "upstreams")
		delete(note, "upstreams")
		text, err = json.Marshal(note)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, text, 0o644))
	}
	markers, err := filepath.Glob(filepath.Join(s.StateDir, "seeds", "start", "*", "_seeded.conf"))
	require.NoError(t, err)
	require.Len(t, markers, 1)
	require.NoError(t, os.WriteFile(markers[0], []byte("location = /seeded { return 200 \"seeded\\n\"; }\n"), 0o644))
}
