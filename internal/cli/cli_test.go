package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/access"
	"lbctl/internal/admin"
	"lbctl/internal/certificates"
	"lbctl/internal/consul"
	"lbctl/internal/controller"
	"lbctl/internal/daemon"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policytest"
	"lbctl/internal/render"
	"lbctl/internal/routing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// now is the time of the tests.
var now = time.Date(2026, 11, 21, 9, 16, 30, 0, time.UTC)

func before(d time.Duration) time.Time { return now.Add(-d) }

// fakeDaemon has the data for a real admin server.
type fakeDaemon struct {
	closed      string // a service that all addresses are denied
	status      controller.Status
	routing     controller.Routing
	events      []history.Event
	entries     []endpoints.Entry
	held        int
	generations []nginx.Generation
	current     int
	files       map[int]map[string][]byte
	serving     error // why nginx does not answer
	refuse      error // why it refuses to be rolled back
}

func (d *fakeDaemon) Status(context.Context) controller.Status { return d.status }
func (d *fakeDaemon) Pinned() controller.Pinned                { return controller.Pinned{} }
func (d *fakeDaemon) Routing() controller.Routing              { return d.routing }
func (d *fakeDaemon) History() []history.Event                 { return d.events }
func (d *fakeDaemon) Entries() []endpoints.Entry               { return d.entries }
func (d *fakeDaemon) Accept(string) int                        { return d.held }
func (d *fakeDaemon) Generations() ([]nginx.Generation, error) { return d.generations, nil }
func (d *fakeDaemon) Serving(context.Context) (int, error)     { return d.current, d.serving }
func (d *fakeDaemon) Resume(context.Context) error             { d.status.Frozen = nil; return nil }

func (d *fakeDaemon) Rollback(_ context.Context, number int) (nginx.Generation, error) {
	if d.refuse != nil {
		return nginx.Generation{}, d.refuse
	}
	d.current = number
	return d.Current()
}

func (d *fakeDaemon) Current() (nginx.Generation, error) {
	for _, generation := range d.generations {
		if generation.Number == d.current {
			return generation, nil
		}
	}
	return nginx.Generation{}, nil
}

func (d *fakeDaemon) Files(number int) (map[string][]byte, error) {
	if files, ok := d.files[number]; ok {
		return files, nil
	}
	return nil, fmt.Errorf("generation %d: %w", number, os.ErrNotExist)
}

