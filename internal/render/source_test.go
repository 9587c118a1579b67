package render

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"lbctl/internal/consultest"
	"lbctl/internal/endpoints"
	"lbctl/internal/testlog"
)

// patience is long because test machines are loaded; only failures take that long.
const patience = 30 * time.Second

// running is a running Source.
type running struct {
	*Source
	t *testing.T
}

func run(t *testing.T, consul *consultest.Server, change ...func(*Options)) running {
	t.Helper()
	opts := Options{Settings: testSettings("1.30.6"), Consul: consul.Config()}
	for _, c := range change {
		c(&opts)
	}
	s, err := New(opts)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			assert.NoError(t, err)
		case <-time.After(patience):
			t.Error("Run did not end with its context")
		}
	})
	return running{s, t}
}

// await receives configurations until one fits.
func (r running) await(what string, fits func(Configuration) bool) Configuration {
	r.t.Helper()
	deadline := time.After(patience)
	last := "none"
	for {
		select {
		case c := <-r.Updates():
			if fits(c) {
				return c
			}
			last = text(c)
		case <-deadline:
			r.t.Fatalf("no configuration %s within %s; problems: %v; the last one was:\n%s", what, patience, r.Status().Problems, last)
		}
	}
}

// awaitServer receives configurations until one has the server.
func (r running) awaitServer(address string) Configuration {
	r.t.Helper()
	return r.await("with server "+address, func(c Configuration) bool { return hasServer(c, address) })
}

func hasServer(c Configuration, address string) bool {
	for _, content := range c.Files {
		if bytes.Contains(content, []byte("server "+address+" ")) {
			return true
		}
	}
	return false
}

// awaitProblem waits until the status has a problem with both texts.
func (r running) awaitProblem(subject, message string) Problem {
	r.t.Helper()
	var found Problem
	consultest.Eventually(r.t, patience, func() (bool, string) {
		problems := r.Status().Problems
		for _, p := range problems {
			if strings.Contains(p.Subject, subject) && strings.Contains(p.Message, message) {
				found = p
				return true, ""
			}
		}
		return false, fmt.Sprintf("no problem of %q with %q among %v", subject, message, problems)
	})
	return found
}

func (r running) awaitNoProblems() {
	r.t.Helper()
	consultest.Eventually(r.t, patience, func() (bool, string) {
		problems := r.Status().Problems
		return len(problems) == 0, fmt.Sprint(problems)
	})
}

// nothingNew checks that an observed change gave no configuration.
func (r running) nothingNew() {
	r.t.Helper()
	select {
	case c := <-r.Updates():
		r.t.Fatalf("a configuration came, want none:\n%s", text(c))
	default:
	}
}

func register(t *testing.T, consul *consultest.Server, service, id string, port int, tags []string, meta map[string]string) {
	t.Helper()
	require.NoError(t, consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: service, ID: id, Address: "127.0.0.1", Port: port, Tags: tags, Meta: meta,
		Check: &api.AgentServiceCheck{CheckID: id, TTL: "1h", Status: api.HealthPassing},
	}))
}

func registerGRPC(t *testing.T, consul *consultest.Server, service, id string, port int) {
	t.Helper()
	register(t, consul, service, id, port, []string{"grpc_server"}, nil)
}

// listening returns the port of a gRPC server, which a second look finds.
func listening(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	t.Cleanup(server.Stop)
	go server.Serve(listener)
	return listener.Addr().(*net.TCPAddr).Port
}

