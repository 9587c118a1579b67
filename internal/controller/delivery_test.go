package controller

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// fakeEndpoints is a resolver whose nginx asks when the test makes it.
type fakeEndpoints struct {
	mu        sync.Mutex
	upstreams map[string][]resolver.Target // nil: Set was not called yet
	unfetched map[string]time.Time
	fetched   chan struct{}
	restarted int
	silent    bool      // nginx doesn't ask
	seen      time.Time // of the last call of Set
}

func (f *fakeEndpoints) Asks(string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.silent
}

func (f *fakeEndpoints) Set(upstreams map[string][]resolver.Target, seen time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = seen
	for name, targets := range upstreams {
		if known, ok := f.upstreams[name]; !ok || !slices.Equal(known, targets) {
			f.unfetched[name] = time.Now()
		}
	}
	f.upstreams = maps.Clone(upstreams)
}

func (f *fakeEndpoints) Unfetched() map[string]time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.unfetched)
}

func (f *fakeEndpoints) Known(upstream string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.upstreams[upstream]
	_, unfetched := f.unfetched[upstream]
	return ok && !unfetched
}

func (f *fakeEndpoints) Fetched() <-chan struct{} { return f.fetched }

func (f *fakeEndpoints) Restarted(time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restarted++
}

func (f *fakeEndpoints) restarts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.restarted
}

// take makes nginx fetch the servers of all upstreams.
func (f *fakeEndpoints) take() {
	f.mu.Lock()
	clear(f.unfetched)
	f.mu.Unlock()
	f.fetched <- struct{}{}
	time.Sleep(fetchCheckPause)
	synctest.Wait()
}

// takes makes nginx fetch the servers of these upstreams.
func (f *fakeEndpoints) takes(upstreams ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, upstream := range upstreams {
		delete(f.unfetched, upstream)
	}
}

// restart replaces nginx by one that has fetched nothing yet.
func (f *fakeEndpoints) restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for upstream := range f.upstreams {
		f.unfetched[upstream] = time.Now()
	}
}

// names returns the upstreams that have answers.
func (f *fakeEndpoints) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.upstreams))
}

// asking is bubble with an nginx that asks for its servers.
func asking(t *testing.T, test func(r *rig, f *fakeEndpoints)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, dir: dir, server: newFakeServer(), source: newFakeSource()}
		f := newFakeEndpoints()
		r.asks = f
		r.run()
		defer func() { r.end() }()
		test(r, f)
	})
}

func newFakeEndpoints() *fakeEndpoints {
	return &fakeEndpoints{unfetched: map[string]time.Time{}, fetched: make(chan struct{}, 1)}
}

// servers delivers n instances of hello. The files are the same for every n.
func (r *rig) servers(instances int) {
	const name = "grpc-hello"
	var targets []resolver.Target
	for n := range instances {
		targets = append(targets, resolver.Target{Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(7000+n)), Weight: 1})
	}
	r.source.updates <- render.Configuration{
		Hash:      "hello",
		Files:     map[string][]byte{"nginx.conf": []byte("hello")},
		Entries:   []endpoints.Entry{entry("hello", instances)},
		Upstreams: map[string][]resolver.Target{name: targets},
		Seen:      r.source.seen,
	}
	synctest.Wait()
}

func TestInstancesAreNoGeneration(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		assert.Equal(t, Serving, r.status().State)

		r.servers(3)
		s := r.status()
		assert.Equal(t, Pending, s.State, s.Summary)
		assert.Equal(t, []string{"grpc-hello"}, s.Endpoints.Unfetched)
		r.wait(2 * time.Second)
		assert.Equal(t, Pending, r.status().State, "nginx has not asked yet")
		f.take()
		s = r.status()
		assert.Equal(t, Serving, s.State, s.Summary)
		assert.Equal(t, 3, s.Instances)
		assert.Equal(t, []string{"applied 1", "moved 1"}, r.events())
		moved := r.c.History()[0]
		assert.Equal(t, "hello +2", moved.Change)
		assert.Equal(t, &moved, s.LastChange)
		assert.Equal(t, s.Nginx.Since, r.c.History()[1].Time, "one time for the apply")
		assert.InDelta(t, 2, moved.TookSeconds, 0.06, "since Consul's answer")
	})
}