// newFakeDaemon returns a fakeDaemon without problems that serves generation 42.
func newFakeDaemon() *fakeDaemon {
	note := func(change string, services, instances int) nginx.Note {
		return nginx.Note{Change: change, Services: services, Instances: instances}
	}
	passing := func(id, node, address string) endpoints.Instance {
		return endpoints.Instance{ID: id, Node: node, Address: address, Port: 7777, Weight: 1, Status: endpoints.Passing}
	}
	return &fakeDaemon{
		status: controller.Status{
			State:   controller.Serving,
			Summary: "nginx serves generation 42, which is what Consul says",
			Version: "1.2.3",
			Started: before(26 * time.Hour),
			Nginx: controller.Nginx{
				Version: "1.30.6", Running: true, PID: 4711, Generation: 42,
				Since: before(4*time.Minute + 27*time.Second), Workers: 2,
			},
			Consul: consul.Status{
				Address: "127.0.0.1:8500", Reachable: true, Leader: "10.0.0.3:8300", Since: before(3 * time.Hour),
			},
			Services:  3,
			Instances: 4,
			Endpoints: controller.EndpointsStatus{By: "dns", Upstreams: 3},
			LastApply: &controller.LastApply{
				At: before(4*time.Minute + 27*time.Second), TookSeconds: 0.082, Generation: 42, Outcome: history.Applied,
			},
			LastChange: &history.Event{Time: before(time.Minute), Kind: history.Moved, Generation: 42, TookSeconds: 1.006, Change: "hello_server +1"},
		},
		events: []history.Event{
			{Time: before(time.Minute), Kind: history.Moved, Generation: 42, TookSeconds: 1.006, Change: "hello_server +1"},
			{Time: before(4 * time.Minute), Kind: history.Applied, Generation: 42, From: 41, TookSeconds: 0.082, Change: "hello_server +2", Reason: "Consul or a template changed"},
			{Time: before(31 * time.Minute), Kind: history.Rejected, Generation: 41, From: 41, TookSeconds: 0.021, Change: "nginx's configuration",
				Reason: "generation 42: configuration refused: nginx -t: unknown directive \"foo\" in http.conf:12"},
			{Time: before(2 * time.Hour), Kind: history.Resumed, Generation: 41, Reason: "generation 40 is no longer pinned"},
			{Time: before(3 * time.Hour), Kind: history.RolledBackByOperator, Generation: 40, From: 41, TookSeconds: 0.2, Reason: "an operator asked for it"},
			{Time: before(30 * time.Hour), Kind: history.NginxUp, Generation: 41, TookSeconds: 12.34},
		},
		entries: []endpoints.Entry{
			{
				Service: endpoints.Service{
					Name: "hello_server", Spec: endpoints.Spec{Protocol: endpoints.GRPC, Default: true}, OK: true,
					Instances: []endpoints.Instance{
						passing("hello_server-1b40646880d9", "node-1", "10.0.0.11"),
						passing("hello_server-7c2f", "node-2", "10.0.0.12"),
						{ID: "hello_server-9999", Node: "node-3", Address: "10.0.0.13", Port: 7777, Weight: 1, Status: endpoints.Critical},
						{ID: "hello_server-aaaa", Node: "node-4", Address: "fd00::14", Port: 7777, Weight: 5, Status: endpoints.Maintenance, Version: "v2"},
					},
				},
				State: endpoints.Fresh, Since: before(4 * time.Minute),
			},
			{
				Service: endpoints.Service{
					Name: "shop", Spec: endpoints.Spec{Protocol: endpoints.HTTP,
						Routes: []endpoints.Route{
							{Host: "example.com"}, {Host: "example.com", Path: "/api"},
							{Host: "*.example.org", Path: "/shop"}, {Path: "/static"}, {Path: "/images"},
						},
					}, OK: true,
					Instances: []endpoints.Instance{passing("shop-1", "node-1", "10.0.0.11")},
					Problems:  []string{`instance "shop-1": lb-version "v 1": want letters, digits, ".", "_" and "-"`},
				},
				State: endpoints.Held, Since: before(20 * time.Second),
				Reason: "2 of 3 instances vanished from the catalog at once",
				Held:   []endpoints.Instance{passing("shop-2", "node-2", "10.0.0.12")},
			},
			{
				Service: endpoints.Service{
					Name: "stock", Spec: endpoints.Spec{Protocol: endpoints.GRPC, Routes: []endpoints.Route{{Path: "/stock.Stock"}}}, OK: true,
					Instances: []endpoints.Instance{
						{ID: "stock-1", Node: "node-1", Address: "10.0.0.11", Port: 7801, Weight: 1, Status: endpoints.Critical},
						{ID: "stock-2", Node: "node-2", Address: "10.0.0.12", Port: 7801, Weight: 1, Status: endpoints.Maintenance},
					},
					CheckOutputs: []endpoints.CheckOutput{{Node: "node-1", ID: "stock-1", Text: "dial tcp 10.0.0.11:7801: \x1b[2Jconnection refused"}, {Node: "node-2", ID: "stock-2", Text: "new disk", Maintenance: true}},
				},
				State: endpoints.Panic, Since: before(90 * time.Second), Panicking: true,
				Reason: "its only instance that is not in maintenance does not pass its checks: it gets traffic nevertheless",
			},
			{
				Service: endpoints.Service{
					Name: "users", Spec: endpoints.Spec{Protocol: endpoints.HTTP, Routes: []endpoints.Route{{Path: "/users"}}}, OK: true,
					Instances: []endpoints.Instance{
						passing("users-1", "node-1", "10.0.0.11"), passing("users-2", "node-2", "10.0.0.12"), passing("users-3", "node-3", "10.0.0.13"),
						passing("users-4", "node-4", "10.0.0.14"), passing("users-5", "node-5", "10.0.0.15"),
					},
				},
				State: endpoints.Fresh, Since: before(time.Hour),
				Ejections: []endpoints.Ejection{
					{Node: "node-1", ID: "users-1", By: endpoints.ByProbe, Reason: "connection refused", Since: before(30 * time.Second)},
					{Node: "node-2", ID: "users-2", By: endpoints.ByProbe, Reason: "no answer in time", Since: before(10 * time.Second), Kept: true},
					{Node: "node-5", ID: "users-5", By: endpoints.ByOutlier, Reason: "5 of the last 5 calls failed: 503", Since: before(5 * time.Second), Until: before(-25 * time.Second)},
				},
				Ramps: []endpoints.Ramp{{Node: "node-4", ID: "users-4", Share: 0.3}},
			},
			{
				Service: endpoints.Service{Name: "strange", Problems: []string{`lb-protocol "smtp", want one of grpc, grpcs, http, https, tcp`}, Instances: []endpoints.Instance{passing("strange-1", "node-1", "10.0.0.21")}},
				State:   endpoints.Quarantined, Since: before(50 * time.Hour),
				Reason: `not served, because there is no earlier good state: instance "strange-1": lb-protocol "smtp", want one of grpc, grpcs, http, https, tcp`,
			},
			{
				Service: endpoints.Service{
					Name: "twin", Spec: endpoints.Spec{Protocol: endpoints.GRPC}, OK: true,
					Problems:  []string{`service "hello_server" already gets all grpc requests that match no route, so "twin" does not: want lb-host or lb-path`},
					Instances: []endpoints.Instance{passing("twin-1", "node-1", "10.0.0.31")},
				},
				State: endpoints.Fresh, Since: before(10 * time.Second),
			},
		},
		routing: controller.Routing{Generation: 42, InForce: true, Listeners: []routing.Listener{
			{Name: "grpc", Protocol: endpoints.GRPC, Addresses: []string{"0.0.0.0:5000", "[::]:5000"}, Ways: []routing.Way{
				{Route: endpoints.Route{Path: "/stock.Stock"}, Service: "stock", Upstream: "grpc-stock"},
				{Route: endpoints.Route{}, Service: "hello_server", Upstream: "grpc-hello_server"},
			}},
			{Name: "http", Protocol: endpoints.HTTP, Addresses: []string{"0.0.0.0:8080", "127.0.0.1:80"}, Ways: []routing.Way{
				{Route: endpoints.Route{Host: "example.com", Path: "/api"}, Service: "shop", Upstream: "http-shop"},
				{Route: endpoints.Route{Host: "example.com"}, Service: "shop", Upstream: "http-shop"},
				{Route: endpoints.Route{Path: "/users", Method: "POST", Headers: "x-version=v2"}, Service: "shop", Upstream: "http-shop"},
				{Route: endpoints.Route{Path: "/users"}, Service: "users", Upstream: "http-users"},
			}},
			{Name: "plain", Protocol: endpoints.HTTP, Addresses: []string{"127.0.0.1:81"}, Redirect: 8443, Ways: []routing.Way{}},
			{Name: "tcp", Protocol: endpoints.TCP, Addresses: []string{"0.0.0.0:6379"}, Ways: []routing.Way{{Service: "cache", Upstream: "tcp-cache"}}},
		}},
		held: 1,
		generations: []nginx.Generation{
			{Number: 43, Created: before(2 * time.Minute)}, // nginx refused it
			{Number: 42, Created: before(4 * time.Minute), Served: before(4 * time.Minute), Note: note("hello_server +2", 3, 4)},
			{Number: 41, Created: before(26 * time.Hour), Served: before(26 * time.Hour), Note: note("new service shop +1", 2, 2)},
			{Number: 40, Created: before(27 * time.Hour), Served: before(27 * time.Hour), Note: note("the first configuration", 1, 1)},
		},
		current: 42,
		files: map[int]map[string][]byte{
			40: {"nginx.conf": []byte("events {}\n")},
			41: {"nginx.conf": []byte("http {\n    include grpc.conf;\n}\n"), "grpc.conf": []byte("upstream hello {\n    server 10.0.0.11:7777;\n}\n"), "old.conf": []byte("# old\n")},
			42: {"nginx.conf": []byte("http {\n    include grpc.conf;\n}\n"), "grpc.conf": []byte("upstream hello {\n    server 10.0.0.11:7777;\n    server 10.0.0.12:7777;\n}\n"), "new.conf": []byte("# new\n")},
			43: {"nginx.conf": []byte("foo;\n")},
		},
	}
}

