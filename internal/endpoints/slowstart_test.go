package endpoints

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/policy/policytest"
)

// rampingTable returns a table whose services' weights change without a reload.
func rampingTable(t *testing.T, opts Options) *Table {
	tb := tuned(t, opts)
	tb.SetByReload(nil)
	return tb
}

// weights returns an entry's rotation as "a=10 b=1".
func weights(e Entry) string {
	var all []string
	for _, i := range e.Rotation() {
		all = append(all, fmt.Sprintf("%s=%d", i.ID, i.Weight))
	}
	return strings.Join(all, " ")
}

func TestSlowStart(t *testing.T) {
	type step struct {
		after     time.Duration
		instances string
		want      string // the weights
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"an instance returns from maintenance in ten steps", []step{
			{0, "a b", "a=1 b=1"},
			{0, "a b:maintenance", "a=1"},
			{time.Minute, "a b", "a=10 b=1"},
			{1100 * time.Millisecond, "a b", "a=10 b=1"},
			{100 * time.Millisecond, "a b", "a=10 b=2"},
			{4 * time.Second, "a b", "a=10 b=5"},
			{4700 * time.Millisecond, "a b", "a=10 b=9"},
			{200 * time.Millisecond, "a b", "a=1 b=1"},
		}},
		{"new instances have their full weight", []step{
			{0, "a", "a=1"},
			{0, "a b", "a=1 b=1"},
			{0, "a b c:critical", "a=1 b=1"},
			{0, "a b c", "a=1 b=1 c=1"},
		}},
		{"an instance that was gone from the catalog is new", []step{
			{0, "a b c d", "a=1 b=1 c=1 d=1"},
			{0, "a b c", "a=1 b=1 c=1"},
			{0, "a b c d", "a=1 b=1 c=1 d=1"},
		}},
		{"when all return there is no slow start until another one joins", []step{
			{0, "a b", "a=1 b=1"},
			{0, "a:maintenance b:maintenance", ""},
			{0, "a b", "a=1 b=1"},
			{time.Second, "a b c", "a=1 b=1 c=10"},
		}},
		{"instances that return one after the other", []step{
			{0, "a b", "a=1 b=1"},
			{0, "a:maintenance b:maintenance", ""},
			{0, "a b:maintenance", "a=1"},
			{3 * time.Second, "a b", "a=1 b=1"},
			{time.Second, "a b c", "a=4 b=1 c=10"},
		}},
		{"no slow start in panic", []step{
			{0, "a b", "a=1 b=1"},
			{0, "a:critical b:maintenance", "a=1"},
			{0, "a:critical b:critical", "a=1 b=1"},
		}},
		{"no slow start after panic", []step{
			{0, "a b", "a=1 b=1"},
			{0, "a:critical b:critical", "a=1 b=1"},
			{0, "a b", "a=1 b=1"},
		}},
		{"a second failure starts over", []step{
			{0, "a b", "a=1 b=1"},
			{0, "a b:critical", "a=1"},
			{0, "a b", "a=10 b=1"},
			{5 * time.Second, "a b:critical", "a=1"},
			{time.Second, "a b", "a=10 b=1"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tb := rampingTable(t, Options{SlowStart: 10 * time.Second})
			now := noon
			for n, s := range tt.steps {
				now = now.Add(s.after)
				services := []Service{service("hello", strings.Fields(s.instances)...)}
				got := tb.Observe(now, services)
				assert.Equal(t, s.want, weights(got[0]), "step %d", n)
				assert.Equal(t, got, tb.Observe(now, services), "step %d, observed again", n)
			}
		})
	}
}

func TestAnEjectedInstanceComesBackSlowly(t *testing.T) {
	tb := rampingTable(t, Options{SlowStart: 4 * time.Second})
	all := []Service{service("hello", "a", "b")}
	tb.Observe(noon, all)
	fail(tb, "b")
	assert.Equal(t, "a=1", weights(tb.Observe(noon, all)[0]))
	assert.Zero(t, tb.NextDeadline())
	tb.Readmit("hello", "node-b", "b", ByProbe)
	var seen []string
	now := noon
	for {
		seen = append(seen, weights(tb.Observe(now, all)[0]))
		next := tb.NextDeadline()
		if next.IsZero() {
			break
		}
		require.GreaterOrEqual(t, next.Sub(now), time.Second)
		now = next
	}
	assert.Equal(t, []string{"a=10 b=2", "a=10 b=4", "a=10 b=6", "a=10 b=8", "a=1 b=1"}, seen)
	assert.Equal(t, noon.Add(4*time.Second), now)
}

