package cli

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/admin"
	"lbctl/internal/consul"
	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/internal/printable"
	"lbctl/internal/render"
)

// hostile is a name or message that writes to the clipboard, turns the direction of text, and
// forges a row.
const hostile = "x\x1b]52;c;aGk=\a\u202e\u009b2J\x7f\nweb  forged"

// hostileDaemon has it in all its texts.
func hostileDaemon(d *fakeDaemon) {
	status := &d.status
	status.State, status.Summary, status.Version = controller.Degraded, hostile, hostile
	status.Consul = consul.Status{Address: hostile, LastError: hostile}
	status.Nginx.Version, status.Nginx.WorkersReason = hostile, hostile
	status.Endpoints = controller.EndpointsStatus{By: "dns", ByReload: []controller.ByReload{{Service: hostile, Reason: hostile}}}
	status.Pending = &controller.PendingChange{Change: hostile, Reason: hostile}
	status.Problems = []render.Problem{{Subject: hostile, Message: hostile}}
	d.events = []history.Event{
		{Kind: history.Applied, Generation: 1, Change: hostile},
		{Kind: history.Failed, Generation: 1, Change: hostile, Reason: hostile},
		{Kind: hostile, Reason: hostile},
	}
	entry := &d.entries[0]
	entry.Name, entry.Reason, entry.Problems = "web", hostile, []string{hostile}
	entry.Routes = append(entry.Routes, entry.Routes...)
	entry.Instances[0].ID, entry.Instances[0].Node, entry.Instances[0].Version = hostile, hostile, hostile
	d.entries[1].Name = hostile
	d.generations[0].Note = nginx.Note{Change: hostile}
	d.files[42]["new.conf"] = []byte("# " + hostile + "\n")
	d.refuse = errors.New(hostile)
	d.serving = errors.New(hostile)
}

var styles = regexp.MustCompile(`\x1b\[[0-9]+m`)

// TestHostileText checks that every command escapes such text for people.
func TestHostileText(t *testing.T) {
	for _, line := range []string{
		"status", "status --watch", "status --wait 1ms", "status --ready", "services", "services web", "services nobody",
		"history", "diff", "diff 7", "rollback", "accept", "resume", "__complete services x", "__complete rollback ",
	} {
		for name, terminal := range map[string]Terminal{"pipe": {}, "terminal": narrow, "colours": coloured} {
			t.Run(line+", "+name, func(t *testing.T) {
				t.Parallel()
				d := newFakeDaemon()
				hostileDaemon(d)
				text := said(t, terminal, d.start(t), line)
				if terminal.Colour {
					text = styles.ReplaceAllString(text, "")
				}
				if strings.Contains(line, "--watch") {
					text = strings.NewReplacer(clearAll, "", clearBelow, "", home, "", "\x1b[K", "").Replace(text)
				}
				assert.Equal(t, printable.Lines(text), text)
				if line != "diff" { // a diff has the lines of the file
					assert.NotRegexp(t, `(?m)^web  forged`, text)
				}
			})
		}
	}
}

// said returns the output of a command; it ends a watch.
func said(t *testing.T, terminal Terminal, runDir, line string) string {
	args := strings.Split(line, " ")
	if !strings.Contains(line, "--watch") {
		got := command(t.Context(), terminal, []string{"LBCTL_RUN_DIR=" + runDir}, args...)
		return got.out + got.err
	}
	out, end := watch(t, terminal, runDir, args...)
	require.Eventually(t, func() bool { return out.String() != "" }, patience, often)
	end()
	return out.String()
}

// TestHostileJSON checks that programs get such text unchanged.
func TestHostileJSON(t *testing.T) {
	d := newFakeDaemon()
	hostileDaemon(d)
	var services []admin.Service
	got := command(t.Context(), Terminal{}, []string{"LBCTL_RUN_DIR=" + d.start(t)}, "services", "-o", "json")
	require.NoError(t, json.Unmarshal([]byte(got.out), &services))
	assert.Equal(t, hostile, services[1].Name)
	var ids []string
	for _, instance := range services[0].Instances {
		ids = append(ids, instance.ID)
	}
	assert.Contains(t, ids, hostile)
}