// start serves the daemon's API at a socket and returns its run directory.
func (d *fakeDaemon) start(t *testing.T) string { return serve(t, d) }

// answerer has all methods that an admin server calls.
type answerer interface {
	admin.Controller
	admin.Services
	admin.Generations
}

func serve(t *testing.T, d answerer) string {
	runDir := shortDir(t)
	serveAt(t, d, runDir)
	return runDir
}

func serveAt(t *testing.T, d answerer, runDir string) {
	t.Helper()
	listener, err := admin.ListenUnix(daemon.SocketPath(runDir))
	require.NoError(t, err)
	serveOn(t, d, listener)
}

func serveOn(t *testing.T, d answerer, listener net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	server := &admin.Server{Controller: d, Services: d, Generations: d, Logger: slog.New(slog.DiscardHandler)}
	server.Handlers = map[string]http.Handler{"GET /v1/logs": requestsOf(t, d.History, d.Entries())}
	server.Denies = func(address netip.Addr, service string) string {
		if address.Is4() && service == "users" {
			return "203.0.113.0/24 is denied for users by alice@ops-1: a flood"
		}
		if f, ok := d.(*fakeDaemon); ok && !address.IsValid() && service == f.closed && f.closed != "" {
			return "0.0.0.0/0 is denied for " + service + " by alice@ops-1"
		}
		return ""
	}
	server.Authenticates = func(_ context.Context, q access.Question) access.Answer {
		return map[string]access.Answer{
			"lbk_good":  {Status: 204, Key: "partner"},
			"lbk_over":  {Status: 401, Key: "partner"},
			"lbk_other": {Status: 403, Key: "partner"},
			"lbk_busy":  {Status: 503},
			"":          {Status: 401},
			"lbk_wrong": {Status: 401},
		}[q.APIKey]
	}
	server.Denials = func(service string) int {
		if service == "users" {
			return 2
		}
		return 0
	}
	go func() { done <- server.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
}

// shortDir returns a directory for sockets, because t.TempDir's path is too long.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lb")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// result is the result of a command line.
type result struct {
	out, err string
	code     int
}

func command(ctx context.Context, terminal Terminal, environ []string, args ...string) result {
	var out, err bytes.Buffer
	code := Main(ctx, System{
		Args: args, Out: &out, Err: &err, Environ: environ, Terminal: terminal,
		Now: func() time.Time { return now },
	})
	return result{out.String(), err.String(), code}
}

// golden compares a result with a file of testdata.
func golden(t *testing.T, name, line string, got result) {
	t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "$ %s\n%s", line, got.out)
	if got.err != "" {
		fmt.Fprintf(&text, "=== standard error\n%s", got.err)
	}
	fmt.Fprintf(&text, "=== exit code %d\n", got.code)
	path := filepath.Join("testdata", name+".txt")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update to make it")
	assert.Equal(t, string(want), text.String())
}

