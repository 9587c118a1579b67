package endpoints

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// service makes a gRPC service that is the default of its listener, with
// instances like "a" (passing) or "b:critical". Each has an address of its own.
func service(name string, instances ...string) Service {
	s := Service{Name: name, Spec: Spec{Protocol: GRPC, Routes: []Route{{Path: "/" + name}}}, OK: true}
	for _, spec := range instances {
		id, status, found := strings.Cut(spec, ":")
		if !found {
			status = "passing"
		}
		s.Instances = append(s.Instances, Instance{
			ID: id, Node: "node-" + id, Address: id + "." + name, Port: 7777, Weight: 1, Status: Status(status),
		})
	}
	return s
}

// rotation is the entries' rotation as "hello[a b] world[c]".
func rotation(entries []Entry) string {
	var all []string
	for _, e := range entries {
		var ids []string
		for _, i := range e.Rotation() {
			ids = append(ids, i.ID)
		}
		all = append(all, fmt.Sprintf("%s%v", e.Name, ids))
	}
	return strings.Join(all, " ")
}

func states(entries []Entry) string {
	var all []string
	for _, e := range entries {
		all = append(all, e.Name+"="+string(e.State))
	}
	return strings.Join(all, " ")
}

// guardHold is how long tests hold vanished instances.
const guardHold = 5 * time.Minute

func table(t *testing.T) *Table {
	t.Helper()
	tb, err := Open("", Options{GuardHold: guardHold})
	require.NoError(t, err)
	return tb
}