// TestHostileInstance registers such text with the real Consul, which accepts it.
func TestHostileInstance(t *testing.T) {
	all := nginxtest.Binaries(t)
	r := startDaemon(t, all[len(all)-1])
	r.register("good")
	const id = "evil\x1b]52;c;aGk=\a\u202e\u200b\U000e0041\n9 9 9"
	require.NoError(t, r.consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: "web", Address: "127.0.0.1", Port: 1, Tags: []string{"http_server"},
		Check: &api.AgentServiceCheck{TTL: "10m", Status: "critical", Notes: hostile},
	}))
	require.Eventually(t, func() bool { return strings.Contains(r.lbctl("services", "web").out, "evil") }, patience, often)
	for _, line := range [][]string{{"services", "web"}, {"services"}, {"status"}, {"history"}, {"diff"}} {
		got := r.lbctl(line...)
		assert.Equal(t, printable.Lines(got.out), got.out, line)
	}
	assert.Contains(t, r.lbctl("services", "web").out, `evil\x1b]52;c;aGk=\a\u202e\u200b\U000e0041\n9 9 9 `)
	log := r.log.String()
	assert.Equal(t, printable.Lines(log), log)

	var service admin.Service
	require.NoError(t, json.Unmarshal([]byte(r.lbctl("services", "web", "-o", "json").out), &service))
	assert.Equal(t, id, service.Instances[0].ID, "programs get the exact text")
}

// TestHostilePolicies writes such text into Consul's KV.
func TestHostilePolicies(t *testing.T) {
	o := newOperator(t)
	o.ok("set", "cart", "check=tcp", "-m", hostile)
	ok, _, _, err := o.consul.Client().KV().Txn(api.KVTxnOps{{Verb: api.KVSet, Key: "lb/service/" + hostile, Value: []byte("{}")}}, nil)
	require.NoError(t, err)
	require.True(t, ok)
	broken, err := json.Marshal(map[string]string{hostile: hostile, "check": hostile})
	require.NoError(t, err)
	o.byHand("lb/service/stock", string(broken))
	assert.Contains(t, o.ok("list"), `lb/service/x\x1b]52`)
	for _, args := range [][]string{
		{"list"}, {"history", "cart"}, {"history", "cart", "--diff"}, {"get"}, {"get", "stock"}, {"set", "stock", "check=tcp"},
		{"undo", "cart", "--dry-run"}, {"undo", "cart"}, {"set", "cart", hostile + "=x", "check=" + hostile}, {"get", hostile}, {"explain", hostile},
	} {
		for _, terminal := range []Terminal{{}, narrow} {
			got := command(t.Context(), terminal, nil, append([]string{"policy"}, args...)...)
			text := got.out + got.err
			assert.Equal(t, printable.Lines(text), text, args)
			assert.NotRegexp(t, `(?m)^web  forged`, text, args)
		}
	}
	assert.Equal(t, hostile, read[[]policyEntry](t, o.ok("history", "cart", "-o", "json"))[2].Why, "programs get the exact text")
}

// TestHostileTemplates shows what commands that need no daemon print of templates, which
// may come from others too, and of an answer of Consul.
func TestHostileTemplates(t *testing.T) {
	binary := nginxtest.Binaries(t)[0]
	templates := writeTemplates(t, map[string]string{"http.d/own.conf.ctmpl": "nonsense on; # " + hostile})
	got := command(t.Context(), Terminal{}, nil, "check", "--nginx", binary.Path, "--templates", templates)
	assert.Contains(t, got.out, "nonsense on;")
	assert.Equal(t, printable.Lines(got.out), got.out)

	t.Setenv("CONSUL_HTTP_ADDR", consultest.Start(t).Addr)
	got = command(t.Context(), narrow, nil, "render", "--nginx", binary.Path, "--templates", templates)
	assert.Contains(t, got.out, "nonsense on;")
	assert.Equal(t, printable.Lines(got.out), got.out)
	got = command(t.Context(), Terminal{}, nil, "render", "--nginx", binary.Path, "--templates", templates)
	assert.Contains(t, got.out, hostile, "programs get the exact text")

	consul := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, hostile, http.StatusForbidden)
	}))
	t.Cleanup(consul.Close)
	t.Setenv("CONSUL_HTTP_ADDR", consul.URL)
	got = command(t.Context(), narrow, nil, "render", "--nginx", binary.Path, "--timeout", "1s")
	assert.Contains(t, got.err, "refuses")
	assert.Equal(t, printable.Lines(got.err), got.err)
}