func TestServersThatNginxDoesNotFetchAreAProblem(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.servers(2)
		r.wait(askPatience - time.Second)
		assert.Empty(t, r.status().Problems)
		r.wait(2 * time.Second)
		problems := r.status().Problems
		if assert.Len(t, problems, 1) {
			assert.Contains(t, problems[0].Message, `it has not fetched the newest servers of 1 upstream, among them "grpc-hello"`)
		}
		f.take()
		assert.Empty(t, r.status().Problems)
	})
}

// While a generation without the upstream is pinned, nginx does not ask for it. Its servers
// changed long before that ends.
func TestAnUpstreamIsLateOnlyAfterNginxCouldAskForIt(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.source.updates <- render.Configuration{Hash: "none", Files: map[string][]byte{"nginx.conf": []byte("none")}}
		r.wait(time.Minute)
		r.servers(1)
		f.take()
		_, err := r.c.Rollback(r.Context(), 1)
		assert.NoError(t, err)
		f.restart() // the new workers have not fetched it
		r.wait(time.Minute)
		assert.Empty(t, r.status().Problems)
		assert.NoError(t, r.c.Resume(r.Context()))
		r.wait(2 * time.Second)
		assert.Empty(t, r.status().Problems)
		r.wait(askPatience)
		problems := r.status().Problems
		if assert.Len(t, problems, 1) {
			assert.WithinDuration(t, time.Now(), problems[0].Since, askPatience+3*time.Second)
		}
	})
}

func TestAnNginxThatStopsAskingIsReloadedOnce(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.servers(2)
		r.wait(2 * askPatience)
		assert.Zero(t, r.server.reloaded(), "nginx asks, but slowly")
		f.mu.Lock()
		f.silent = true
		f.mu.Unlock()
		r.wait(10 * time.Second)
		assert.Equal(t, 1, r.server.reloaded())
		r.wait(time.Hour)
		assert.Equal(t, 1, r.server.reloaded(), "nginx does not ask lbctl")
		f.take()
		r.servers(3)
		r.wait(2 * askPatience)
		assert.Equal(t, 2, r.server.reloaded())
	})
}

func TestBootstrapServersAreDroppedOnceNginxHasFetchedAll(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.server.start("grpc-hello")
		r.servers(1)
		assert.Equal(t, map[string]string{"grpc-hello": "server 10.0.0.1:7000 weight=1 max_fails=0;\n"}, r.server.bootstrapNow())
		r.wait(time.Minute)
		assert.Zero(t, r.server.reloaded(), "nginx has not asked yet")
		r.servers(2)
		r.wait(time.Minute)
		f.take()
		assert.Equal(t, 1, r.server.reloaded())
		r.wait(time.Minute)
		assert.Equal(t, 1, r.server.reloaded(), "nginx is reloaded once")
	})
}

func TestDroppingServersIsOneReloadASecond(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.server.start("grpc-hello")
		r.servers(1) // which is a reload
		f.take()
		assert.Zero(t, r.server.reloaded())
		r.wait(3 * time.Second)
		assert.Equal(t, 1, r.server.reloaded())
	})
}

func TestBootstrapServersStayUntilConsulAnswers(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(2)
		f.take()
		r.wait(time.Minute)
		bootstrap := r.server.bootstrapNow()
		assert.NotEmpty(t, bootstrap)

		// lbctl and nginx start again, with Consul away.
		again := newFakeEndpoints()
		r.asks = again
		r.server.start("grpc-hello")
		r.restart()
		r.source.tell(func(s *render.Status) { s.Entries = []endpoints.Entry{entry("hello", 5)} })
		r.wait(time.Minute)
		assert.Equal(t, 5, r.status().Instances, "the instances of the earlier lbctl")
		assert.Equal(t, bootstrap, r.server.bootstrapNow(), "the files of the earlier lbctl")
		assert.Zero(t, r.server.reloaded(), "nginx has no other servers")

		r.servers(1)
		again.take()
		r.wait(time.Minute)
		assert.Equal(t, 1, r.server.reloaded())
		assert.NotEqual(t, bootstrap, r.server.bootstrapNow())
	})
}