func server(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func TestAnEmptyConsulRenders(t *testing.T) {
	r := run(t, consultest.Start(t))
	c := r.await("at all", func(Configuration) bool { return true })
	assert.Empty(t, c.Entries)
	assert.Empty(t, c.Problems)
	assert.Len(t, c.Hash, 64)
	r.awaitNoProblems()
	consultest.Eventually(t, patience, func() (bool, string) {
		consul := r.Status().Consul
		return consul.Reachable && consul.Leader != "" && consul.LastError == "", fmt.Sprint(consul)
	})
}

func TestInstancesComeAndGo(t *testing.T) {
	consul := consultest.Start(t)
	r := run(t, consul)
	r.await("at all", func(Configuration) bool { return true })

	began := time.Now()
	registerGRPC(t, consul, "hello_server", "one", 7001)
	c := r.awaitServer(server(7001))
	t.Logf("registered to rendered: %s", time.Since(began))
	require.Len(t, c.Entries, 1)
	assert.Equal(t, endpoints.Fresh, c.Entries[0].State)

	registerGRPC(t, consul, "hello_server", "two", 7002)
	r.awaitServer(server(7002))

	require.NoError(t, consul.Client().Agent().EnableServiceMaintenance("one", "leaving"))
	r.await("without the one in maintenance", func(c Configuration) bool {
		return hasServer(c, server(7002)) && !hasServer(c, server(7001))
	})
	require.NoError(t, consul.Client().Agent().UpdateTTL("two", "gone", api.HealthCritical))
	c = r.await("with a last server that is tried", func(c Configuration) bool { return c.Entries[0].State == endpoints.Panic })
	assert.True(t, hasServer(c, server(7002)))
	assert.False(t, hasServer(c, server(7001)))
	assert.Equal(t, "the check of two says: gone", c.Entries[0].FailingCheck())
	r.awaitProblem("service hello_server", "panic: its only instance that is not in maintenance does not pass its checks: it gets traffic nevertheless")
	require.NoError(t, consul.Client().Agent().EnableServiceMaintenance("two", "leaving"))
	c = r.await("without any server", func(c Configuration) bool { return !hasServer(c, server(7002)) })
	assert.Contains(t, string(c.Files["grpc.conf"]), "return 503;")

	require.NoError(t, consul.Client().Agent().ServiceDeregister("one"))
	require.NoError(t, consul.Client().Agent().ServiceDeregister("two"))
	r.await("without the service", func(c Configuration) bool { return len(c.Entries) == 0 })
	r.awaitNoProblems()
}

func TestAConfigurationSaysWhenConsulAnswered(t *testing.T) {
	consul := consultest.Start(t)
	registerGRPC(t, consul, "hello_server", "one", listening(t))
	r := run(t, consul)
	r.await("at all", func(c Configuration) bool { return len(c.Entries) == 1 })
	r.awaitNoProblems()

	began := time.Now()
	port := listening(t)
	registerGRPC(t, consul, "hello_server", "two", port)
	c := r.awaitServer(server(port))
	assert.False(t, c.Seen.Before(began), "seen %s before the change", began.Sub(c.Seen))
	assert.False(t, c.Seen.After(time.Now()))

	r.table.Eject("hello_server", server(port), endpoints.Ejection{Node: c.Entries[0].Instances[0].Node, ID: "two", By: endpoints.ByProbe})
	c = r.await("without the ejected one", func(c Configuration) bool { return !hasServer(c, server(port)) })
	assert.Zero(t, c.Seen, "Consul said nothing")
}

func TestAConfigurationThatNobodyReceivedIsReplaced(t *testing.T) {
	s := &Source{updates: make(chan Configuration, 1)}
	first, second := time.Now(), time.Now().Add(time.Second)
	s.seen = first
	s.publish(Configuration{Hash: "a"})
	s.seen = second
	s.publish(Configuration{Hash: "a", PolicyIndex: 1}) // the same files
	s.seen = time.Time{}
	s.publish(Configuration{Hash: "b"})
	got := <-s.updates
	assert.Equal(t, Configuration{Hash: "b", Seen: first, Replaced: 1}, got)
}

func TestAServiceWithAnInvalidNameIsOnlyAProblem(t *testing.T) {
	consul := consultest.Start(t)
	r := run(t, consul)
	for n, name := range []string{`bad;} name|x`, "tag.service", "dc@other", "service~near", "s?ns=x", "ü", strings.Repeat("x", 300)} {
		_, err := consul.Client().Catalog().Register(&api.CatalogRegistration{
			Node: "elsewhere", Address: "127.0.0.1",
			Service: &api.AgentService{ID: fmt.Sprintf("strange-%d", n), Service: name, Port: 1, Tags: []string{"grpc_server"}},
		}, nil)
		require.NoError(t, err)
	}
	registerGRPC(t, consul, "hello_server", "one", 7001)
	c := r.awaitServer(server(7001))
	assert.Len(t, c.Entries, 1)
	r.awaitProblem(`service "bad;} name|x"`, "it isn't balanced: its name has other characters")
	consultest.Eventually(t, patience, func() (bool, string) {
		problems := r.Status().Problems
		return len(problems) == 7, fmt.Sprint(problems)
	})

	registerGRPC(t, consul, "hello_server", "two", 7002)
	r.awaitServer(server(7002))
}

func TestBadMetadataAffectsItsServiceOnly(t *testing.T) {
	consul := consultest.Start(t)
	r := run(t, consul)
	register(t, consul, "web", "web-1", 7001, nil, map[string]string{"lb-protocol": "http", "lb-path": "/web"})
	r.awaitServer(server(7001))

	register(t, consul, "web", "web-1", 7001, nil, map[string]string{"lb-protocol": "http", "lb-path": "/web;}"})
	p := r.awaitProblem("service web", `lb-path "/web;}", want path prefixes`)
	assert.False(t, p.Since.IsZero())
	register(t, consul, "other", "other-1", 7002, []string{"http_server"}, nil)
	c := r.awaitServer(server(7002))
	assert.True(t, hasServer(c, server(7001)), "the last good routes are kept")
	assert.Contains(t, string(c.Files["http.conf"]), "location /web/ {")
	require.NotEmpty(t, c.Problems)
	assert.Equal(t, endpoints.Quarantined, c.Entries[1].State)

	register(t, consul, "web", "web-1", 7001, []string{"http_server"}, map[string]string{"lb-paht": "/web"})
	r.awaitProblem("service web", `its last good routes are kept: instance "web-1": unknown key "lb-paht", did you mean lb-path?`)
	entries := r.Status().Entries
	assert.Equal(t, []endpoints.Route{{Path: "/web"}}, entries[1].Routes, "it is not the default of HTTP")
	assert.True(t, entries[0].Default, "others are not hurt")

	register(t, consul, "web", "web-1", 7001, nil, map[string]string{"lb-protocol": "http", "lb-path": "/new"})
	r.await("with the new path", func(c Configuration) bool {
		return strings.Contains(string(c.Files["http.conf"]), "location /new/ {")
	})
	r.awaitNoProblems()
}

func put(t *testing.T, consul *consultest.Server, key, value string) {
	t.Helper()
	_, err := consul.Client().KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil)
	require.NoError(t, err)
}