func TestGuard(t *testing.T) {
	type step struct {
		after    time.Duration
		services []Service
		want     string // the rotation
		states   string
	}
	see := func(after time.Duration, want, states string, services ...Service) step {
		return step{after, services, want, states}
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"instances come and go through maintenance, 5 to 2", []step{
			see(0, "hello[a b c d e]", "hello=fresh", service("hello", "a", "b", "c", "d", "e")),
			see(time.Second, "hello[a b]", "hello=fresh", service("hello", "a", "b", "c:maintenance", "d:maintenance", "e:maintenance")),
			see(time.Second, "hello[a b]", "hello=fresh", service("hello", "a", "b")),
		}},
		{"all instances of a service become critical, then leave", []step{
			see(0, "hello[a b]", "hello=fresh", service("hello", "a", "b")),
			see(time.Second, "hello[a b]", "hello=panic", service("hello", "a:critical", "b:critical")),
			see(time.Second, "", ""),
		}},
		{"instances leave gracefully one by one", []step{
			see(0, "hello[a b c]", "hello=fresh", service("hello", "a", "b", "c")),
			see(time.Second, "hello[b c]", "hello=fresh", service("hello", "a:maintenance", "b", "c")),
			see(time.Second, "hello[c]", "hello=fresh", service("hello", "b:critical", "c")),
			see(time.Second, "hello[b]", "hello=panic", service("hello", "b:critical", "c:maintenance")),
			see(time.Second, "", ""),
		}},
		{"a minority that vanishes is removed", []step{
			see(0, "hello[a b c d e]", "hello=fresh", service("hello", "a", "b", "c", "d", "e")),
			see(time.Second, "hello[a b c]", "hello=fresh", service("hello", "a", "b", "c")),
		}},
		{"half is not more than half", []step{
			see(0, "hello[a b c d]", "hello=fresh", service("hello", "a", "b", "c", "d")),
			see(time.Second, "hello[a b]", "hello=fresh", service("hello", "a", "b")),
		}},
		{"of three instances two may vanish", []step{
			see(0, "hello[a b c]", "hello=fresh", service("hello", "a", "b", "c")),
			see(time.Second, "hello[a]", "hello=fresh", service("hello", "a")),
		}},
		{"a majority that vanishes is held", []step{
			see(0, "hello[a b c d e]", "hello=fresh", service("hello", "a", "b", "c", "d", "e")),
			see(time.Second, "hello[a b c d e]", "hello=held", service("hello", "a", "b")),
			see(4*time.Minute, "hello[a b c d e]", "hello=held", service("hello", "a", "b")),
			see(time.Minute, "hello[a b]", "hello=fresh", service("hello", "a", "b")),
		}},
		{"a majority that vanishes in steps within the window is held, first steps included", []step{
			see(0, "hello[a b c d e]", "hello=fresh", service("hello", "a", "b", "c", "d", "e")),
			see(3*time.Second, "hello[a b c]", "hello=fresh", service("hello", "a", "b", "c")),
			see(3*time.Second, "hello[a b c d e]", "hello=held", service("hello", "a", "b")),
		}},
		{"a majority that vanishes slowly is removed", []step{
			see(0, "hello[a b c d e]", "hello=fresh", service("hello", "a", "b", "c", "d", "e")),
			see(11*time.Second, "hello[a b c]", "hello=fresh", service("hello", "a", "b", "c")),
			see(11*time.Second, "hello[a b]", "hello=fresh", service("hello", "a", "b")),
		}},
		{"an instance that vanishes while others are held is held too", []step{
			see(0, "hello[a b c d e]", "hello=fresh", service("hello", "a", "b", "c", "d", "e")),
			see(time.Second, "hello[a b c d e]", "hello=held", service("hello", "a", "b")),
			see(time.Minute, "hello[a b c d e]", "hello=held", service("hello", "a")),
		}},
		{"a service that loses its only instance holds it", []step{
			see(0, "a[x] b[y]", "a=fresh b=fresh", service("a", "x"), service("b", "y")),
			see(time.Second, "a[x] b[y]", "a=held b=fresh", service("b", "y")),
		}},
		{"the last in rotation is held although others are registered", []step{
			see(0, "hello[a]", "hello=fresh", service("hello", "a", "b:critical")),
			see(time.Second, "hello[a]", "hello=held", service("hello", "b:critical")),
			see(time.Second, "hello[a b]", "hello=held", service("hello", "b")),
		}},
		{"one service leaves gracefully while another vanishes", []step{
			see(0, "a[x y] b[u v]", "a=fresh b=fresh", service("a", "x", "y"), service("b", "u", "v")),
			see(time.Second, "a[] b[u v]", "a=fresh b=held", service("a", "x:maintenance", "y:maintenance")),
			see(time.Second, "b[u v]", "b=held"),
		}},
		{"all of a wiped catalog is held", []step{
			see(0, "a[x y] b[u v]", "a=fresh b=fresh", service("a", "x", "y"), service("b", "u", "v:warning")),
			see(time.Second, "a[x y] b[u v]", "a=held b=held"),
			see(time.Second, "a[x y] b[u v]", "a=held b=fresh", service("b", "u", "v")),
			see(time.Second, "a[x y] b[u v]", "a=fresh b=fresh", service("a", "x", "y"), service("b", "u", "v")),
		}},
		{"a held instance that comes back critical is no longer held", []step{
			see(0, "hello[a]", "hello=fresh", service("hello", "a")),
			see(time.Second, "hello[a]", "hello=held"),
			see(time.Second, "hello[a]", "hello=panic", service("hello", "a:critical")),
			see(time.Second, "", ""),
		}},
		{"a removed service appears again", []step{
			see(0, "hello[a]", "hello=fresh", service("hello", "a")),
			see(time.Second, "hello[a]", "hello=held"),
			see(5*time.Minute, "", ""),
			see(time.Second, "hello[a]", "hello=fresh", service("hello", "a")),
		}},
		{"instances that are replaced one after the other, without maintenance, are not held", []step{
			see(0, "hello[a b c d]", "hello=fresh", service("hello", "a", "b", "c", "d")),
			see(time.Second, "hello[a b c d e]", "hello=fresh", service("hello", "a", "b", "c", "d", "e")),
			see(time.Second, "hello[b c d e]", "hello=fresh", service("hello", "b", "c", "d", "e")),
			see(time.Second, "hello[b c d e f]", "hello=fresh", service("hello", "b", "c", "d", "e", "f")),
			see(time.Second, "hello[c d e f]", "hello=fresh", service("hello", "c", "d", "e", "f")),
			see(time.Second, "hello[c d e f g]", "hello=fresh", service("hello", "c", "d", "e", "f", "g")),
			see(time.Second, "hello[d e f g]", "hello=fresh", service("hello", "d", "e", "f", "g")),
			see(time.Second, "hello[c d e f g]", "hello=held", service("hello", "g")), // five were the most
		}},
		{"instances that are replaced at once are not held", []step{
			see(0, "hello[a b c d]", "hello=fresh", service("hello", "a", "b", "c", "d")),
			see(time.Second, "hello[e f g h]", "hello=fresh", service("hello", "e", "f", "g", "h")),
		}},
		{"a service that asks not to be balanced is removed at once", []step{
			see(0, "hello[a b]", "hello=fresh", service("hello", "a", "b")),
			see(time.Second, "", "", Service{Name: "hello", OK: true, Instances: service("hello", "a", "b").Instances}),
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tb := table(t)
			now := noon
			for n, s := range tt.steps {
				now = now.Add(s.after)
				got := tb.Observe(now, s.services)
				assert.Equal(t, s.want, rotation(got), "step %d", n)
				assert.Equal(t, s.states, states(got), "step %d", n)
				again := tb.Observe(now, s.services)
				assert.Equal(t, got, again, "step %d, observed again", n)
			}
		})
	}
}