func TestBootstrapServersThatCantBeWrittenAreTriedAgain(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		r.server.with(func() { r.server.bootstrapFail = errors.New("no space left on device") })
		r.servers(2)
		f.take()
		problems := r.status().Problems
		if assert.Len(t, problems, 1) {
			assert.Contains(t, problems[0].Message, "no space left on device")
		}
		r.wait(time.Minute)
		r.server.with(func() { r.server.bootstrapFail = nil })
		r.wait(time.Minute)
		assert.Empty(t, r.status().Problems)
		assert.Contains(t, r.server.bootstrapNow()["grpc-hello"], "10.0.0.1:7001")
		assert.Equal(t, []string{"applied 1", "moved 1"}, r.events())
	})
}

func TestAnotherMasterHasNoServersYet(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		assert.Zero(t, f.restarts())
		for n := 1; n <= 2; n++ {
			r.server.with(func() { r.server.master.PID = 7 + n })
			r.wait(10 * time.Second)
			assert.Equal(t, n, f.restarts(), fmt.Sprintf("restart %d", n))
		}
	})
}

// TestBootstrapServersAreDroppedAfterEachRestart restarts nginx twice within a few seconds.
func TestBootstrapServersAreDroppedAfterEachRestart(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		for n := 1; n <= 2; n++ {
			r.server.with(func() { r.server.master.PID = 7 + n })
			r.server.start("grpc-hello")
			f.restart()
			f.take()
			r.wait(6 * time.Second) // a check
			assert.Equal(t, n, r.server.reloaded(), fmt.Sprintf("restart %d", n))
		}
	})
}

func TestInstancesComeAndGoWhileAGenerationIsPinned(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		_, err := r.c.Rollback(r.Context(), 1)
		assert.NoError(t, err)
		r.servers(4)
		f.take()
		s := r.status()
		assert.Equal(t, Frozen, s.State, s.Summary)
		assert.Equal(t, 4, s.Instances)
		assert.Equal(t, []string{"applied 1", "rollback 1", "moved 1"}, r.events())
	})
}

func TestStatusCountsServedInstancesAfterARollback(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.asksFor("one", "grpc-hello")
		f.take()
		r.wait(time.Minute)
		r.asksFor("two", "grpc-hello", "grpc-other")
		f.take()
		r.wait(time.Minute)
		_, err := r.c.Rollback(r.Context(), 1)
		assert.NoError(t, err)
		server := func(port uint16) resolver.Target {
			return resolver.Target{Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port), Weight: 1}
		}
		r.source.updates <- render.Configuration{
			Hash: "two", Files: map[string][]byte{"nginx.conf": []byte("two")},
			Entries: []endpoints.Entry{entry("hello", 3), entry("other", 1)},
			Upstreams: map[string][]resolver.Target{
				"grpc-hello": {server(7000), server(7001), server(7002)}, "grpc-other": {server(7003)},
			},
		}
		synctest.Wait()
		f.take()
		s := r.status()
		p := r.c.Pinned()
		assert.Equal(t, 1, p.Generation)
		assert.False(t, p.Lacks(entry("hello", 1).Service))
		assert.True(t, p.Lacks(entry("other", 1).Service))
		assert.Equal(t, 1, s.Services, "the generation has one of the two")
		assert.Equal(t, 3, s.Instances, "it had one when it was made")
	})
}

// asksFor delivers a configuration in which nginx asks for upstreams with one server each.
func (r *rig) asksFor(hash string, upstreams ...string) {
	cfg := render.Configuration{Hash: hash, Files: map[string][]byte{"nginx.conf": []byte(hash)}, Upstreams: map[string][]resolver.Target{}}
	for n, upstream := range upstreams {
		cfg.Entries = append(cfg.Entries, entry(strings.TrimPrefix(upstream, "grpc-"), 1))
		cfg.Upstreams[upstream] = []resolver.Target{{Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(7000+n)), Weight: 1}}
	}
	r.source.updates <- cfg
	synctest.Wait()
}

func TestTheGenerationStoresTheUpstreams(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.asksFor("one", "grpc-a", "grpc-b")
		f.take()
		current, err := r.server.Current()
		assert.NoError(t, err)
		assert.Equal(t, []string{"grpc-a", "grpc-b"}, current.Upstreams)
	})
}