func writeTemplate(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

func TestUserTemplatesCanQueryConsul(t *testing.T) {
	consul := consultest.Start(t)
	dir := t.TempDir()
	// It fails while the answer is empty, as at first.
	writeTemplate(t, dir, "http.d/own.conf.ctmpl",
		"# {{with key \"own/settings\" | parseJSON}}{{index .names 1}}{{end}} {{with service \"hello_server|any\"}}{{len .}}{{end}}\n")
	put(t, consul, "own/settings", `{"names": ["a", "b"]}`)
	registerGRPC(t, consul, "hello_server", "one", 7001)
	r := run(t, consul, func(o *Options) { o.TemplatesDir = dir })
	own := func(want string) {
		t.Helper()
		r.await("with "+want, func(c Configuration) bool { return string(c.Files["http.d/own.conf"]) == want+"\n" })
	}
	own("# b 1")

	put(t, consul, "own/settings", `{"names": ["a", "c"]}`)
	own("# c 1")

	put(t, consul, "own/settings", `{"names": `)
	r.awaitProblem("template http.d/own.conf.ctmpl", "line 1: ")
	registerGRPC(t, consul, "hello_server", "two", 7002)
	consultest.Eventually(t, patience, func() (bool, string) {
		entries := r.Status().Entries
		return len(entries) == 1 && len(entries[0].Instances) == 2, fmt.Sprint(entries)
	})
	r.nothingNew()

	put(t, consul, "own/settings", `{"names": ["a", "d"]}`)
	own("# d 2")
	r.awaitNoProblems()

	// A missing key stops all changes, and the problem names it.
	writeTemplate(t, dir, "http.d/own.conf.ctmpl", `# {{key "own/nowhere"}}`+"\n")
	r.awaitProblem("templates", "own/nowhere")
	put(t, consul, "own/nowhere", "here")
	own("# here")
	r.awaitNoProblems()
}

// TestNamedPipesAreRefused checks that reading a file that an operator replaced by a named pipe
// does not wait for the pipe's writer: the former content stays in use, with a problem.
func TestNamedPipesAreRefused(t *testing.T) {
	consul := consultest.Start(t)
	dir, token := t.TempDir(), filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("some-token\n"), 0o600))
	r := run(t, consul, func(o *Options) {
		o.TemplatesDir = dir
		o.Consul.TokenFile = token
	})
	registerGRPC(t, consul, "hello_server", "one", 7001)
	r.awaitServer(server(7001))

	const pipe = "it is a named pipe, want a regular file"
	require.NoError(t, os.Remove(token))
	require.NoError(t, syscall.Mkfifo(token, 0o600))
	r.awaitProblem(CredentialsSubject, "they can't be used: "+token+" is unfit: "+pipe+"; the former ones are used")
	template := filepath.Join(dir, "http.d", "pipe.conf.ctmpl")
	require.NoError(t, os.MkdirAll(filepath.Dir(template), 0o755))
	require.NoError(t, syscall.Mkfifo(template, 0o600))
	r.awaitProblem("templates", template+" is unfit: "+pipe)
	err := r.Reload(t.Context())
	assert.ErrorContains(t, err, token+" is unfit")
	assert.ErrorContains(t, err, template+" is unfit")
	registerGRPC(t, consul, "hello_server", "two", 7002)
	r.awaitServer(server(7002))

	require.NoError(t, os.Remove(token))
	require.NoError(t, os.WriteFile(token, []byte("some-token\n"), 0o600))
	require.NoError(t, os.Remove(template))
	r.awaitNoProblems()
}

