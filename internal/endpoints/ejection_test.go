package endpoints

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/policy/policytest"
)

// fail ejects instances of the service hello, a second after each other.
func fail(tb *Table, ids ...string) {
	for n, name := range ids {
		tb.Eject("hello", name+".hello:7777", Ejection{Node: "node-" + name, ID: name, By: ByProbe, Reason: "connection refused", Since: noon.Add(time.Duration(n) * time.Second)})
	}
}

func TestEjection(t *testing.T) {
	tests := []struct {
		name    string
		share   float64
		service Service
		failing []string
		want    string // the rotation
	}{
		{"one of three", 0, service("hello", "a", "b", "c"), []string{"b"}, "hello[a c]"},
		{"one of two", 0, service("hello", "a", "b"), []string{"b"}, "hello[a]"},
		{"the only one stays", 0, service("hello", "a"), []string{"a"}, "hello[a]"},
		{"the only one in rotation stays", 0, service("hello", "a", "b:critical"), []string{"a"}, "hello[a]"},
		{"no more than half, those that failed first", 0, service("hello", "a", "b", "c", "d"), []string{"d", "b", "a"}, "hello[a c]"},
		{"half of all stays", 0, service("hello", "a", "b", "c", "d"), []string{"a", "b", "c", "d"}, "hello[c d]"},
		{"one of five is more than a tenth, and one is always possible", 0.1, service("hello", "a", "b", "c", "d", "e"), []string{"a", "b"}, "hello[b c d e]"},
		{"with a share of 1 one stays", 1, service("hello", "a", "b", "c"), []string{"a", "b", "c"}, "hello[c]"},
		{"an instance that Consul has out of rotation is not ejected", 0, service("hello", "a", "b", "c:critical"), []string{"c"}, "hello[a b]"},
		{"an unknown instance", 0, service("hello", "a", "b"), []string{"x"}, "hello[a b]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tb := tuned(t, Options{MaxEjected: tt.share})
			tb.Observe(noon, []Service{tt.service})
			fail(tb, tt.failing...)
			<-tb.Changed()
			got := tb.Observe(noon.Add(time.Minute), []Service{tt.service})
			assert.Equal(t, tt.want, rotation(got))
			assert.Equal(t, "hello=fresh", states(got))
			assert.Equal(t, got, tb.Observe(noon.Add(time.Minute), []Service{tt.service}), "observed again")
		})
	}
}

func TestEjectionsAreCounted(t *testing.T) {
	tb := table(t)
	all := []Service{service("hello", "a", "b", "c"), service("web", "d", "e")}
	tb.Observe(noon, all)
	assert.Empty(t, tb.Ejected())
	fail(tb, "a", "b")
	fail(tb, "a") // still
	tb.Eject("hello", "b.hello:7777", Ejection{Node: "node-b", ID: "b", By: ByOutlier, Since: noon})
	want := map[string]map[Ejector]int{"hello": {ByProbe: 2, ByOutlier: 1}}
	assert.Equal(t, want, tb.Ejected())
	tb.Readmit("hello", "node-a", "a", ByProbe)
	tb.Observe(noon.Add(time.Minute), all)
	assert.Equal(t, want, tb.Ejected(), "it counts ejections, not instances that are ejected")
	fail(tb, "a")
	want["hello"][ByProbe] = 3
	assert.Equal(t, want, tb.Ejected())
	assert.ElementsMatch(t, []Ejector{ByProbe, ByOutlier}, Ejectors())

	tb.Observe(noon.Add(2*time.Minute), all[1:])
	tb.Accept("")
	tb.Observe(noon.Add(3*time.Minute), all[1:])
	assert.Empty(t, tb.Ejected(), "the service is gone")
}

