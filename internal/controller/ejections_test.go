package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
	"lbctl/internal/history"
)

// ejected returns an entry with some of its instances ejected.
func ejected(e endpoints.Entry, reason string, instances ...int) endpoints.Entry {
	for _, n := range instances {
		i := e.Instances[n]
		e.Ejections = append(e.Ejections, endpoints.Ejection{Node: i.Node, ID: i.ID, By: endpoints.ByProbe, Reason: reason})
	}
	return e
}

func TestEjectionsAreInTheHistory(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.instancesOf(entry("api", 1), entry("hello", 3))
		f.take()
		r.wait(time.Minute)
		r.instancesOf(entry("api", 1), ejected(entry("hello", 3), "no answer in time", 1))
		f.take()
		r.instancesOf(entry("api", 1), ejected(entry("hello", 3), "no answer in time", 1)) // nothing new
		back := entry("hello", 3)
		back.Ramps = []endpoints.Ramp{{Node: "n", ID: "hello-1", Share: 0.1}}
		r.instancesOf(entry("api", 1), back)
		f.take()
		assert.Equal(t, []string{"applied 1", "ejected 1", "moved 1", "readmitted 1", "moved 1"}, r.events())
		events := r.c.History()
		assert.Equal(t, "hello +1", events[0].Change)
		assert.Equal(t, "hello: hello-1 on n", events[1].Change)
		assert.Empty(t, events[1].Reason)
		assert.Equal(t, "hello: hello-1 on n", events[3].Change)
		assert.Equal(t, "no answer in time", events[3].Reason)
		assert.Equal(t, 1, r.status().LastApply.Generation)
		assert.Equal(t, history.Applied, r.status().LastApply.Outcome)
	})
}

func TestManyEjectionsAreOneEvent(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		e := ejected(entry("hello", 9), "connection refused", 0, 1, 2, 3, 4, 5)
		e.Ejections[5].Kept = true
		r.instancesOf(e)
		event := r.c.History()[1] // the apply came after it
		assert.Equal(t, "hello: hello-0 on n, hello-1 on n, hello-2 on n, hello-3 on n, 2 instances more", event.Change)
		assert.Equal(t, "connection refused; kept in rotation, because not enough others can serve: 1 instance", event.Reason)
	})
}

func TestAnInstanceThatLeavesConsulIsNotReadmitted(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.instancesOf(ejected(entry("hello", 3), "connection refused", 2))
		f.take()
		r.instancesOf(entry("hello", 2))
		f.take()
		assert.NotContains(t, r.events(), "readmitted 1")
	})
}