func TestARepairedTemplateIsUsed(t *testing.T) {
	consul := consultest.Start(t)
	dir := t.TempDir()
	r := run(t, consul, func(o *Options) { o.TemplatesDir = dir })
	registerGRPC(t, consul, "hello_server", "one", 7001)
	r.awaitServer(server(7001))

	for _, c := range []struct{ name, content, message string }{
		{"one that does not parse", "{{if}}", "line 1: missing value for if"},
		{"one with an unknown function", "\n{{nonsense}}", `line 2: function "nonsense" not defined`},
		{"one that fails", `{{index (split "," "a") 3}}`, "line 1: at <index"},
		{"one that asks Vault", `{{with secret "x"}}{{end}}`, "lbctl talks to Consul only, not to Vault"},
		{"one that runs a command", `{{plugin "id"}}`, "a template runs no commands"},
	} {
		t.Run(c.name, func(t *testing.T) {
			writeTemplate(t, dir, "http.d/broken.conf.ctmpl", c.content)
			r.awaitProblem("template http.d/broken.conf.ctmpl", c.message)
		})
	}
	registerGRPC(t, consul, "hello_server", "two", 7002)
	consultest.Eventually(t, patience, func() (bool, string) {
		entries := r.Status().Entries
		return len(entries[0].Instances) == 2, fmt.Sprint(entries)
	})
	r.nothingNew()

	require.NoError(t, os.Remove(filepath.Join(dir, "http.d/broken.conf.ctmpl")))
	r.awaitServer(server(7002))
	r.awaitNoProblems()

	writeTemplate(t, dir, "nginx.conf.ctmpl", "events {}\n")
	r.awaitProblem("template nginx.conf.ctmpl", `without "include generation.conf;"`)
	require.NoError(t, os.Rename(dir, dir+".away"))
	r.awaitProblem("templates", "the templates that were read last are used")
	require.NoError(t, os.Rename(dir+".away", dir))
	writeTemplate(t, dir, "nginx.conf.ctmpl", "events {}\nhttp { include generation.conf; }\n")
	r.await("of the user's own", func(c Configuration) bool {
		return strings.HasPrefix(string(c.Files["nginx.conf"]), "events {}")
	})
	r.awaitNoProblems()
}