func TestReasonsAreReadable(t *testing.T) {
	tb := table(t)
	five := service("hello", "a", "b", "c", "d", "e")
	tb.Observe(noon, []Service{five, service("api", "x", "y")})

	got := tb.Observe(noon.Add(time.Second), []Service{service("api", "x", "y")})
	assert.Equal(t, "5 of 7 instances vanished from the catalog at once; 5 kept in rotation", got[1].Reason)
	assert.Equal(t, noon.Add(time.Second), got[1].Since)
	assert.Len(t, got[1].Held, 5)
	assert.Empty(t, got[1].Instances)

	tb = table(t)
	tb.Observe(noon, []Service{five, service("api", "x", "y", "z", "u", "v", "w")})
	got = tb.Observe(noon, []Service{service("api", "x", "y", "z", "u", "v", "w")})
	assert.Equal(t, "all 5 instances vanished from the catalog at once; 5 kept in rotation", got[1].Reason)

	tb = table(t)
	tb.Observe(noon, []Service{service("hello", "a")})
	got = tb.Observe(noon, nil)
	assert.Equal(t, "the last instance in rotation vanished from the catalog; 1 kept in rotation", got[0].Reason)
}

func TestAnInstanceIDWithANewAddressMoves(t *testing.T) {
	tb := table(t)
	tb.Observe(noon, []Service{service("hello", "a")})
	moved := service("hello", "a")
	moved.Instances[0].Address = "10.0.0.9"
	got := tb.Observe(noon, []Service{moved})
	assert.Equal(t, Fresh, got[0].State)
	assert.Equal(t, "10.0.0.9", got[0].Rotation()[0].Address)
	assert.Len(t, got[0].Rotation(), 1)
}