func TestEntriesListEjections(t *testing.T) {
	tb := table(t)
	all := []Service{service("hello", "a", "b", "c")}
	tb.Observe(noon, all)
	fail(tb, "b", "a")
	e := tb.Observe(noon, all)[0]
	assert.Equal(t, []Ejection{
		{Node: "node-a", ID: "a", By: ByProbe, Reason: "connection refused", Since: noon.Add(time.Second), Kept: true},
		{Node: "node-b", ID: "b", By: ByProbe, Reason: "connection refused", Since: noon},
	}, e.Ejections)
	out, ok := e.Ejection(e.Instances[1])
	assert.True(t, ok)
	assert.Equal(t, noon, out.Since)
	_, ok = e.Ejection(e.Instances[2])
	assert.False(t, ok)
}

func TestAnEjectionEnds(t *testing.T) {
	two := []Service{service("hello", "a", "b")}
	ejected := func(t *testing.T) *Table {
		tb := table(t)
		tb.Observe(noon, two)
		fail(tb, "b")
		require.Equal(t, "hello[a]", rotation(tb.Observe(noon, two)))
		<-tb.Changed()
		return tb
	}
	t.Run("by the source that ejected it", func(t *testing.T) {
		tb := ejected(t)
		tb.Readmit("hello", "node-b", "b", Ejector("other"))
		tb.Readmit("hello", "node-b", "x", ByProbe)
		tb.Readmit("other", "node-b", "b", ByProbe)
		assert.Equal(t, "hello[a]", rotation(tb.Observe(noon, two)))
		tb.Readmit("hello", "node-b", "b", ByProbe)
		<-tb.Changed()
		assert.Equal(t, "hello[a b]", rotation(tb.Observe(noon, two)))
	})
	t.Run("when Consul takes it out of the rotation", func(t *testing.T) {
		tb := ejected(t)
		tb.Observe(noon, []Service{service("hello", "a", "b:maintenance")})
		assert.Equal(t, "hello[a b]", rotation(tb.Observe(noon, two)))
	})
	t.Run("when it has another address", func(t *testing.T) {
		tb := ejected(t)
		moved := service("hello", "a", "b")
		moved.Instances[1].Address = "10.0.0.9"
		assert.Equal(t, "hello[a b]", rotation(tb.Observe(noon, []Service{moved})))
	})
	t.Run("when it is no longer probed", func(t *testing.T) {
		tb := ejected(t)
		unasked := service("hello", "a", "b")
		unasked.Policy = policytest.Settings("check", "none")
		assert.Equal(t, "hello[a b]", rotation(tb.Observe(noon, []Service{unasked})))
		assert.Equal(t, "hello[a b]", rotation(tb.Observe(noon, two)))
	})
	t.Run("when the others are gone", func(t *testing.T) {
		tb := ejected(t)
		assert.Equal(t, "hello[b]", rotation(tb.Observe(noon, []Service{service("hello", "a:critical", "b")})))
	})
}

func TestEjectedInstancesAreTriedInPanic(t *testing.T) {
	tb := tuned(t, Options{PanicThreshold: 60})
	all := []Service{service("hello", "a", "b", "c:critical")}
	assert.Equal(t, "hello=fresh", states(tb.Observe(noon, all)))
	fail(tb, "a")
	got := tb.Observe(noon, all)
	assert.Equal(t, "hello=panic", states(got))
	assert.Equal(t, "hello[a b c]", rotation(got))
	assert.Equal(t, "only 1 of 3 instances is in rotation, which is less than 60 %: all get traffic", got[0].Reason)
	assert.True(t, got[0].Ejections[0].Kept)
}

func TestAnEjectedInstanceThatVanishesIsNotHeld(t *testing.T) {
	all := []Service{service("hello", "a", "b", "c", "d")}
	tb := tuned(t, Options{MinInstances: 4})
	tb.Observe(noon, all)
	fail(tb, "b", "c", "d")
	assert.Equal(t, "hello[a d]", rotation(tb.Observe(noon, all)))
	assert.Zero(t, tb.Vanishing([]Service{service("hello", "a", "d")}))
	assert.Equal(t, 1, tb.Vanishing([]Service{service("hello", "a", "b")}))
	assert.Equal(t, "hello[a d]", rotation(tb.Observe(noon, []Service{service("hello", "a")})), "the instance that was kept is held")
}
