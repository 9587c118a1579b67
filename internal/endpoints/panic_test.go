package endpoints

import (
	"cmp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tuned returns a table with options and without a snapshot.
func tuned(t *testing.T, opts Options) *Table {
	t.Helper()
	opts.GuardHold = cmp.Or(opts.GuardHold, guardHold)
	tb, err := Open("", opts)
	require.NoError(t, err)
	return tb
}

func TestPanic(t *testing.T) {
	many := service("hello", "a")
	for range 299 {
		many.Instances = append(many.Instances, service("hello", string(rune('b'+len(many.Instances)))+":critical").Instances...)
	}
	tests := []struct {
		name      string
		threshold int
		service   Service
		rotation  string // "" for not compared
		reason    string // "" for no panic
	}{
		{"none of three passes", 0, service("hello", "a:critical", "b:critical", "c:critical"), "hello[a b c]",
			"none of 3 instances passes its checks: all get traffic"},
		{"the only instance was critical from the start", 0, service("hello", "a:critical"), "hello[a]",
			"its only instance does not pass its checks: it gets traffic nevertheless"},
		{"instances in maintenance are not tried", 0, service("hello", "a:critical", "b:critical", "c:maintenance"), "hello[a b]",
			"none of 2 instances passes its checks: all get traffic, except 1 in maintenance"},
		{"the only one that is not in maintenance", 0, service("hello", "a:critical", "b:maintenance"), "hello[a]",
			"its only instance that is not in maintenance does not pass its checks: it gets traffic nevertheless"},
		{"all in maintenance is no panic", 100, service("hello", "a:maintenance", "b:maintenance"), "hello[]", ""},
		{"one of three hundred is enough by default", 0, many, "", ""},
		{"a warning is not a failure", 100, service("hello", "a:warning", "b"), "hello[a b]", ""},
		{"half is not less than half", 50, service("hello", "a", "b:critical"), "hello[a]", ""},
		{"a third is less than half", 50, service("hello", "a", "b:critical", "c:critical"), "hello[a b c]",
			"only 1 of 3 instances is in rotation, which is less than 50 %: all get traffic"},
		{"two of five are less than half", 50, service("hello", "a", "b", "c:critical", "d:critical", "e:critical"), "hello[a b c d e]",
			"only 2 of 5 instances are in rotation, which is less than 50 %: all get traffic"},
		{"maintenance does not count", 50, service("hello", "a", "b:critical", "c:maintenance"), "hello[a]", ""},
		{"switched off", -1, service("hello", "a:critical", "b:critical"), "hello[]", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := tuned(t, Options{PanicThreshold: tt.threshold}).Observe(noon, []Service{tt.service})
			if tt.rotation != "" {
				assert.Equal(t, tt.rotation, rotation(e))
			}
			assert.Equal(t, tt.reason, e[0].Reason)
			assert.Equal(t, tt.reason != "", e[0].Panicking)
			if tt.reason != "" {
				assert.Equal(t, Panic, e[0].State)
			} else {
				assert.Equal(t, Fresh, e[0].State)
			}
		})
	}
}

func TestPanicBeginsAndEnds(t *testing.T) {
	tb := table(t)
	tb.Observe(noon, []Service{service("hello", "a", "b")})
	e := tb.Observe(noon.Add(time.Second), []Service{service("hello", "a:critical", "b:critical")})[0]
	assert.Equal(t, Panic, e.State)
	e = tb.Observe(noon.Add(time.Minute), []Service{service("hello", "a:critical", "b:critical")})[0]
	assert.Equal(t, noon.Add(time.Second), e.Since)
	got := tb.Observe(noon.Add(time.Hour), []Service{service("hello", "a:critical", "b")})
	assert.Equal(t, "hello=fresh", states(got))
	assert.Equal(t, "hello[b]", rotation(got))
	assert.Equal(t, noon.Add(time.Hour), got[0].Since)
}

func TestHeldInstancesAreInRotationForPanic(t *testing.T) {
	all := []Service{service("hello", "a", "b")}
	t.Run("held instances can be enough", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, all)
		got := tb.Observe(noon, []Service{service("hello", "c:critical")})
		assert.Equal(t, "hello=held", states(got))
		assert.Equal(t, "hello[a b]", rotation(got))
	})
	t.Run("too few held instances are tried with the critical ones", func(t *testing.T) {
		tb := tuned(t, Options{PanicThreshold: 60})
		tb.Observe(noon, all)
		got := tb.Observe(noon, []Service{service("hello", "c:critical", "d:critical", "e:maintenance")})
		assert.Equal(t, "hello=panic", states(got))
		assert.Equal(t, "hello[a b c d]", rotation(got))
		assert.Contains(t, got[0].Reason, "vanished from the catalog at once; 2 kept in rotation; only 2 of 4 instances are in rotation")
	})
}

func TestAServiceWithoutAValidDescriptionDoesNotPanic(t *testing.T) {
	bad := service("hello", "a:critical")
	bad.OK, bad.Protocol, bad.Routes = false, "", nil
	e := table(t).Observe(noon, []Service{bad})[0]
	assert.Equal(t, Quarantined, e.State)
	assert.NotContains(t, e.Reason, "tried")
}