func TestAHeldInstanceEndsWhenAnotherHasItsAddress(t *testing.T) {
	taker := service("api", "x")
	taker.Instances[0].Address = "a.hello"

	t.Run("a new instance of another service, at the same time", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, []Service{service("hello", "a")})
		assert.Equal(t, "api[x]", rotation(tb.Observe(noon, []Service{taker})))
	})
	t.Run("a new instance of another service, later", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, []Service{service("hello", "a")})
		require.Equal(t, "hello[a]", rotation(tb.Observe(noon, nil)))
		assert.Equal(t, "api[x]", rotation(tb.Observe(noon, []Service{taker})))
	})
	t.Run("the same service under another id", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, []Service{service("hello", "a")})
		again := service("hello", "b")
		again.Instances[0].Address = "a.hello"
		assert.Equal(t, "hello[b]", rotation(tb.Observe(noon, []Service{again})))
	})
	t.Run("not for an instance that always had the same address", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, []Service{taker, service("hello", "a")})
		assert.Equal(t, "api[x] hello[a]", rotation(tb.Observe(noon, []Service{taker})))
	})
}

func TestTrust(t *testing.T) {
	five := []Service{service("hello", "a", "b", "c", "d", "e")}
	four := []Service{service("hello", "a", "b", "c", "d")}

	t.Run("instances missing from filtered answers are held without limit", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, five)
		tb.SetTrust(noon, Trust{Filtered: true})
		got := tb.Observe(noon, four)
		assert.Equal(t, "hello[a b c d e]", rotation(got))
		assert.Contains(t, got[0].Reason, "filters its answers by ACLs")
		assert.Zero(t, tb.NextDeadline())
		assert.Zero(t, tb.Held()[0].Until)
		assert.Equal(t, "hello[a b c d e]", rotation(tb.Observe(noon.Add(24*time.Hour), four)))

		tb.SetTrust(noon.Add(24*time.Hour), Trust{})
		assert.Equal(t, noon.Add(24*time.Hour+5*time.Minute), tb.NextDeadline())
		assert.Equal(t, "hello[a b c d e]", rotation(tb.Observe(noon.Add(24*time.Hour+4*time.Minute), four)))
		assert.Equal(t, "hello[a b c d]", rotation(tb.Observe(tb.NextDeadline(), four)))
		assert.Zero(t, tb.NextDeadline())
	})
	t.Run("instances removed a moment before come back", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, five)
		require.Equal(t, "hello[a b c d]", rotation(tb.Observe(noon, four)))
		tb.SetTrust(noon.Add(time.Second), Trust{Filtered: true})
		<-tb.Changed()
		assert.Equal(t, "hello[a b c d e]", rotation(tb.Observe(noon.Add(time.Second), four)))
	})
	t.Run("instances that left gracefully stay out", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, []Service{service("hello", "a", "b:maintenance")})
		tb.SetTrust(noon, Trust{Filtered: true})
		assert.Equal(t, "hello[a]", rotation(tb.Observe(noon, []Service{service("hello", "a")})))
	})
	t.Run("without a leader entries are stale", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, five)
		tb.SetTrust(noon, Trust{NoLeader: true})
		got := tb.Observe(noon.Add(time.Second), five)
		assert.Equal(t, "hello=stale", states(got))
		assert.Equal(t, noon.Add(time.Second), got[0].Since)
	})
	t.Run("the operator can accept without trust", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, five)
		tb.SetTrust(noon, Trust{Filtered: true})
		tb.Observe(noon, nil)
		assert.Equal(t, 5, tb.Accept(""))
		assert.Empty(t, tb.Observe(noon, nil))
	})
}

func TestVanishingPredictsObserve(t *testing.T) {
	tb := table(t)
	tb.Observe(noon, []Service{service("hello", "a", "b", "c:critical"), service("api", "x")})
	assert.Zero(t, tb.Vanishing([]Service{service("hello", "a", "b:critical"), service("api", "x")}))
	assert.Equal(t, 1, tb.Vanishing([]Service{service("hello", "b"), service("api", "x")}))
	assert.Equal(t, 3, tb.Vanishing(nil))
	assert.Equal(t, 1, tb.Vanishing([]Service{service("hello", "a", "b"), {Name: "other", OK: true}}))
}

