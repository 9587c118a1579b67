package cli

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/nginxtest"
	"lbctl/internal/render"
)

// TestPolicyWait has a real daemon and nginx.
func TestPolicyWait(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		r := startDaemon(t, binary)
		r.register("one")
		require.Eventually(t, func() bool { return r.served() == "one" }, patience, often)
		for _, test := range []struct {
			args []string
			want string // from the daemon
		}{
			{[]string{"set", "web", "timeout.read=77s"}, "77s"},
			{[]string{"set", "default", "timeout.read=66s"}, "77s"},
			{[]string{"unset", "web", "timeout.read"}, "66s"},
			{[]string{"undo", "web"}, "77s"},
			{[]string{"apply", "-f", file(t, "web.yaml", "name: web\ntimeout.read: 78s\n")}, "78s"},
			{[]string{"delete", "web"}, "66s"},
		} {
			got := r.lbctl(append(append([]string{"policy"}, test.args...), "--wait", "30s")...)
			require.Equal(t, exitOK, got.code, got.err)
			assert.Regexp(t, `(^|\n)done: nginx serves the policies\n$`, got.err, test.args)
			assert.Contains(t, nginxFile(t, r, "http.conf"), "proxy_read_timeout "+test.want+";", test.args)
		}
		got := r.lbctl("policy", "apply", "-f", file(t, "web.yaml", "name: default\ntimeout.read: 66s\n"), "--wait", "30s")
		assert.Equal(t, exitOK, got.code, "nothing has changed, and nginx serves it")
		assert.Equal(t, "default is unchanged: nothing was written\n", got.out)
		got = r.lbctl("policy", "set", "wbe", "check=none", "--wait", "30s")
		assert.Equal(t, exitOK, got.code)
		assert.Contains(t, got.err, `no service "wbe" is balanced now: its policy has no effect until it comes`)
		assert.NotContains(t, got.err, "done:")
		assert.Regexp(t, `timeout.read +66s +lb/default`, r.lbctl("policy", "get", "--effective", "web").out)

		got = r.lbctl("policy", "set", "web", "timeout.read=5s", "--kv-prefix", "other", "--wait", "30s")
		assert.Equal(t, exitProblem, got.code)
		assert.Contains(t, got.err, `it is written below "other/" in Consul, but the daemon follows what is below "lb/": want the same --kv-prefix for both`)

		require.NoError(t, r.consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "rpc", Address: "127.0.0.1", Port: 9, Tags: []string{"grpc_server"}}))
		require.Eventually(t, func() bool { return r.lbctl("services", "rpc").code == exitOK }, patience, often)
		const noEffect = "lb/service/rpc: redirect.path /new: it has no effect on grpc services\n"
		got = r.lbctl("policy", "set", "rpc", "redirect.path=/new", "--wait", "30s")
		assert.Equal(t, exitOK, got.code, got.err)
		assert.Contains(t, got.err, noEffect)
		assert.Contains(t, r.lbctl("policy", "list").out, "\n"+noEffect)

		require.Equal(t, exitOK, r.lbctl("rollback").code)
		got = r.lbctl("policy", "set", "web", "timeout.read=5s", "--wait", "30s")
		assert.Equal(t, exitProblem, got.code)
		assert.Contains(t, got.err, "the policies are written, but a generation is pinned")
	})
}

// waitingDaemon serves the policies after some queries of its status.
type waitingDaemon struct {
	*fakeDaemon
	left   atomic.Int32
	served func(*fakeDaemon)
}

func (d *waitingDaemon) Status(ctx context.Context) controller.Status {
	if d.left.Add(-1) == 0 {
		d.fakeDaemon.status.Policies = controller.Documents{Index: 1 << 60, ServedIndex: 1 << 60}
		d.served(d.fakeDaemon)
	}
	return d.fakeDaemon.Status(ctx)
}

func TestPolicyWaitTells(t *testing.T) {
	newOperator(t)
	shop := func(d *fakeDaemon) *endpoints.Entry { return &d.entries[1] }
	for name, tt := range map[string]struct {
		args   []string
		served func(*fakeDaemon)
		code   int
		want   string
	}{
		"that nginx refuses it": {[]string{"set", "shop", "check=none"}, func(d *fakeDaemon) {
			shop(d).State, shop(d).Reason = endpoints.Quarantined, "nginx refuses its block"
		}, exitProblem, "nginx does not have the newest policy of shop: nginx refuses its block"},
		"which services a default harms": {[]string{"set", "default", "check=none"}, func(d *fakeDaemon) {
			shop(d).State, shop(d).Reason = endpoints.Quarantined, "nginx refuses its block"
		}, exitProblem, "nginx does not have the newest policy of shop: nginx refuses its block\n"},
		"that nginx refuses a default": {[]string{"set", "default", "check=tcp"}, func(d *fakeDaemon) {
			d.status.Problems = []render.Problem{{Subject: `policy "lb/default"`, Message: "lb/default: it is refused: nginx -t: no"}}
		}, exitProblem, "nginx does not have the newest policy of lb/default: it is refused: nginx -t: no\n"},
		"what has no effect": {[]string{"set", "shop", "check=tcp"}, func(d *fakeDaemon) {
			d.status.Problems = []render.Problem{
				{Subject: "service shop", Message: "lb/service/shop: check tcp: it has no effect", Sources: []string{"lb/service/shop"}},
				{Subject: "service shop", Message: "lb/default: another problem", Sources: []string{"lb/default"}},
			}
		}, exitOK, "\nlb/service/shop: check tcp: it has no effect\ndone: nginx serves the policies\n"},
		"that the time is over": {[]string{"set", "shop", "check=grpc"}, nil, exitProblem, "waited 1ms until nginx serves the policies, and gave up"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &waitingDaemon{fakeDaemon: newFakeDaemon(), served: tt.served}
			limit := "1ms"
			if tt.served != nil {
				d.left.Store(3)
				limit = "60s"
			}
			got := command(t.Context(), Terminal{}, []string{"LBCTL_RUN_DIR=" + serve(t, d)}, append(append([]string{"policy"}, tt.args...), "--wait", limit)...)
			assert.Equal(t, tt.code, got.code, got.err)
			assert.Contains(t, got.err, tt.want)
			assert.NotContains(t, got.err, "another problem")
		})
	}
	began := time.Now()
	got := command(t.Context(), Terminal{}, []string{"LBCTL_RUN_DIR=" + shortDir(t)}, "policy", "set", "shop", "check=http:/x", "--wait", "10ms")
	assert.Equal(t, exitUnreachable, got.code)
	assert.Regexp(t, `^service/shop changed\n  check  \S+ -> http:/x\n$`, got.out, "it is written")
	assert.Less(t, time.Since(began), patience)
}

// nginxFile is a file of the configuration that nginx has.
func nginxFile(t *testing.T, r *running, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.stateDir, "current", name))
	require.NoError(t, err)
	return string(text)
}