var (
	narrow   = Terminal{Width: 80, Height: 24}
	coloured = Terminal{Width: 120, Height: 40, Colour: true}
)

func degraded(d *fakeDaemon) {
	d.status.State = controller.Degraded
	d.status.Summary = "nginx serves generation 42 of 09:12:03, not the newest: nginx -t: unknown directive \"foo\" in http.conf:12"
	d.status.Nginx.OldWorkers = 3
	d.status.Nginx.OldWorkersSince, d.status.Nginx.OldWorkersMemory = before(4*time.Minute), 21<<20
	d.status.Pending = &controller.PendingChange{Since: before(time.Minute), Change: "nginx's configuration", Reason: "nginx refused it; next attempt at 09:17:02"}
	d.status.LastApply.Outcome, d.status.LastApply.At = history.Rejected, before(3*time.Second)
	d.status.Problems = []render.Problem{
		{Subject: "nginx", Message: "generation 43: configuration refused: nginx -t: unknown directive \"foo\" in http.conf:12 (3 attempts, the next at 09:17:02)", Since: before(time.Minute)},
		{Subject: "service strange", Message: "lb-protocol \"smtp\": want one of grpc, grpcs, http, https, tcp\nlb-path \"x\": want a path"},
	}
}

// moved makes a change of instances that nginx has yet to fetch.
func moved(d *fakeDaemon) {
	reloaded(d)
	d.status.State = controller.Pending
	d.status.Summary = "nginx serves generation 42; a change is on its way (hello_server +1)"
	d.status.Pending = &controller.PendingChange{Since: before(time.Second), Change: "hello_server +1", Reason: "nginx has yet to fetch it"}
}

// reloaded makes an nginx whose new workers have not asked yet.
func reloaded(d *fakeDaemon) { d.status.Endpoints.Unfetched = []string{"grpc-hello_server"} }

func oldNginx(d *fakeDaemon) {
	d.status.Nginx.Version, d.status.Nginx.Workers = "1.22.1", 1
	d.status.Nginx.WorkersReason = "nginx 1.22.1 can fail gRPC calls at reloads when it has more, want 1.27.1 or later"
	d.status.Endpoints = controller.EndpointsStatus{By: "reload", Reason: "nginx 1.22.1 can't ask for the servers of its upstreams, want 1.27.3 or later"}
}

func certified(d *fakeDaemon) {
	d.status.Certificates = []certificates.Certificate{
		{Name: "api", Hosts: []string{"api.example.com"}, NotBefore: before(24 * time.Hour), NotAfter: now.Add(80 * 24 * time.Hour)},
		{Name: "shop", Hosts: []string{"shop.example.com"}, NotBefore: before(24 * time.Hour), NotAfter: now.Add(5*24*time.Hour + time.Hour)},
	}
	d.status.Problems = []render.Problem{{Subject: "certificate shop", Message: "it expires at 2026-11-26 10:16 UTC, which is in less than two weeks", Since: before(9 * 24 * time.Hour)}}
}

func frozen(d *fakeDaemon) {
	d.current = 41
	d.status.State = controller.Frozen
	d.status.Summary = "nginx serves generation 41, pinned by a rollback at 09:10:30; a change waits (hello_server +2); 'lbctl resume' follows Consul again"
	d.status.Nginx.Generation = 41
	d.status.Frozen = &controller.Pin{Generation: 41, Since: before(6 * time.Minute)}
	d.status.Pending = &controller.PendingChange{Since: before(6 * time.Minute), Change: "hello_server +2", Reason: "generation 41 is pinned"}
}

