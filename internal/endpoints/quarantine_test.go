package endpoints

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// version returns a service whose first instance has the version.
func version(s Service, v string) Service {
	s.Instances[0].Version = v
	return s
}

// find returns the entry of a service.
func find(t *testing.T, entries []Entry, name string) Entry {
	t.Helper()
	for _, e := range entries {
		if e.Name == name {
			return e
		}
	}
	t.Fatalf("no entry of %q", name)
	return Entry{}
}

// refusing returns a table in which nginx accepted version 1 of api and refused version 2.
func refusing(t *testing.T) *Table {
	t.Helper()
	tb := table(t)
	tb.NginxAccepted(tb.Observe(noon, []Service{version(service("api", "a", "b"), "1"), service("web", "x")}))
	entries := tb.Observe(noon, []Service{version(service("api", "a", "b", "c"), "2"), service("web", "x", "y")})
	assert.True(t, tb.Refuse(noon, find(t, entries, "api"), Refusal{Reason: "no such version"}))
	return tb
}

func TestARefusedServiceKeepsItsLastGoodBlock(t *testing.T) {
	tb := refusing(t)
	changed := tb.Changed()
	require.Len(t, changed, 1)
	bad := version(service("api", "a", "b", "c"), "2")
	bad.Routes = []Route{{Path: "/other"}}

	entries := tb.Observe(noon.Add(time.Millisecond), []Service{version(service("api", "a", "b", "c"), "2"), service("web", "x", "y")})
	api := find(t, entries, "api")
	assert.Equal(t, "api[a b] web[x y]", rotation(entries), "the others move on")
	assert.Equal(t, "api=quarantined web=fresh", states(entries))
	assert.Equal(t, "its last good state is kept: no such version", api.Reason)
	assert.Equal(t, noon, api.Since)
	assert.True(t, api.Refused)
	assert.Equal(t, "1", api.Instances[0].Version)
	assert.Equal(t, noon.Add(retrySame), tb.NextDeadline())

	t.Run("instances leave the rotation, and new ones don't join it", func(t *testing.T) {
		entries := tb.Observe(noon.Add(time.Second), []Service{version(service("api", "a", "b:maintenance", "c"), "2")})
		assert.Equal(t, "api[a] web[x y]", rotation(entries))
		assert.Equal(t, Quarantined, find(t, entries, "api").State)
		assert.Empty(t, tb.Suspects([]Entry{find(t, entries, "api")}))
		tb.NginxAccepted(entries)
		entries = tb.Observe(noon.Add(time.Second), []Service{version(service("api", "a", "b", "c"), "2")})
		assert.Equal(t, "api[a b] web[x y]", rotation(entries), "but it can come back")
	})
	t.Run("an instance with another address is a new one", func(t *testing.T) {
		api := version(service("api", "a", "b", "c"), "2")
		api.Instances[1].Address = "new.api"
		assert.True(t, tb.Refuse(noon, find(t, tb.Observe(noon, []Service{api}), "api"), Refusal{Reason: "no such version"}), "it was tried, because it is new")
		assert.Equal(t, "api[a] web[x y]", rotation(tb.Observe(noon, []Service{api})))
	})
	t.Run("the quarantine ends when nginx accepts other data", func(t *testing.T) {
		entries := tb.Observe(noon.Add(2*time.Second), []Service{version(service("api", "a", "b", "c"), "3")})
		api := find(t, entries, "api")
		assert.False(t, api.Refused, "other data is tried at once")
		assert.Equal(t, Quarantined, api.State, "but the quarantine goes on")
		assert.Equal(t, "tried again after it was refused: no such version", api.Reason)
		tb.NginxAccepted(entries)
		entries = tb.Observe(noon.Add(3*time.Second), []Service{version(service("api", "a", "b", "c"), "3")})
		assert.Equal(t, Fresh, find(t, entries, "api").State)
		assert.Equal(t, noon.Add(3*time.Second), find(t, entries, "api").Since)
	})
}

