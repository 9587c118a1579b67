package endpoints

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// idle returns a service whose instances with the status warning have a weight of 0, as
// Weights.Warning in Consul can say.
func idle(instances string) []Service {
	s := service("hello", strings.Fields(instances)...)
	for n := range s.Instances {
		if s.Instances[n].Status == Warning {
			s.Instances[n].Weight = 0
		}
	}
	return []Service{s}
}

func TestWeightZero(t *testing.T) {
	tests := []struct {
		name      string
		threshold int // of panic, in percent
		instances string
		failing   string
		want      string // the weights
	}{
		{"no traffic beside another instance", 0, "a b:warning", "", "a=1"},
		{"no traffic beside several instances", 0, "a b:warning c d:warning", "", "a=1 c=1"},
		{"an only instance serves", 0, "a:warning", "", "a=1"},
		{"all serve if no other can", 0, "a:warning b:warning c:critical", "", "a=1 b=1"},
		{"it serves when the others are ejected", 0, "a b:warning", "a", "b=1"},
		{"an ejected one does not serve", 0, "a b:warning", "b", "a=1"},
		{"it serves beside one that fails but is kept", 0, "a b c:warning", "a b", "b=1 c=1"},
		{"in panic it serves with instances that don't pass", 60, "a:critical b:warning", "", "a=1 b=1"},
		{"in panic it gets no traffic beside one that passes", 90, "a b:critical c:warning", "", "a=1 b=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tb := tuned(t, Options{PanicThreshold: tt.threshold})
			tb.Observe(noon, idle(tt.instances))
			fail(tb, strings.Fields(tt.failing)...)
			assert.Equal(t, tt.want, weights(tb.Observe(noon, idle(tt.instances))[0]))
		})
	}
}

func TestAnInstanceWithWeightZeroIsNotMissed(t *testing.T) {
	tb := tuned(t, Options{MinInstances: 4})
	tb.Observe(noon, idle("a b:warning c:warning"))
	assert.Zero(t, tb.Vanishing(idle("a")))
	assert.Equal(t, "hello[a]", rotation(tb.Observe(noon, idle("a"))))

	tb = tuned(t, Options{})
	tb.Observe(noon, idle("a:warning b:warning"))
	assert.Equal(t, 2, tb.Vanishing(nil), "an instance that serves is missed")
	assert.Equal(t, "a=1 b=1", weights(tb.Observe(noon, nil)[0]))
	assert.Equal(t, "c=1", weights(tb.Observe(noon, idle("c"))[0]), "another instance replaces them")
}

func TestAnInstanceWhoseWeightWasZeroComesBackSlowly(t *testing.T) {
	tb := rampingTable(t, Options{SlowStart: 10e9})
	tb.Observe(noon, idle("a b"))
	tb.Observe(noon, idle("a b:warning"))
	assert.Equal(t, "a=10 b=1", weights(tb.Observe(noon, idle("a b"))[0]))
}

func TestWeightZeroCountsInQuarantine(t *testing.T) {
	tb := table(t)
	tb.NginxAccepted(tb.Observe(noon, idle("a b")))
	moved := idle("a b:warning")
	moved[0].Routes = []Route{{Path: "/bad"}}
	assert.True(t, tb.Refuse(noon, tb.Observe(noon, moved)[0], Refusal{Reason: "bad"}))
	e := tb.Observe(noon, moved)[0]
	assert.True(t, e.Refused)
	assert.Equal(t, "a=1", weights(e))
}