func TestStatusOfAPinWithoutADate(t *testing.T) {
	d := newFakeDaemon()
	frozen(d)
	d.status.Frozen.Since = time.Time{}
	got := command(t.Context(), Terminal{}, []string{"LBCTL_RUN_DIR=" + d.start(t)}, "status")
	assert.Contains(t, got.out, "\nPinned       generation 41; 'lbctl resume' follows Consul again\n")
}

func TestExplainInJSON(t *testing.T) {
	d := newFakeDaemon()
	withPolicy(d)
	got := command(t.Context(), Terminal{}, []string{"LBCTL_RUN_DIR=" + d.start(t)}, "explain", "http://example.com/api/x", "-o", "json")
	require.Zero(t, got.code, got.err)
	var e admin.Explanation
	require.NoError(t, json.Unmarshal([]byte(got.out), &e))
	assert.Equal(t, admin.ResultService, e.Result)
	assert.Equal(t, "shop", e.Service)
	assert.Equal(t, "/api", e.Taken.Path)
	assert.Equal(t, "its path is shorter", e.Lost[0].Reason)
	assert.Len(t, e.Instances, 2)
	sources := map[string]string{}
	for _, f := range e.Policy {
		sources[f.Name] = f.Value + " from " + f.Source
	}
	assert.Len(t, sources, len(e.Policy))
	assert.Equal(t, "9s from metadata", sources["timeout.read"])
	assert.Equal(t, "3s from lb/service/shop for /api", sources["timeout.send"])
	assert.Equal(t, "500ms from built in", sources["timeout.connect"])
}

// olderRoutes has a generation that lbctl has not made itself.
func olderRoutes(d *fakeDaemon) { d.routing.InForce = false }

// withHealth has lbctl answer HTTP requests for the health of services, and the calls of gRPC's health
// service that no service gets.
func withHealth(d *fakeDaemon) {
	d.routing.Listeners = slices.Clone(d.routing.Listeners)
	for n, route := range []endpoints.Route{{Path: "/grpc.health.v1.Health"}, {Path: "/health", Exact: true}} {
		l := &d.routing.Listeners[n]
		l.Ways = append(slices.Clone(l.Ways), routing.Way{Route: route, Health: true, Networks: []string{"10.0.0.0/8", "fd00::/8"}})
	}
}

// withPolicy gives shop a policy.
func withPolicy(d *fakeDaemon) {
	var said, wanted policy.Document
	for _, err := range []error{said.Set("timeout.read", "9s"), wanted.SetAt("/api", "timeout.send", "3s")} {
		if err != nil {
			panic(err)
		}
	}
	setPolicy(d, "shop", policy.Resolve(policy.Layer{Source: policy.SourceMetadata, Document: said}, policy.Layer{Source: "lb/service/shop", Document: wanted}))
}

// setPolicy gives a service a policy, which nginx applies.
func setPolicy(d *fakeDaemon, service string, p policy.Settings) {
	for n := range d.entries {
		if d.entries[n].Name == service {
			d.entries[n].Policy = p
		}
	}
	for _, l := range d.routing.Listeners {
		for n := range l.Ways {
			if l.Ways[n].Service == service {
				l.Ways[n].Policy = p
			}
		}
	}
}

// byOperator returns a function that gives a service fields in the operator's policy for it.
func byOperator(service string, fields ...string) func(*fakeDaemon) {
	return func(d *fakeDaemon) {
		setPolicy(d, service, policy.Resolve(policytest.Layer(policy.LevelService, "lb/service/"+service, fields...)))
	}
}

// leftOut has a policy of which nginx can't apply a part.
func leftOut(d *fakeDaemon) {
	said := policytest.Settings("timeout.read", "9s", "sticky.cookie", "shop")
	setPolicy(d, "shop", said)
	ways := d.routing.Listeners[1].Ways
	usable, problems := said.For("http", "1.22.1", func(string) bool { return false })
	ways[0].Policy = usable
	for _, p := range problems {
		ways[0].LeftOut = append(ways[0].LeftOut, p.Message)
	}
}

// allOut takes all instances of stock out of the rotation.
func allOut(d *fakeDaemon) {
	stock := &d.entries[2]
	stock.Panicking, stock.State, stock.Reason = false, endpoints.Fresh, ""
}

// twoNodes has an instance with the same ID on two nodes.
func twoNodes(d *fakeDaemon) {
	shop := &d.entries[1]
	second := shop.Instances[0]
	second.Node, second.Address = "node-2", "10.0.0.12"
	shop.Instances, shop.Held = append(shop.Instances, second), nil
}

func down(d *fakeDaemon) {
	d.serving = errors.New("nginx is not running: nobody listens at its socket")
	d.status.State = controller.Down
	d.status.Summary = "nginx does not answer; it will serve generation 42 once it answers: nginx is not running"
	d.status.Nginx = controller.Nginx{Version: "1.30.6"}
	d.status.Consul = consul.Status{Address: "127.0.0.1:8500", LastError: "Consul at 127.0.0.1:8500 does not answer: connection refused", Since: before(time.Minute)}
	d.status.LastApply = nil
}