func TestReleaseAndAccept(t *testing.T) {
	tb := table(t)
	tb.Observe(noon, []Service{service("hello", "a", "b")})
	tb.Observe(noon, nil)
	assert.Equal(t, noon.Add(5*time.Minute), tb.NextDeadline())
	require.Len(t, tb.Held(), 2)
	assert.Equal(t, HeldInstance{
		Service: "hello", Protocol: GRPC, Instance: service("hello", "a").Instances[0],
		Reason: "all 2 instances vanished from the catalog at once", Since: noon, Until: noon.Add(5 * time.Minute),
	}, tb.Held()[0])

	assert.False(t, tb.Release("hello", "node-a", "other"))
	assert.True(t, tb.Release("hello", "node-a", "a"))
	<-tb.Changed()
	assert.Equal(t, "hello[b]", rotation(tb.Observe(noon, nil)))
	assert.Equal(t, 1, tb.Accept(""))
	<-tb.Changed()
	assert.Empty(t, tb.Observe(noon, nil))
	assert.Zero(t, tb.Accept(""))
}

func TestQuarantine(t *testing.T) {
	bad := service("hello", "a", "b")
	bad.OK, bad.Protocol, bad.Routes = false, "", nil
	bad.Problems = []string{`instance "a": lb-protocol "grcp" unknown`}

	t.Run("the last good routes are kept with current instances", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, []Service{service("hello", "a")})
		e := tb.Observe(noon.Add(time.Second), []Service{bad})[0]
		assert.Equal(t, Quarantined, e.State)
		assert.Equal(t, noon.Add(time.Second), e.Since)
		assert.Equal(t, `its last good routes are kept: instance "a": lb-protocol "grcp" unknown`, e.Reason)
		assert.Equal(t, GRPC, e.Protocol)
		assert.Equal(t, []Route{{Path: "/hello"}}, e.Routes)
		assert.True(t, e.Served())
		assert.Len(t, e.Rotation(), 2)
		assert.Equal(t, bad.Problems, e.Problems)

		e = tb.Observe(noon.Add(2*time.Second), []Service{service("hello", "a")})[0]
		assert.Equal(t, Fresh, e.State)
		assert.Empty(t, e.Reason)
	})
	t.Run("a service without a last good state isn't served, and the reason says so", func(t *testing.T) {
		e := table(t).Observe(noon, []Service{bad})[0]
		assert.Equal(t, Quarantined, e.State)
		assert.False(t, e.Served())
		assert.Contains(t, e.Reason, "not served, because there is no earlier good state: ")
	})
	t.Run("a service can be held and quarantined at once", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, []Service{service("hello", "c")})
		e := tb.Observe(noon, []Service{func() Service { b := bad; b.Instances = service("hello", "d:critical").Instances; return b }()})[0]
		assert.Equal(t, Held, e.State)
		assert.Contains(t, e.Reason, "last good routes")
		assert.Contains(t, e.Reason, "vanished")
		assert.True(t, e.Served())
	})
}

// A service that could never be served loses no traffic when it leaves.
func TestAServiceWithoutUsableSettingsIsNotHeld(t *testing.T) {
	for name, trust := range map[string]Trust{"Consul can be trusted": {}, "it can't": {NoLeader: true}} {
		t.Run(name, func(t *testing.T) {
			tb := table(t)
			hello, bad := service("hello", "a"), service("bad", "b")
			bad.Spec, bad.OK = Spec{}, false
			require.Equal(t, "bad=quarantined hello=fresh", states(tb.Observe(noon, []Service{bad, hello})))
			tb.SetTrust(noon, trust)
			entries := tb.Observe(noon.Add(time.Second), []Service{hello})
			assert.Empty(t, tb.Held())
			assert.NotContains(t, states(entries), "held")
		})
	}
}

