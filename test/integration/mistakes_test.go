package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

func TestABadValueIsIgnoredAlone(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		s := start(t, nginx)
		s.backends(t, 1, 1)
		load := lbtest.StartLoad(t, s.GRPC, 2, pause)

		for name, r := range map[string]*api.AgentServiceRegistration{
			"lb-host":     {Name: "evil-host", Port: 1, Meta: map[string]string{"lb-host": `x;} server { listen 1; `}},
			"lb-path":     {Name: "evil-path", Port: 1, Meta: map[string]string{"lb-protocol": "http", "lb-path": "/a { return 200; }"}},
			"lb-protocol": {Name: "evil-protocol", Port: 1, Meta: map[string]string{"lb-protocol": "grpc;}"}},
			"tag":         {Name: "evil-tag", Port: 1, Tags: []string{"grpc_server", `;} } daemon on;`}, Meta: map[string]string{"lb-host": "tag.example"}},
			"evil;}":      {Name: `evil;} name {`, Port: 1, Tags: []string{"grpc_server"}},
		} {
			require.NoError(t, s.consul.Agent().ServiceRegister(r), name)
		}
		for _, word := range []string{"evil-host", "evil-path", "evil-protocol", "evil;}"} {
			s.Eventually("status names "+word, func() error { return problem(s.Balancer, word) })
		}
		s.backends(t, 2, 2) // the next good change is applied without help
		load.WaitMore(t, 50)
		lostNothing(t, load.Stop())
	})
}

func TestATemplateThatFailsStopsItselfOnly(t *testing.T) {
	templates := t.TempDir()
	write := func(text string) {
		require.NoError(t, os.WriteFile(filepath.Join(templates, "own.conf.ctmpl"), []byte(text), 0o644))
	}
	write("# fine\n")
	s := start(t, newest(t), "--templates", templates)
	s.backends(t, 1, 1)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)

	write("{{ range }}")
	s.Eventually("status names the template", func() error { return problem(s.Balancer, "own.conf.ctmpl") })
	load.WaitMore(t, 50)
	write(`{{ "not JSON" | parseJSON }}`)
	s.Eventually("status names the template", func() error { return problem(s.Balancer, "own.conf.ctmpl") })

	write("# fine again\n")
	s.backends(t, 2, 2)
	lostNothing(t, load.Stop())
}

func TestConfigurationsThatFailOnlyAtReload(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer taken.Close()
		templates := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(templates, "http.d"), 0o755))
		write := func(text string) {
			require.NoError(t, os.WriteFile(filepath.Join(templates, "http.d", "own.conf.ctmpl"), []byte(text), 0o644))
		}
		write("# nothing yet\n")
		s := start(t, nginx, "--templates", templates)
		s.backends(t, 1, 1)
		load := lbtest.StartLoad(t, s.GRPC, 2, pause)

		write(fmt.Sprintf("server { listen %s; }\n", taken.Addr()))
		s.Eventually("status names the port in use", func() error {
			if err := problem(s.Balancer, taken.Addr().String()); err != nil {
				return err
			}
			return problem(s.Balancer, "in use")
		})
		load.WaitMore(t, 50)

		// nginx refuses this one when it tests it.
		write("no_such_directive on;\n")
		s.Eventually("status names the directive", func() error { return problem(s.Balancer, "no_such_directive") })
		load.WaitMore(t, 50)

		write("# repaired\n")
		s.backends(t, 2, 2)
		status, err := s.Status()
		require.NoError(t, err)
		assert.Empty(t, status.Problems, "a repaired template is no problem")
		lostNothing(t, load.Stop())
	})
}

func TestRollbackAndResume(t *testing.T) {
	s := start(t, newest(t), "--endpoints", "reload") // so that each new instance makes a generation
	s.backends(t, 1, 1)
	before, err := s.Status()
	require.NoError(t, err)
	s.backends(t, 2, 2)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)

	out, err := s.Lbctl("rollback")
	require.NoError(t, err)
	assert.Contains(t, out, fmt.Sprint(before.Nginx.Generation))
	third := lbtest.StartBackend(t, "server-3")
	third.Register(t, s.consul, hello)
	s.Eventually("the change waits", func() error {
		status, err := s.Status()
		if err == nil && (status.Frozen == nil || status.Pending == nil || status.Nginx.Generation != before.Nginx.Generation) {
			err = fmt.Errorf("%+v", status)
		}
		return err
	})
	late := third.Registration("late")
	late.Tags, late.Meta = nil, map[string]string{"lb-protocol": "grpc", "lb-path": "/late.Late"}
	require.NoError(t, s.consul.Agent().ServiceRegister(late))
	s.Eventually("the new service gets no traffic", func() error {
		out, err := s.Lbctl("services", "late")
		if err == nil && !(strings.Contains(out, fmt.Sprintf("0/1 in rotation; not in generation %d", before.Nginx.Generation)) &&
			strings.Contains(out, fmt.Sprintf("no: the pinned generation %d does not have the service", before.Nginx.Generation))) {
			err = errors.New(out)
		}
		return err
	})
	out, err = s.Lbctl("services", hello)
	require.NoError(t, err)
	assert.NotContains(t, out, "not in generation")
	out, err = s.Lbctl("resume")
	require.NoError(t, err, out)
	s.WaitServing(hello, 3)
	s.WaitServing("late", 1)

	out, err = s.Lbctl("history")
	require.NoError(t, err)
	assert.True(t, strings.Contains(out, "roll"), "%s", out)
	lostNothing(t, load.Stop())
}