func empty(d *fakeDaemon) {
	*d = fakeDaemon{status: controller.Status{State: controller.Starting, Summary: "nginx serves nothing yet: Consul has not answered yet", Version: "1.2.3", Started: before(time.Second), Nginx: controller.Nginx{Version: "1.30.6"}, Consul: consul.Status{Address: "127.0.0.1:8500"}}}
}

// TestCommands compares the output of every command with golden files. Read their difference
// before you commit them: users see this text.
func TestCommands(t *testing.T) {
	for _, test := range []struct {
		golden   string
		line     string
		change   func(*fakeDaemon)
		terminal Terminal
		environ  []string
	}{
		{golden: "help", line: "lbctl"},
		{golden: "help-status", line: "lbctl help status"},
		{golden: "help-services", line: "lbctl services --help"},
		{golden: "help-history", line: "lbctl history --help"},
		{golden: "help-run", line: "lbctl run --help"},
		{golden: "help-policy", line: "lbctl policy"},
		{golden: "help-policy-set", line: "lbctl policy set --help"},
		{golden: "help-unknown", line: "lbctl help nope"},
		{golden: "unknown-command", line: "lbctl stauts"},
		{golden: "unknown-flag", line: "lbctl status --quick"},
		{golden: "unknown-argument", line: "lbctl status now please"},
		{golden: "bad-output", line: "lbctl status -o xml"},
		{golden: "bad-addr", line: "lbctl status --addr ftp://x"},
		{golden: "status", line: "lbctl status"},
		{golden: "status-json", line: "lbctl status -o json"},
		{golden: "status-yaml", line: "lbctl status -o yaml"},
		{golden: "status-colour", line: "lbctl status", terminal: coloured},
		{golden: "status-moved", line: "lbctl status", change: moved},
		{golden: "status-reloaded", line: "lbctl status", change: reloaded},
		{golden: "status-old-nginx", line: "lbctl status", change: oldNginx},
		{golden: "status-certificates", line: "lbctl status", change: certified},
		{golden: "status-degraded", line: "lbctl status", change: degraded},
		{golden: "status-degraded-narrow", line: "lbctl status", change: degraded, terminal: narrow},
		{golden: "status-degraded-json", line: "lbctl status -o json", change: degraded},
		{golden: "status-frozen", line: "lbctl status", change: frozen},
		{golden: "status-down", line: "lbctl status", change: down},
		{golden: "status-starting", line: "lbctl status", change: empty},
		{golden: "status-modes", line: "lbctl status --watch --ready"},
		{golden: "status-ready", line: "lbctl status --ready"},
		{golden: "status-ready-down", line: "lbctl status --ready", change: down},
		{golden: "status-wait", line: "lbctl status --wait 60s"},
		{golden: "status-wait-degraded", line: "lbctl status --wait 1ms", change: degraded},
		{golden: "status-wait-frozen", line: "lbctl status --wait 60s", change: frozen},
		{golden: "services", line: "lbctl services"},
		{golden: "services-maintenance", line: "lbctl services", change: byOperator("hello_server", "maintenance.enabled", "on")},
		{golden: "service-maintenance", line: "lbctl services hello_server", change: byOperator("hello_server", "maintenance.enabled", "on")},
		{golden: "instance-maintenance", line: "lbctl services hello_server hello_server-7c2f", change: byOperator("hello_server", "maintenance.enabled", "on")},
		{golden: "services-narrow", line: "lbctl services", terminal: narrow},
		{golden: "services-colour", line: "lbctl services", terminal: coloured},
		{golden: "services-json", line: "lbctl services -o json"},
		{golden: "services-none", line: "lbctl services", change: empty},
		{golden: "services-none-json", line: "lbctl services -o json", change: empty},
		{golden: "routes", line: "lbctl routes"},
		{golden: "routes-json", line: "lbctl routes -o json"},
		{golden: "routes-older", line: "lbctl routes", change: olderRoutes},
		{golden: "routes-health", line: "lbctl routes", change: withHealth},
		{golden: "explain-health", line: "lbctl explain http://localhost/health", change: withHealth},
		{golden: "explain-health-denied", line: "lbctl explain http://localhost/health --from 192.0.2.1", change: withHealth},
		{golden: "explain-health-lost", line: "lbctl explain grpc://localhost/grpc.health.v1.Health/Check", change: withHealth},
		{golden: "help-explain", line: "lbctl explain --help"},
		{golden: "explain", line: "lbctl explain http://example.com:8080/%61pi/x?q -X PUT", change: withPolicy},
		{golden: "explain-json", line: "lbctl explain http://example.com/nothing/../%zz -o json"},
		{golden: "explain-lost", line: "lbctl explain http://localhost/users -H x-version:v1"},
		{golden: "explain-grpc", line: "lbctl explain grpc://localhost:5000/protos.Ping/SayHello"},
		{golden: "explain-no-route", line: "lbctl explain http://localhost/nothing"},
		{golden: "explain-no-instance", line: "lbctl explain grpc://localhost/stock.Stock/Count", change: allOut},
		{golden: "explain-refused", line: "lbctl explain http://localhost/%zz"},
		{golden: "explain-redirect", line: "lbctl explain http://localhost:81/x", change: olderRoutes, terminal: narrow},
		{golden: "explain-denied", line: "lbctl explain http://localhost/users --from 203.0.113.7"},
		{golden: "explain-all-denied", line: "lbctl explain grpc://localhost/stock.Stock/Count", change: func(d *fakeDaemon) { d.closed = "stock" }},
		{golden: "explain-policy-redirect", line: "lbctl explain http://example.com/api/x?y", change: byOperator("shop", "redirect.host", "www.example.com", "redirect.code", "308")},
		{golden: "explain-preflight", line: "lbctl explain http://example.com/api/x -X OPTIONS -H Origin:https://a.test -H Access-Control-Request-Method:PUT", change: byOperator("shop", "cors.allow-origins", "https://a.test")},
		{golden: "explain-prefix", line: "lbctl explain http://example.com/%61pi/x", change: byOperator("shop", "path.replace-prefix", "/")},
		{golden: "explain-maintenance", line: "lbctl explain grpc://localhost/protos.Ping/SayHello", change: byOperator("hello_server", "maintenance.enabled", "on")},
		{golden: "explain-no-key", line: "lbctl explain grpc://localhost/protos.Ping/SayHello", change: byOperator("hello_server", "auth.keys", "on", "auth.basic", "on")},
		{golden: "explain-key-good", line: "lbctl explain grpc://localhost/protos.Ping/SayHello -H x-api-key:lbk_good", change: byOperator("hello_server", "auth.keys", "on")},
		{golden: "explain-key-wrong", line: "lbctl explain grpc://localhost/protos.Ping/SayHello -H x-api-key:lbk_wrong", change: byOperator("hello_server", "auth.keys", "on", "auth.basic", "on")},
		{golden: "explain-key-over", line: "lbctl explain http://example.com/api/x -H X-API-Key:lbk_over", change: byOperator("shop", "auth.keys", "on")},
		{golden: "explain-key-of-others", line: "lbctl explain grpc://localhost/protos.Ping/SayHello -H x-api-key:lbk_other", change: byOperator("hello_server", "auth.keys", "on")},
		{golden: "explain-key-unknown", line: "lbctl explain grpc://localhost/protos.Ping/SayHello -H x-api-key:lbk_busy", change: byOperator("hello_server", "auth.keys", "on")},
		{golden: "explain-external", line: "lbctl explain http://example.com/api/x", change: byOperator("shop", "auth.external", "users")},
		{golden: "explain-external-gone", line: "lbctl explain http://example.com/api/x", change: byOperator("shop", "auth.external", "authz")},
		{golden: "explain-left-out", line: "lbctl explain http://example.com/api/x", change: leftOut},
		{golden: "explain-let-in", line: "lbctl explain grpc://localhost/protos.Ping/SayHello --from ::1"},
		{golden: "explain-bad-from", line: "lbctl explain http://localhost/users --from localhost"},
		{golden: "explain-bad-url", line: "lbctl explain localhost:5000/x"},
		{golden: "explain-bad-port", line: "lbctl explain http://localhost:5000/x"},
		{golden: "explain-no-listener", line: "lbctl explain https://localhost/x"},
		{golden: "explain-bad-header", line: "lbctl explain http://localhost/x -H nothing"},
		{golden: "explain-nothing", line: "lbctl explain"},
		{golden: "service", line: "lbctl services hello_server"},
		{golden: "service-panic", line: "lbctl services stock"},
		{golden: "service-ejected", line: "lbctl services users"},
		{golden: "service-ejected-json", line: "lbctl services users -o json"},
		{golden: "service-held", line: "lbctl services shop"},
		{golden: "service-held-narrow", line: "lbctl services shop", terminal: narrow},
		{golden: "service-quarantined", line: "lbctl services strange"},
		{golden: "service-json", line: "lbctl services shop -o json"},
		{golden: "service-unknown", line: "lbctl services nope"},
		{golden: "service-mistyped", line: "lbctl services stocks"},
		{golden: "service-unrouted", line: "lbctl services twin"},
		{golden: "services-too-many", line: "lbctl services a b c"},
		{golden: "instance", line: "lbctl services shop shop-2"},
		{golden: "instance-node", line: "lbctl services users node-1/users-1"},
		{golden: "instance-unknown", line: "lbctl services users nope"},
		{golden: "instance-mistyped", line: "lbctl services users user-1"},
		{golden: "instance-ambiguous", line: "lbctl services shop shop-1", change: twoNodes},
		{golden: "history", line: "lbctl history"},
		{golden: "history-narrow", line: "lbctl history", terminal: narrow},
		{golden: "history-limit", line: "lbctl history --limit 2"},
		{golden: "history-json", line: "lbctl history --limit 2 -o json"},
		{golden: "history-none", line: "lbctl history", change: empty},
		{golden: "history-none-json", line: "lbctl history -o json", change: empty},
		{golden: "diff", line: "lbctl diff"},
		{golden: "diff-colour", line: "lbctl diff", terminal: coloured},
		{golden: "diff-one", line: "lbctl diff 40"},
		{golden: "diff-same", line: "lbctl diff 42 42"},
		{golden: "diff-json", line: "lbctl diff 41 42 -o json"},
		{golden: "diff-unknown", line: "lbctl diff 7"},
		{golden: "diff-none", line: "lbctl diff", change: empty},
		{golden: "diff-bad", line: "lbctl diff x 0"},
		{golden: "rollback", line: "lbctl rollback"},
		{golden: "rollback-again", line: "lbctl rollback", change: frozen},
		{golden: "rollback-number", line: "lbctl rollback 40"},
		{golden: "rollback-json", line: "lbctl rollback 40 -o json"},
		{golden: "rollback-unknown", line: "lbctl rollback 7"},
		{golden: "rollback-none", line: "lbctl rollback", change: empty},
		{golden: "rollback-refused", line: "lbctl rollback", change: func(d *fakeDaemon) {
			d.refuse = errors.New("generation 41: configuration refused: nginx -t: host not found in upstream \"api\" in http.conf:7")
		}},
		{golden: "resume", line: "lbctl resume", change: frozen},
		{golden: "resume-not-frozen", line: "lbctl resume"},
		{golden: "resume-wait", line: "lbctl resume --wait 10s"},
		{golden: "resume-wait-too-short", line: "lbctl resume --wait 1ms", change: frozen},
		{golden: "rollback-wait", line: "lbctl rollback 41 --wait 10s", change: frozen},
		{golden: "resume-json", line: "lbctl resume -o json", change: frozen},
		{golden: "accept", line: "lbctl accept"},
		{golden: "accept-none", line: "lbctl accept", change: empty},
		{golden: "accept-service", line: "lbctl accept shop"},
		{golden: "accept-unknown", line: "lbctl accept shops"},
		{golden: "accept-wait-too-short", line: "lbctl accept --wait 1ms"},
		{golden: "accept-json", line: "lbctl accept -o json"},
		{golden: "completion-nothing", line: "lbctl completion"},
		{golden: "complete-services", line: "lbctl __complete services h"},
		{golden: "complete-instances", line: "lbctl __complete services users "},
		{golden: "complete-instances-of-two-nodes", line: "lbctl __complete services shop ", change: twoNodes},
		{golden: "complete-output", line: "lbctl __complete history -o "},
		{golden: "complete-urls", line: "lbctl __complete explain "},
		{golden: "complete-url-again", line: "lbctl __complete explain http://localhost/ "},
		{golden: "complete-generations", line: "lbctl __complete rollback "},
		{golden: "run-mistakes", line: "lbctl run --workers=none --admin 9119 --settle-min 3s",
			environ: []string{"LBCTL_GRPC_LISTEN=localhost:5000", "LBCTL_LOG_LEVEL=loud"}},
		{golden: "certificate-none", line: "lbctl certificate create --days 0"},
		{golden: "certificate-hosts", line: "lbctl certificate create --out /nowhere a_b.test a:80"},
		{golden: "certificate-unknown", line: "lbctl certificate list"},
		{golden: "run-listeners", line: "lbctl run --listener tls=https://:8444 --listener a=htp://:81 --listener b=http://x:1?proxy_protocol=on&hsts=1 --listener c --trusted-proxies 10.0.0.1/8 --certificates /nowhere"},
		{golden: "run-listeners-together", line: "lbctl run --grpc-listen :5001 --listener grpc=grpc://:5002 --listener tls=https://:8444 --listener tls=off --listener htp=off --listener b=http://:8080?proxy-protocol=on", environ: []string{"LBCTL_LISTENER=ignored"}},
		{golden: "run-ports", line: "lbctl run --http-listen 127.0.0.1:5000 --settle-min 3s", environ: []string{"LBCTL_SETTLE_MAX=1s"}},
	} {
		t.Run(test.golden, func(t *testing.T) {
			t.Parallel()
			daemon := newFakeDaemon()
			if test.change != nil {
				test.change(daemon)
			}
			environ := append([]string{"LBCTL_RUN_DIR=" + daemon.start(t)}, test.environ...)
			got := command(context.Background(), test.terminal, environ, strings.Split(test.line, " ")[1:]...)
			golden(t, test.golden, test.line, got)
		})
	}
}