func TestConsulGoesAwayAndComesBack(t *testing.T) {
	consul := consultest.Start(t, consultest.Persistent())
	port := listening(t)
	registerGRPC(t, consul, "hello_server", "one", port)
	r := run(t, consul)
	r.awaitServer(server(port))

	consul.Stop()
	p := r.awaitProblem("consul", "does not answer")
	assert.Contains(t, p.Message, consul.Addr)
	status := r.Status()
	assert.False(t, status.Consul.Reachable)
	assert.NotEmpty(t, status.Consul.LastError)
	require.Len(t, status.Entries, 1)
	assert.Equal(t, endpoints.Stale, status.Entries[0].State)
	select {
	case c := <-r.Updates():
		assert.True(t, hasServer(c, server(port)), "the instance is still served")
	default:
	}

	consul.Start()
	consul.WaitReady()
	began := time.Now()
	registerGRPC(t, consul, "hello_server", "two", 7002)
	r.awaitServer(server(7002))
	t.Logf("registered after Consul's return to rendered: %s", time.Since(began))
	r.awaitNoProblems()
}

func TestAWipedCatalogIsHeld(t *testing.T) {
	consul := consultest.Start(t)
	one, two := listening(t), listening(t)
	registerGRPC(t, consul, "hello_server", "one", one)
	registerGRPC(t, consul, "hello_server", "two", two)
	r := run(t, consul)
	r.awaitServer(server(two))

	consul.Stop()
	consul.Start() // without data
	consul.WaitReady()
	r.awaitProblem("service hello_server", "held: all 2 instances vanished from the catalog at once")
	select {
	case c := <-r.Updates():
		assert.True(t, hasServer(c, server(one)) && hasServer(c, server(two)), text(c))
	default:
	}

	assert.Equal(t, 2, r.table.Accept(""))
	r.await("without them", func(c Configuration) bool { return len(c.Entries) == 0 })
}

func TestASnapshotThatIsTooOldIsNotServed(t *testing.T) {
	consul := consultest.Start(t, consultest.Persistent())
	path := filepath.Join(t.TempDir(), "endpoints.json")
	port := listening(t)
	registerGRPC(t, consul, "hello_server", "one", port)
	table, err := endpoints.Open(path, endpoints.Options{})
	require.NoError(t, err)
	first := run(t, consul, func(o *Options) { o.Table = table })
	first.awaitServer(server(port))
	consultest.Eventually(t, patience, func() (bool, string) {
		content, err := os.ReadFile(path)
		return err == nil && bytes.Contains(content, []byte("hello_server")), string(content)
	})

	consul.Stop()
	restored, err := endpoints.Open(path, endpoints.Options{MaxStale: time.Millisecond})
	require.NoError(t, err)
	second := run(t, consul, func(o *Options) { o.Table = restored })
	began := time.Now()
	c := second.await("without the server", func(Configuration) bool { return true })
	assert.False(t, hasServer(c, server(port)), text(c))
	assert.GreaterOrEqual(t, time.Since(began), firstAnswers-time.Second, "Consul has time to answer")
	second.awaitProblem("service hello_server", "stale: as of")

	consul.Start()
	second.awaitServer(server(port))
}

func TestASnapshotServesUntilConsulAnswers(t *testing.T) {
	consul := consultest.Start(t, consultest.Persistent())
	path := filepath.Join(t.TempDir(), "endpoints.json")
	port := listening(t)
	registerGRPC(t, consul, "hello_server", "one", port)
	table, err := endpoints.Open(path, endpoints.Options{})
	require.NoError(t, err)
	first := run(t, consul, func(o *Options) { o.Table = table })
	first.awaitServer(server(port))
	consultest.Eventually(t, patience, func() (bool, string) {
		content, err := os.ReadFile(path)
		return err == nil && bytes.Contains(content, []byte("hello_server")), string(content)
	})

	consul.Stop()
	restored, err := endpoints.Open(path, endpoints.Options{})
	require.NoError(t, err)
	second := run(t, consul, func(o *Options) { o.Table = restored })
	second.awaitProblem("consul", "does not answer")
	require.Len(t, second.Status().Entries, 1)
	assert.Equal(t, endpoints.Stale, second.Status().Entries[0].State)
	second.nothingNew() // nginx serves on; without Consul there is nothing newer
}