// TestTextThatLooksLikeAnUpstreamIsIgnored has an older lbctl's generation, which has no
// list of upstreams, and services with values that look like the host name of an upstream.
func TestTextThatLooksLikeAnUpstreamIsIgnored(t *testing.T) {
	files := map[string][]byte{"http.conf": []byte(`upstream http-web {
    server http-web.u.lbctl.internal service=lb resolve max_fails=1 fail_timeout=2s;
}
server {
    server_name nobody.u.lbctl.internal;
    location /server_x.u.lbctl.internal/ { proxy_pass http://http-web; }
    location "/ server y.u.lbctl.internal service=lb resolve" { return 404; }
`)}
	a := askedBy(nginx.Generation{Number: 1}, files)
	assert.False(t, a.known)
	assert.Equal(t, map[string]bool{"http-web": true}, a.upstreams)
	assert.Empty(t, a.older.byService)
	a = askedBy(nginx.Generation{Number: 2, Note: nginx.Note{Upstreams: []string{}}}, files)
	assert.Equal(t, asked{upstreams: map[string]bool{}, known: true}, a)
}

func TestUpstreamsWithoutAServiceAreAnswered(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.asksFor("one", "grpc-a", "grpc-b")
		f.take()
		r.wait(time.Minute)
		r.asksFor("two", "grpc-a")
		assert.Equal(t, []string{"grpc-a"}, f.names(), "nginx serves the generation without it")
		f.take()
		r.wait(time.Minute)
		_, err := r.c.Rollback(r.Context(), 1)
		assert.NoError(t, err)
		assert.Equal(t, []string{"grpc-a", "grpc-b"}, f.names())
		assert.Empty(t, f.upstreams["grpc-b"], "its servers are unknown")
		f.take()

		// nginx starts, and has to drop its bootstrap servers.
		r.server.start("grpc-a", "grpc-b")
		f.restart()
		r.wait(10 * time.Second)
		assert.Zero(t, r.server.reloaded())
		f.take()
		r.wait(3 * time.Second)
		assert.Equal(t, 1, r.server.reloaded())
	})
}

// TestAnOlderLbctlsNameOfAnUpstreamIsAnswered rolls back over an upgrade: the older lbctl
// named the upstream of "Hello" "grpc-hello"; now it has a name with a hash.
func TestAnOlderLbctlsNameOfAnUpstreamIsAnswered(t *testing.T) {
	now := render.UpstreamName("grpc", "Hello")
	for name, c := range map[string]struct {
		others []string // services
		want   []string // upstreams with an answer
	}{
		"one service has the name":           {nil, []string{"grpc-hello", now}},
		"another one differs only by case":   {[]string{"HELLO"}, []string{render.UpstreamName("grpc", "HELLO"), now}},
		"another one has just that name now": {[]string{"hello"}, []string{"grpc-hello", now}},
	} {
		t.Run(name, func(t *testing.T) {
			asking(t, func(r *rig, f *fakeEndpoints) {
				r.services("one", 7001, append(c.others, "Hello")...)
				f.take()
				r.wait(time.Minute)
				r.services("two", 7001, append(c.others, "Hello")...)
				f.take()
				r.wait(time.Minute)
				r.server.with(func() {
					r.server.generations[0].Upstreams = nil
					r.server.files[1] = map[string][]byte{"nginx.conf": []byte("  server grpc-hello.u.lbctl.internal service=lb resolve max_fails=1;\n")}
				})
				_, err := r.c.Rollback(r.Context(), 1)
				assert.NoError(t, err)
				assert.ElementsMatch(t, c.want, f.names())
				if len(c.others) > 0 {
					return
				}
				// The servers change while nginx asks by the older name.
				r.services("two", 7005, "Hello")
				assert.Equal(t, f.upstreams[now], f.upstreams["grpc-hello"])
				if assert.Len(t, f.upstreams["grpc-hello"], 1) {
					assert.Equal(t, uint16(7005), f.upstreams["grpc-hello"][0].Addr.Port())
				}
			})
		})
	}
}