func TestARefusedServiceThatNginxNeverAcceptedIsNotServed(t *testing.T) {
	tb := table(t)
	see := []Service{service("api", "a"), service("web", "x")}
	tb.Refuse(noon, find(t, tb.Observe(noon, see), "api"), Refusal{Reason: "bad"})
	entries := tb.Observe(noon, see)
	api := find(t, entries, "api")
	assert.False(t, api.Served())
	assert.True(t, api.Refused)
	assert.Equal(t, "not served, because there is no earlier good state: bad", api.Reason)
	assert.Len(t, api.Instances, 1, "an operator still sees them")
	tb.NginxAccepted(entries)
	suspects := tb.Suspects(tb.Observe(noon.Add(time.Hour), see))
	require.Len(t, suspects, 1)
	assert.Nil(t, suspects[0].Last, "nginx did not accept what was left out")
}

func TestARefusedServiceKeepsItsRoutes(t *testing.T) {
	tb := table(t)
	api := service("api", "a")
	tb.NginxAccepted(tb.Observe(noon, []Service{api}))
	moved := api
	moved.Routes = []Route{{Path: "/moved"}}
	tb.Refuse(noon, tb.Observe(noon, []Service{moved})[0], Refusal{Reason: "bad"})
	heir := service("heir", "h")
	heir.Routes = api.Routes
	entries := tb.Observe(noon, []Service{moved, heir})
	assert.Equal(t, api.Routes, find(t, entries, "api").Routes)
	assert.Empty(t, find(t, entries, "heir").Routes)
}

func TestRetriesOfRefusedServices(t *testing.T) {
	bad := func(v int) Service { return version(service("api", "a"), fmt.Sprint("bad-", v)) }
	// trials returns the seconds at which the service is tried, while nginx refuses it.
	trials := func(tb *Table, says func(second int) Service, why Refusal, seconds int) []int {
		var tried []int
		for second := range seconds {
			now := noon.Add(time.Duration(second) * time.Second)
			for _, e := range tb.Observe(now, []Service{says(second)}) {
				if !e.Refused {
					tried = append(tried, second)
					tb.Refuse(now, e, why)
				}
			}
		}
		return tried
	}
	t.Run("the same data is tried after a minute, then less and less often", func(t *testing.T) {
		same := func(int) Service { return bad(0) }
		assert.Equal(t, []int{0, 60, 180, 420, 900, 1860, 2820}, trials(table(t), same, Refusal{Reason: "no"}, 3600))
	})
	t.Run("data that keeps changing is tried less and less often", func(t *testing.T) {
		assert.Equal(t, []int{0, 1, 2, 4, 8, 16, 32, 64, 124, 184}, trials(table(t), bad, Refusal{Reason: "no"}, 200))
	})
	t.Run("a changed status is no new data", func(t *testing.T) {
		flaps := func(second int) Service {
			return version(service("api", []string{"a", "a:critical", "a:warning"}[second%3]), "bad")
		}
		assert.Equal(t, []int{0, 60}, trials(table(t), flaps, Refusal{Reason: "no"}, 100))
	})
	t.Run("a port in use is tried once it is free", func(t *testing.T) {
		tb := table(t)
		second := 0
		tb.quarantine.free = func(address string) bool {
			assert.Equal(t, "0.0.0.0:6379", address)
			return second >= 42
		}
		tcp := func(now int) Service {
			second = now
			s := service("api", "a")
			s.Protocol, s.Routes, s.Port = TCP, nil, 6379
			return s
		}
		taken := Refusal{Reason: "taken", Listen: "0.0.0.0:6379"}
		assert.Equal(t, []int{0}, trials(tb, tcp, taken, 42))
		assert.Equal(t, noon.Add(41*time.Second+retryPort), tb.NextDeadline())
		second = 42
		assert.False(t, tb.Observe(noon.Add(42*time.Second), []Service{tcp(42)})[0].Refused)
	})
	t.Run("all services are tried when the templates change", func(t *testing.T) {
		tb := refusing(t)
		tb.RetryRefused()
		see := []Service{version(service("api", "a", "b", "c"), "2")}
		assert.False(t, find(t, tb.Observe(noon, see), "api").Refused)
	})
	t.Run("data that changed meanwhile is tried after a second", func(t *testing.T) {
		tb := table(t)
		old := tb.Observe(noon, []Service{bad(1)})[0]
		tb.Observe(noon, []Service{bad(2)})
		tb.Refuse(noon, old, Refusal{Reason: "no"})
		assert.True(t, tb.Observe(noon, []Service{bad(2)})[0].Refused)
		assert.False(t, tb.Observe(noon.Add(time.Second), []Service{bad(2)})[0].Refused)
	})
}