func TestClaims(t *testing.T) {
	with := func(name string, p Protocol, routes ...Route) Service {
		s := service(name, name+"1")
		s.Protocol, s.Routes, s.Default = p, routes, len(routes) == 0
		return s
	}
	api := Route{Host: "example.com", Path: "/api"}

	t.Run("the first by name wins, then the present owner", func(t *testing.T) {
		tb := table(t)
		e := tb.Observe(noon, []Service{with("b", HTTP, api), with("a", HTTPS, api)})
		assert.Equal(t, []Route{api}, e[0].Routes)
		assert.Empty(t, e[1].Routes)
		assert.False(t, e[1].Served())
		assert.Equal(t, []string{`http route "example.com/api" belongs to service "a", so "b" does not get it`}, e[1].Problems)

		tb = table(t)
		tb.Observe(noon, []Service{with("b", HTTP, api)})
		e = tb.Observe(noon, []Service{with("a", HTTP, api), with("b", HTTP, api)})
		assert.Empty(t, e[0].Routes)
		assert.Equal(t, []Route{api}, e[1].Routes)

		e = tb.Observe(noon, []Service{with("a", HTTP, api), with("b", HTTP, Route{Path: "/b"})})
		assert.Equal(t, []Route{api}, e[0].Routes, "the owner gave it up")
		assert.Empty(t, e[0].Problems)
	})
	t.Run("observations without a change keep the owners", func(t *testing.T) {
		tb := table(t)
		a, b, newcomer := with("a", HTTP, Route{Path: "/a"}), with("b", HTTP, api), with("a", HTTP, api)
		for _, c := range []struct {
			seen []Service
			want [][]Route
		}{
			{[]Service{a, b}, [][]Route{{{Path: "/a"}}, {api}}},
			{[]Service{newcomer, b}, [][]Route{nil, {api}}},
			{[]Service{newcomer}, [][]Route{{api}}},
			{[]Service{newcomer, b}, [][]Route{{api}, nil}},
			{[]Service{a, b}, [][]Route{{{Path: "/a"}}, {api}}},
		} {
			for range 3 {
				tb.Observe(noon, c.seen)
				tb.Accept("") // the instances vanished on purpose
				e := tb.Observe(noon, c.seen)
				require.Len(t, e, len(c.want))
				for n, routes := range c.want {
					assert.ElementsMatch(t, routes, e[n].Routes, "%s of %d", e[n].Name, len(e))
				}
			}
		}
	})
	t.Run("families don't collide", func(t *testing.T) {
		e := table(t).Observe(noon, []Service{with("a", HTTP, api), with("b", GRPC, api)})
		assert.Len(t, e[0].Routes, 1)
		assert.Len(t, e[1].Routes, 1)
	})
	t.Run("one default for each listener; any host and / is the default too", func(t *testing.T) {
		e := table(t).Observe(noon, []Service{with("a", HTTP, Route{Path: "/"}), with("b", HTTP), with("c", GRPC)})
		assert.True(t, e[0].Served())
		assert.False(t, e[1].Default)
		assert.Contains(t, e[1].Problems[0], ` requests that match no route, so "b" does not: want lb-host or lb-path`)
		assert.Len(t, e[1].Problems, 1)
		assert.True(t, e[2].Default)
	})
	t.Run("routes with other matches don't collide", func(t *testing.T) {
		routes := []Route{
			{Path: "/x"}, {Path: "/x", Exact: true}, {Path: "/x", Method: "GET"}, {Path: "/x", Method: "POST"},
			{Path: "/x", Headers: "a=1"}, {Path: "/x", Headers: "a=2"}, {Path: "/x", Method: "GET", Headers: "a=1"},
		}
		e := table(t).Observe(noon, []Service{with("a", HTTP, routes...), with("b", HTTP, routes[6], Route{Path: "/x", Method: "PUT"})})
		assert.Equal(t, routes, e[0].Routes)
		assert.Equal(t, []Route{{Path: "/x", Method: "PUT"}}, e[1].Routes)
		assert.Equal(t, []string{`http route "GET */x [a=1]" belongs to service "a", so "b" does not get it`}, e[1].Problems)
	})
	t.Run("a service that only offers to be the default", func(t *testing.T) {
		offers := func(name string) Service {
			s := with(name, GRPC, Route{Path: "/" + name})
			s.Default, s.Yields = true, true
			return s
		}
		defaults := func(e []Entry) (names []string) {
			for _, e := range e {
				assert.Empty(t, e.Problems, e.Name)
				assert.NotEmpty(t, e.Routes)
				if e.Default {
					names = append(names, e.Name)
				}
			}
			return names
		}
		tb := table(t)
		assert.Equal(t, []string{"b"}, defaults(tb.Observe(noon, []Service{offers("b"), offers("c")})))
		for range 3 {
			assert.Equal(t, []string{"b"}, defaults(tb.Observe(noon, []Service{offers("a"), offers("b"), offers("c")})), "it keeps the place")
		}
		firm := with("z", GRPC, Route{Path: "/z"})
		firm.Default = true
		assert.Equal(t, []string{"z"}, defaults(tb.Observe(noon, []Service{offers("a"), offers("b"), firm})), "one that asks for it gets it")
		tb.Observe(noon, []Service{offers("a"), offers("b")})
		tb.Accept("")
		assert.Equal(t, []string{"a"}, defaults(tb.Observe(noon, []Service{offers("a"), offers("b")})))
	})
	t.Run("one service for each TCP port", func(t *testing.T) {
		tcp := func(name string) Service {
			s := with(name, TCP)
			s.Port, s.Default = 9000, false
			return s
		}
		e := table(t).Observe(noon, []Service{tcp("a"), tcp("b")})
		assert.Equal(t, 9000, e[0].Port)
		assert.Zero(t, e[1].Port)
		assert.Equal(t, []string{`TCP port 9000 belongs to service "a", so "b" does not get it`}, e[1].Problems)
	})
	t.Run("services share a TCP port by host", func(t *testing.T) {
		tcp := func(name string, hosts ...string) Service {
			s := with(name, TCP)
			s.Port, s.Default = 9000, false
			for _, host := range hosts {
				s.Routes = append(s.Routes, Route{Host: host})
			}
			return s
		}
		tb := table(t)
		e := tb.Observe(noon, []Service{tcp("b", "b.test", "x.test"), tcp("c", "x.test", "c.test"), tcp("d", "x.test"), tcp("e")})
		assert.Equal(t, []Route{{Host: "b.test"}, {Host: "x.test"}}, e[0].Routes)
		assert.Equal(t, []Route{{Host: "c.test"}}, e[1].Routes)
		assert.Equal(t, []string{`tcp route "x.test" belongs to service "b", so "c" does not get it`}, e[1].Problems)
		assert.False(t, e[2].Served(), "without a host it does not get the whole port")
		assert.Equal(t, []string{`TCP port 9000 is shared by services with lb-host, so "e", which has none, does not get it`}, e[3].Problems)
		assert.False(t, e[3].Served())

		e = tb.Observe(noon, []Service{tcp("a"), tcp("b", "b.test"), tcp("c", "c.test")})
		assert.False(t, e[0].Served(), "the port stays shared")
		assert.True(t, e[1].Served())

		tb = table(t)
		e = tb.Observe(noon, []Service{tcp("a"), tcp("b", "b.test")})
		assert.True(t, e[0].Served())
		assert.Equal(t, []string{`TCP port 9000 belongs to service "a", so "b" does not get it`}, e[1].Problems)
		assert.False(t, e[1].Served())
	})
	t.Run("a service on other listeners may have the same route", func(t *testing.T) {
		inner := with("b", HTTP, api)
		inner.Listeners = []string{"internal"}
		e := table(t).Observe(noon, []Service{with("a", HTTP, api), inner, with("c", HTTP, api)})
		assert.True(t, e[0].Served())
		assert.True(t, e[1].Served())
		assert.False(t, e[2].Served())
	})
	t.Run("a held service keeps its route", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, []Service{with("b", HTTP, api)})
		e := tb.Observe(noon, []Service{with("a", HTTP, api)})
		assert.Equal(t, "a=fresh b=held", states(e))
		assert.True(t, e[1].Served())
		assert.False(t, e[0].Served())
	})
}