// TestAnOlderLbctlsNamesAreThoseOfItsLocations rolls back over an upgrade with services
// whose names differ only in case, whose upstreams the older lbctl numbered, and with a name
// that doesn't fit into a question.
func TestAnOlderLbctlsNamesAreThoseOfItsLocations(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		long := strings.Repeat("a", 80)
		names := []string{"Hello", "hello", "hello-2", long}
		for n, hash := range []string{"one", "two"} {
			r.services(hash, 7001+n, names...)
			f.take()
			r.wait(time.Minute)
		}
		var file strings.Builder
		for _, location := range []struct{ service, upstream string }{
			{"Hello", "grpc-Hello"}, {"hello", "grpc-hello-2"}, {"hello-2", "grpc-hello-2-2"}, {long, "grpc-" + long},
		} {
			fmt.Fprintf(&file, "  server %s.u.lbctl.internal service=lb resolve max_fails=1;\n", strings.ToLower(location.upstream))
			fmt.Fprintf(&file, "    location / {\n        set $lb_service %s;\n        grpc_pass grpc://%s;\n    }\n", location.service, location.upstream)
		}
		r.server.with(func() {
			r.server.generations[0].Upstreams = nil
			r.server.files[1] = map[string][]byte{"nginx.conf": []byte(file.String())}
		})
		_, err := r.c.Rollback(r.Context(), 1)
		assert.NoError(t, err)
		port := func(upstream string) int {
			if len(f.upstreams[upstream]) != 1 {
				return 0
			}
			return int(f.upstreams[upstream][0].Addr.Port())
		}
		assert.Equal(t, 7002, port("grpc-hello"), "the servers of Hello")
		assert.Equal(t, 7003, port("grpc-hello-2"), "the servers of hello")
		assert.Equal(t, 7004, port("grpc-hello-2-2"), "the servers of hello-2")
		for name := range f.upstreams {
			assert.LessOrEqual(t, len(name), 63, "a DNS label")
		}

		f.take()
		assert.NoError(t, r.c.Resume(r.Context()))
		f.take()
		r.wait(time.Minute)
		assert.Equal(t, 7003, port("grpc-hello"), "the servers of hello")
		assert.Equal(t, 7004, port("grpc-hello-2"), "the servers of hello-2")
	})
}

// services delivers a configuration in which nginx asks for the services by the current names
// of their upstreams. Each has one server, at port and the following ports.
func (r *rig) services(hash string, port int, names ...string) {
	cfg := render.Configuration{Hash: hash, Files: map[string][]byte{"nginx.conf": []byte(hash)}, Upstreams: map[string][]resolver.Target{}}
	for n, name := range names {
		e := entry(name, 1)
		cfg.Entries = append(cfg.Entries, e)
		cfg.Upstreams[render.UpstreamName(e.Protocol, name)] = []resolver.Target{{Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(port+n)), Weight: 1}}
	}
	r.source.updates <- cfg
	synctest.Wait()
}

func TestAGenerationOfAnOlderLbctlDoesNotBlock(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.asksFor("one", "grpc-a")
		f.take()
		r.end()
		r.server.with(func() {
			r.server.generations[0].Upstreams = nil
			r.server.generations[0].Hash = "other"
			r.server.files[1] = map[string][]byte{"nginx.conf": []byte("  server grpc-a.u.lbctl.internal service=lb resolve;\n  server grpc-left.u.lbctl.internal service=lb resolve;\n")}
			r.server.fail = func(string) error { return nginx.ErrRolledBack }
		})
		r.server.start("grpc-a", "grpc-left")
		again := newFakeEndpoints()
		r.asks = again
		r.restart()
		r.asksFor("two", "grpc-a")
		assert.Equal(t, []string{"grpc-a"}, again.names(), "nginx keeps its servers of the other one")
		again.take()
		r.wait(5 * time.Second)
		assert.Equal(t, 1, r.server.reloaded())
	})
}