func TestARepeatedRefusalIsReported(t *testing.T) {
	tb := refusing(t)
	see := func(v string) []Service { return []Service{version(service("api", "a", "b", "c"), v)} }
	old := find(t, tb.Observe(noon, see("2")), "api")
	kept := find(t, tb.Observe(noon, see("2")), "api")
	assert.False(t, tb.Refuse(noon, old, Refusal{Reason: "late"}), "it is in quarantine already")
	assert.Equal(t, kept, find(t, tb.Observe(noon, see("2")), "api"))
	again := find(t, tb.Observe(noon.Add(retrySame), see("2")), "api")
	assert.False(t, tb.Refuse(noon.Add(retrySame), again, Refusal{Reason: "no such version"}))
	other := find(t, tb.Observe(noon.Add(2*retrySame), see("bad, too")), "api")
	assert.True(t, tb.Refuse(noon.Add(2*retrySame), other, Refusal{Reason: "no such version"}))
	assert.Equal(t, noon, find(t, tb.Observe(noon.Add(2*retrySame), see("bad, too")), "api").Since)
}

func TestAStateAcceptedLateIsTheLastGoodOne(t *testing.T) {
	tb := table(t)
	tb.NginxAccepted(tb.Observe(noon, []Service{version(service("api", "a"), "1")}))
	second := tb.Observe(noon, []Service{version(service("api", "a"), "2")})
	third := tb.Observe(noon, []Service{version(service("api", "a"), "3")})
	tb.Refuse(noon, third[0], Refusal{Reason: "bad"})
	<-tb.Changed()
	tb.NginxAccepted(second)
	assert.Len(t, tb.Changed(), 1)
	e := tb.Observe(noon, []Service{version(service("api", "a"), "3")})[0]
	assert.True(t, e.Refused)
	assert.Equal(t, "2", e.Instances[0].Version)
}

func TestSuspects(t *testing.T) {
	tb := table(t)
	tb.NginxAccepted(tb.Observe(noon, []Service{service("a", "1"), service("b", "1"), service("c", "1")}))
	entries := tb.Observe(noon, []Service{service("a", "1"), service("aa", "1"), service("b", "1", "2"), service("c", "1:critical")})
	var got []string
	for _, s := range tb.Suspects(entries) {
		got = append(got, fmt.Sprint(s.Name, " ", s.Last != nil))
	}
	assert.Equal(t, []string{"b true", "c true", "aa false"}, got)
}

func TestTheLastGoodBlockOutlivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	tb := open(t, path)
	tb.NginxAccepted(tb.Observe(noon, []Service{version(service("api", "a", "b"), "1"), service("web", "x")}))
	see := []Service{version(service("api", "a", "b"), "2"), service("web", "x")}
	tb.Refuse(noon, find(t, tb.Observe(noon, see), "api"), Refusal{Reason: "bad"})
	tb.Observe(noon, see)
	require.NoError(t, tb.Save())

	tb = open(t, path)
	suspects := tb.Suspects(tb.Observe(noon, see))
	require.Len(t, suspects, 1, "web is as nginx accepted it")
	assert.Equal(t, "api", suspects[0].Name)
	tb.Refuse(noon, suspects[0].Entry, Refusal{Reason: "bad"})
	api := find(t, tb.Observe(noon, see), "api")
	assert.True(t, api.Served())
	assert.Equal(t, "1", api.Instances[0].Version)
}

func TestFree(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	assert.False(t, Free(listener.Addr().String()))
	require.NoError(t, listener.Close())
	assert.True(t, Free(listener.Addr().String()))
}