func TestObserveDoesNotChangeItsArgument(t *testing.T) {
	s := service("hello", "b", "a")
	tb := table(t)
	e := tb.Observe(noon, []Service{s})
	assert.Equal(t, "b", s.Instances[0].ID)
	assert.Equal(t, "a", e[0].Instances[0].ID)
	assert.Equal(t, e, tb.Entries())
}

// TestInstancesInConsulAreAlwaysServed changes instances at random and checks what must
// hold whatever the guard does.
func TestInstancesInConsulAreAlwaysServed(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		tb := table(t)
		now := noon
		left := map[string]bool{} // last seen out of rotation
		for range 60 {
			now = now.Add(time.Duration(rnd.IntN(4000)) * time.Millisecond)
			if rnd.IntN(10) == 0 {
				tb.SetTrust(now, Trust{Filtered: rnd.IntN(2) == 0, NoLeader: rnd.IntN(4) == 0})
			}
			var services []Service
			in, tried := map[string]bool{}, map[string]bool{}
			for _, name := range []string{"a", "b"} {
				s := service(name)
				for n := range 5 {
					id := fmt.Sprint(name, n)
					status := []string{"", "", "passing", "passing", "warning", "critical", "maintenance"}[rnd.IntN(7)]
					if status == "" {
						continue
					}
					s.Instances = append(s.Instances, service(name, id+":"+status).Instances...)
					in[id] = Status(status) == Passing || Status(status) == Warning
					left[id] = !in[id]
				}
				if len(s.Instances) > 0 {
					services = append(services, s)
				}
			}
			want := tb.Vanishing(services)
			before := len(tb.Held())
			got := tb.Observe(now, services)
			require.LessOrEqual(t, len(tb.Held()), before+want+10)
			served := map[string]bool{}
			for _, e := range got {
				for _, i := range e.Rotation() {
					require.False(t, served[i.ID], "seed %d: %s is served twice", seed, i.ID)
					served[i.ID] = true
				}
				require.Equal(t, e.State == Held, len(e.Held) > 0)
				require.Equal(t, e.State == Panic, len(e.Service.Rotation()) == 0 && len(e.Rotation()) > len(e.Held))
				require.True(t, slices.IsSortedFunc(e.Rotation(), compareInstances))
				for _, i := range e.Instances {
					tried[i.ID] = e.State == Panic && i.Status == Critical
				}
			}
			for id, passing := range in {
				require.Equal(t, passing || tried[id], served[id], "seed %d: %s", seed, id)
			}
			for id, gone := range left {
				require.False(t, gone && served[id] && !tried[id], "seed %d: %s left and is served", seed, id)
			}
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	var services []Service
	for n := range 2000 {
		s := service(fmt.Sprint("service-", n))
		for i := range 20 {
			s.Instances = append(s.Instances, service(s.Name, fmt.Sprint("i", i)).Instances...)
		}
		services = append(services, s)
	}
	tb := newTable("", Options{})
	for b.Loop() {
		tb.Observe(noon, services)
	}
}

func TestVanishedInstancesAreRemovedAfterAMinute(t *testing.T) {
	tb, err := Open("", Options{})
	require.NoError(t, err)
	tb.Observe(noon, []Service{service("hello", "a", "b")})
	tb.Observe(noon.Add(time.Second), nil)
	assert.Equal(t, "hello[a b]", rotation(tb.Observe(noon.Add(time.Minute), nil)))
	assert.Empty(t, rotation(tb.Observe(noon.Add(61*time.Second), nil)))
}