// TestEachUpstreamDropsItsOwnBootstrapServers has an upstream that nginx never asks for.
func TestEachUpstreamDropsItsOwnBootstrapServers(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.asksFor("one", "grpc-a", "grpc-b", "grpc-c")
		f.take()
		r.wait(time.Minute)
		r.server.with(func() { r.server.known = f.Known })
		r.server.start("grpc-a", "grpc-b", "grpc-c")
		f.restart()
		r.wait(6 * time.Second) // a check
		f.takes("grpc-a", "grpc-b")
		r.wait(3 * time.Second)
		assert.Zero(t, r.server.reloaded(), "nginx may still ask for the third one")
		r.wait(askPatience)
		assert.Equal(t, 1, r.server.reloaded())
		r.wait(10 * time.Minute)
		assert.Equal(t, 1, r.server.reloaded(), "no bootstrap servers are left to drop")
		s := r.status()
		assert.Equal(t, Pending, s.State, s.Summary)
		f.take()
		r.wait(time.Minute)
		assert.Equal(t, 2, r.server.reloaded())
		s = r.status()
		assert.Equal(t, Serving, s.State, s.Summary)
	})
}

func TestOutdatedBootstrapServersAreNotServing(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		s := r.status()
		assert.Equal(t, Serving, s.State, s.Summary)

		r.server.with(func() { r.server.master.PID = 8 })
		s = r.status()
		assert.Equal(t, Pending, s.State, "no check has seen that nginx started: %s", s.Summary)
		r.server.start("grpc-hello")
		f.restart()
		r.wait(10 * time.Second)
		s = r.status()
		assert.Equal(t, Pending, s.State, s.Summary)
		assert.Contains(t, s.Pending.Reason, `nginx still uses the instances that it started with for 1 upstream, among them "grpc-hello"`)
		f.take()
		r.wait(5 * time.Second)
		s = r.status()
		assert.Equal(t, Serving, s.State, s.Summary)

		// A new upstream starts with servers that are not outdated.
		r.server.with(func() { r.server.read = r.server.bootstrap; r.server.known = func(string) bool { return false } })
		r.wait(10 * time.Second)
		s = r.status()
		assert.Equal(t, Serving, s.State, s.Summary)
	})
}

// TestBootstrapServersOfOneServiceDoNotDelayOthers has an upstream whose file can't be written.
func TestBootstrapServersOfOneServiceDoNotDelayOthers(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.server.with(func() { r.server.bootstrapLeft = map[string]error{"grpc-a": errors.New("file name too long")} })
		r.asksFor("one", "grpc-a", "grpc-b")
		f.take()
		s := r.status()
		assert.Equal(t, Serving, s.State, s.Summary)
		assert.Equal(t, 2, s.Services)
		if assert.Len(t, s.Problems, 1) {
			assert.Equal(t, "service a", s.Problems[0].Subject)
			assert.Contains(t, s.Problems[0].Message, "file name too long")
		}
		r.server.with(func() { r.server.bootstrapLeft = nil })
		r.wait(time.Minute)
		assert.Empty(t, r.status().Problems)
	})
}

func TestServicesOfAPinnedGeneration(t *testing.T) {
	bubble(t, func(r *rig) {
		refused := entry("late", 1)
		refused.Spec = endpoints.Spec{}
		r.source.updates <- render.Configuration{
			Hash: "one", Files: map[string][]byte{"http.conf": []byte("one")},
			Entries: []endpoints.Entry{entry("down", 0), refused, entry("web", 1)},
		}
		synctest.Wait()
		assert.False(t, r.c.Pinned().Lacks(endpoints.Service{Name: "late", Spec: endpoints.Spec{Protocol: endpoints.HTTP}}), "nothing is pinned")
		_, err := r.c.Rollback(r.Context(), 1)
		assert.NoError(t, err)
		p := r.c.Pinned()
		for name, lacks := range map[string]bool{"web": false, "down": false, "late": true} {
			assert.Equal(t, lacks, p.Lacks(endpoints.Service{Name: name, Spec: endpoints.Spec{Protocol: endpoints.HTTP}}), name)
		}
		entries := []endpoints.Entry{{Service: endpoints.Service{Name: "late", Spec: endpoints.Spec{Protocol: endpoints.HTTP}}, State: endpoints.Panic}}
		problems := []render.Problem{{Subject: "service late", Message: "panic: it gets traffic nevertheless"}, {Subject: "service late", Message: "other"}}
		assert.Equal(t, problems[1:], p.relevant(problems, entries))
	})
}