func TestSlowStartNeedsDeliveryByDNS(t *testing.T) {
	out, back := service("hello", "a", "b:critical"), service("hello", "a", "b")
	for name, tb := range map[string]*Table{
		"switched off":                 rampingTable(t, Options{}),
		"consistent hashing":           rampingTable(t, Options{SlowStart: time.Minute}),
		"before the first SetByReload": tuned(t, Options{SlowStart: time.Minute}),
		"a service by reload": func() *Table {
			tb := tuned(t, Options{SlowStart: time.Minute})
			tb.SetByReload(map[string]string{"hello": "why"})
			return tb
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			out, back := out, back
			if name == "consistent hashing" {
				out.Policy = policytest.Settings("balance.algorithm", "hash:address")
				back.Policy = out.Policy
			}
			tb.Observe(noon, []Service{back})
			tb.Observe(noon, []Service{out})
			assert.Equal(t, "a=1 b=1", weights(tb.Observe(noon, []Service{back})[0]))
			assert.Zero(t, tb.NextDeadline())
		})
	}
}

func TestWeightsStayInBounds(t *testing.T) {
	heavy := func(instances ...string) []Service {
		s := service("hello", instances...)
		s.Instances[0].Weight, s.Instances[1].Weight = 20000, 20
		return []Service{s}
	}
	tb := rampingTable(t, Options{SlowStart: 9 * time.Second})
	tb.Observe(noon, heavy("a", "b"))
	tb.Observe(noon, heavy("a", "b:critical"))
	assert.Equal(t, "a=60000 b=6", weights(tb.Observe(noon, heavy("a", "b"))[0]))
	e := tb.Observe(noon.Add(time.Second), heavy("a", "b"))[0]
	assert.Equal(t, "a=60000 b=12", weights(e))
	assert.Equal(t, 20, e.Instances[1].Weight, "Consul's weight is unchanged")
}

// TestAFailingInstancePutsOffStepsOfTheOthers has a service with the instances a and c, and
// b in slow start. c fails its probe before the second step.
func TestAFailingInstancePutsOffStepsOfTheOthers(t *testing.T) {
	all := []Service{service("hello", "a", "b", "c")}
	at := func(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }
	rising := func(t *testing.T) *Table {
		tb := rampingTable(t, Options{SlowStart: 4 * time.Second})
		tb.Observe(noon, all)
		tb.Observe(noon, []Service{service("hello", "a", "b:critical", "c")})
		assert.Equal(t, "a=10 b=2 c=10", weights(tb.Observe(noon, all)[0]))
		tb.NoteProbe("hello", "node-c", "c", false)
		assert.Equal(t, at(1), tb.NextDeadline())
		return tb
	}
	putOff := func(t *testing.T) *Table {
		tb := rising(t)
		assert.Equal(t, "a=10 b=2 c=10", weights(tb.Observe(at(1), all)[0]), "the step is put off")
		assert.Equal(t, "a=10 b=2 c=10", weights(tb.Observe(at(2.5), all)[0]), "so is the next one")
		changed(tb)
		return tb
	}
	t.Run("until it is ejected", func(t *testing.T) {
		tb := putOff(t)
		fail(tb, "c")
		assert.True(t, changed(tb))
		assert.Equal(t, "a=10 b=6", weights(tb.Observe(at(2.6), all)[0]), "one change of the list")
		assert.Equal(t, at(3), tb.NextDeadline())
		assert.Equal(t, "a=10 b=8", weights(tb.Observe(at(3), all)[0]))
	})
	t.Run("until it passes", func(t *testing.T) {
		tb := putOff(t)
		tb.NoteProbe("hello", "node-c", "c", true)
		assert.True(t, changed(tb))
		assert.Equal(t, "a=10 b=6 c=10", weights(tb.Observe(at(2.6), all)[0]))
	})
	t.Run("for five seconds at most", func(t *testing.T) {
		tb := putOff(t)
		assert.Equal(t, at(6), tb.NextDeadline())
		assert.Equal(t, "a=10 b=2 c=10", weights(tb.Observe(at(5.9), all)[0]))
		assert.Equal(t, "a=1 b=1 c=1", weights(tb.Observe(at(6), all)[0]), "the slow start is over")
		assert.Zero(t, tb.NextDeadline())
	})
	t.Run("until it is gone", func(t *testing.T) {
		tb := putOff(t)
		assert.Equal(t, "a=10 b=6", weights(tb.Observe(at(2.6), []Service{service("hello", "a", "b")})[0]))
		assert.Equal(t, "a=10 b=8 c=10", weights(tb.Observe(at(3.1), all)[0]), "its return is not put off")
	})
	for name, without := range map[string]func(tb *Table) []Service{
		"not if it is ejected but kept": func(tb *Table) []Service {
			fail(tb, "a", "c") // only one of three may be ejected
			return all
		},
		"not if it gets no traffic": func(*Table) []Service {
			return []Service{service("hello", "a", "b", "c:critical")}
		},
		"not if the service is not probed": func(*Table) []Service {
			s := service("hello", "a", "b", "c")
			s.Policy = policytest.Settings("check", "none")
			return []Service{s}
		},
	} {
		t.Run(name, func(t *testing.T) {
			tb := rising(t)
			e := tb.Observe(at(1), without(tb))[0]
			assert.Contains(t, weights(e), "b=4")
		})
	}
}

// changed reports whether Changed has fired.
func changed(tb *Table) bool {
	select {
	case <-tb.Changed():
		return true
	default:
		return false
	}
}
