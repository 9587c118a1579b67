package endpoints

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/policy/policytest"
)

func TestMinimumInstances(t *testing.T) {
	least := func(n int, instances ...string) Service {
		s := service("hello", instances...)
		if n > 0 {
			s.Policy = policytest.Settings("min-instances", strconv.Itoa(n))
		}
		return s
	}
	tests := []struct {
		name          string
		option        int
		before, after Service
		want          string // the rotation
	}{
		{"instances below the minimum are held", 0, least(2, "a", "b", "c"), least(2, "a"), "hello[a b c]"},
		{"instances above the minimum go", 0, least(2, "a", "b", "c"), least(2, "a", "b"), "hello[a b]"},
		{"instances that left gracefully go", 0, least(3, "a", "b", "c:critical"), least(3, "a", "b"), "hello[a b]"},
		{"an instance that fails its checks leaves the rotation", 0, least(2, "a", "b"), least(2, "a", "b:critical"), "hello[a]"},
		{"a replaced instance goes", 0, least(2, "a", "b"), least(2, "b", "c"), "hello[b c]"},
		{"without a minimum nothing is held", 0, least(0, "a", "b", "c"), least(0, "a"), "hello[a]"},
		{"the option applies to all services", 2, least(0, "a", "b", "c"), least(0, "a"), "hello[a b c]"},
		{"a service's own minimum overrides the option", 3, least(1, "a", "b", "c"), least(1, "a"), "hello[a]"},
		{"a lowered minimum counts at once", 0, least(3, "a", "b", "c"), least(1, "a"), "hello[a]"},
		{"the last good minimum counts while the data is invalid", 0, least(2, "a", "b"),
			Service{Name: "hello", Instances: service("hello", "a").Instances}, "hello[a b]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tb := tuned(t, Options{MinInstances: tt.option})
			tb.Observe(noon, []Service{tt.before})
			got := tb.Observe(noon.Add(time.Second), []Service{tt.after})
			assert.Equal(t, tt.want, rotation(got))
			assert.Equal(t, got, tb.Observe(noon.Add(time.Second), []Service{tt.after}), "observed again")
		})
	}
}

func TestHeldForTheMinimumEndLikeOthers(t *testing.T) {
	three, one := service("hello", "a", "b", "c"), service("hello", "a")
	three.Policy, one.Policy = policytest.Settings("min-instances", "2"), policytest.Settings("min-instances", "2")
	tb := table(t)
	tb.Observe(noon, []Service{three})
	e := tb.Observe(noon, []Service{one})[0]
	assert.Equal(t, Held, e.State)
	assert.Equal(t, "2 instances vanished from the catalog and left 1 in rotation, less than the minimum of 2; 2 kept in rotation", e.Reason)
	assert.True(t, tb.Release("hello", "node-b", "b"))
	assert.Equal(t, "hello[a c]", rotation(tb.Observe(noon, []Service{one})))
	assert.Equal(t, noon.Add(5*time.Minute), tb.NextDeadline())
	assert.Equal(t, "hello[a]", rotation(tb.Observe(tb.NextDeadline(), []Service{one})))
}

func TestTheMinimumSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	two := service("hello", "a", "b")
	two.Policy = policytest.Settings("min-instances", "2")
	tb := open(t, path)
	tb.Observe(noon, []Service{two})
	require.NoError(t, tb.Save())
	bad := Service{Name: "hello", Instances: service("hello", "a").Instances}
	assert.Equal(t, "hello[a b]", rotation(open(t, path).Observe(noon, []Service{bad})))
}