func TestATokenThatBecomesTooWeak(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	const enough = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" } key_prefix "lb/" { policy = "read" }`
	token := consul.NewToken(enough)
	port := listening(t)
	registerGRPC(t, consul, "hello_server", "one", port)

	var logged testlog.Buffer
	r := run(t, consul, func(o *Options) {
		o.Consul.Token = token
		o.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	r.awaitServer(server(port))
	r.awaitNoProblems()

	acl := consul.Client().ACL()
	self, _, err := acl.TokenReadSelf((&api.QueryOptions{Token: token}))
	require.NoError(t, err)
	allow := func(rules string) {
		t.Helper()
		policy, _, err := acl.PolicyRead(self.Policies[0].ID, nil)
		require.NoError(t, err)
		policy.Rules = rules
		_, _, err = acl.PolicyUpdate(policy, nil)
		require.NoError(t, err)
	}
	for _, rules := range []string{
		``,
		`service_prefix "" { policy = "read" }`,
		`service "other" { policy = "read" } node_prefix "" { policy = "read" }`,
	} {
		allow(rules)
		// Answers come only with the next change.
		registerGRPC(t, consul, "hello_server", "two", 7002)
		register(t, consul, "unrelated", "unrelated", 7003, nil, nil)
		r.awaitProblem("consul", "the token is too weak")
		r.awaitProblem("service hello_server", "held: vanished while Consul filters its answers by ACLs")
		select {
		case c := <-r.Updates():
			assert.True(t, hasServer(c, server(port)), "the instance is still served")
		default:
		}
		allow(enough)
		r.awaitServer(server(7002))
		r.awaitNoProblems()
		require.NoError(t, consul.Client().Agent().EnableServiceMaintenance("two", ""))
		r.await("without two", func(c Configuration) bool { return !hasServer(c, server(7002)) })
		require.NoError(t, consul.Client().Agent().ServiceDeregister("two"))
		require.NoError(t, consul.Client().Agent().ServiceDeregister("unrelated"))
	}
	assert.NotContains(t, logged.String(), token)
	assert.Contains(t, logged.String(), "Consul filters its answers by ACLs")
}

func TestNoConfigurationWithoutAToken(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	registerGRPC(t, consul, "hello_server", "one", 7001)
	r := run(t, consul, func(o *Options) { o.Consul.Token = "" })
	r.awaitProblem("consul", "the token is too weak")
	r.nothingNew()

	unknown := run(t, consul, func(o *Options) { o.Consul.Token = "0c2f2a4e-0000-4000-8000-000000000000" })
	unknown.awaitProblem("consul", "ACL not found")
	unknown.nothingNew()
}

func TestOnce(t *testing.T) {
	consul := consultest.Start(t)
	registerGRPC(t, consul, "hello_server", "one", 7001)
	dir := t.TempDir()
	opts := Options{Settings: testSettings("1.30.6"), Consul: consul.Config(), TemplatesDir: dir}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := Once(ctx, opts)
	require.NoError(t, err)
	assert.True(t, hasServer(c, server(7001)))

	writeTemplate(t, dir, "broken.ctmpl", `{{key "x" | parseJSON | index 1}}{{key "y"}}`)
	put(t, consul, "x", "1")
	put(t, consul, "y", "1")
	_, err = Once(ctx, opts)
	require.ErrorContains(t, err, "template broken.ctmpl: line 1:")

	consul.Stop()
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = Once(short, opts)
	require.ErrorContains(t, err, "no configuration in time: consul: Consul at "+consul.Addr+" does not answer")
}

func TestTheServersLoseAndFindTheirLeader(t *testing.T) {
	cluster := consultest.StartCluster(t, 3)
	consul := cluster.Servers[0]
	port := listening(t)
	registerGRPC(t, consul, "hello_server", "one", port)
	r := run(t, consul)
	r.awaitServer(server(port))

	cluster.StopServer(1)
	cluster.StopServer(2)
	r.awaitProblem("consul", "Consul has no leader")
	status := r.Status()
	assert.True(t, status.Consul.Reachable)
	assert.Empty(t, status.Consul.Leader)
	// A query that the leader's end has broken off fails first, as if Consul were away.
	require.Eventually(t, func() bool { return r.Status().Entries[0].State == endpoints.Stale }, patience, 5*time.Millisecond)

	cluster.StartServer(1)
	cluster.StartServer(2)
	cluster.WaitLeader()
	began := time.Now()
	registerGRPC(t, consul, "hello_server", "two", 7002)
	c := r.awaitServer(server(7002))
	t.Logf("registered after the leader's return to rendered: %s", time.Since(began))
	assert.True(t, hasServer(c, server(port)))
	r.awaitNoProblems()
}
