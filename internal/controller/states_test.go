package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/consul"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/render"
)

// inState returns an entry that has just come into a state.
func inState(e endpoints.Entry, state endpoints.State, reason string) endpoints.Entry {
	e.State, e.Reason, e.Since = state, reason, time.Now()
	return e
}

func TestStatesOfServicesAreInTheHistory(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.instancesOf(entry("api", 1), entry("hello", 3))
		f.take()
		r.wait(time.Minute)
		held := inState(entry("hello", 3), endpoints.Held, "2 of 3 instances vanished")
		r.instancesOf(inState(entry("api", 1), endpoints.Quarantined, `lb-path "cart"`), held)
		r.instancesOf(entry("api", 1), held)
		r.instancesOf(entry("api", 1), inState(entry("hello", 3), endpoints.Panic, "no instance passes its checks"))
		r.instancesOf(entry("api", 1)) // gone, which is a change of the configuration
		r.instancesOf(entry("api", 1), inState(entry("new", 1), endpoints.Quarantined, "no protocol"))
		assert.Equal(t, []string{"applied 1", "held 1", "quarantined 1", "recovered 1", "panic 1", "quarantined 1"}, r.events())
		events := r.c.History()
		assert.Equal(t, "new", events[0].Change)
		assert.Equal(t, "no protocol", events[0].Reason)
		assert.Equal(t, "api", events[2].Change)
		assert.Empty(t, events[2].Reason)
		assert.Equal(t, "2 of 3 instances vanished", events[4].Reason)
	})
}

func TestManyServicesInAStateAreOneEvent(t *testing.T) {
	asking(t, func(r *rig, _ *fakeEndpoints) {
		var fresh, stale []endpoints.Entry
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			fresh = append(fresh, entry(name, 1))
			stale = append(stale, inState(entry(name, 1), endpoints.Stale, "Consul gives no answer"))
		}
		stale[5].Reason = "Consul gives no answer for 30s"
		r.instancesOf(fresh...)
		r.instancesOf(stale...)
		event := r.c.History()[0]
		assert.Equal(t, history.Stale, event.Kind)
		assert.Equal(t, "a, b, c, d and 2 services more", event.Change)
		assert.Equal(t, "Consul gives no answer; Consul gives no answer for 30s", event.Reason)
	})
}

func TestAStateFromBeforeTheStartIsNoEvent(t *testing.T) {
	asking(t, func(r *rig, _ *fakeEndpoints) {
		old := inState(entry("hello", 3), endpoints.Quarantined, `lb-path "cart"`)
		r.wait(time.Minute)
		r.restart()
		r.instancesOf(old, inState(entry("new", 1), endpoints.Quarantined, "no protocol"))
		assert.Equal(t, []string{"quarantined 0", "applied 1"}, r.events())
		assert.Equal(t, "new", r.c.History()[1].Change)
	})
}

// sayConsul changes the state of Consul, as its monitor does.
func (r *rig) sayConsul(s consul.Status) {
	s.Since = time.Now()
	r.source.tell(func(to *render.Status) {
		if s.Contact = to.Consul.Contact; s.Up() {
			s.Contact = s.Since
		}
		to.Consul = s
	})
}

var (
	consulUp   = consul.Status{Reachable: true, Leader: "10.0.0.1:8300"}
	consulGone = consul.Status{LastError: "connection refused"}
)

func TestConsulAwayAndBackAreInTheHistory(t *testing.T) {
	bubble(t, func(r *rig) {
		say := func(s consul.Status) {
			r.sayConsul(s)
			r.wait(10 * time.Second)
		}
		say(consulUp)
		say(consulGone)
		say(consul.Status{Reachable: true, LastError: "no leader"}) // another reason, not another outage
		say(consulUp)
		assert.Equal(t, []string{"consul_down 0", "consul_up 0"}, r.events())
		events := r.c.History()
		assert.Equal(t, "connection refused", events[1].Reason)
		assert.InDelta(t, 20, events[0].TookSeconds, 0.001)
	})
}

func TestAConsulThatStartsTogetherWithLbctlIsNoEvent(t *testing.T) {
	bubble(t, func(r *rig) {
		r.sayConsul(consulGone)
		r.wait(startPatience - time.Second)
		r.sayConsul(consulUp)
		r.wait(time.Minute)
		assert.Empty(t, r.events())
		r.sayConsul(consulGone)
		r.wait(5 * time.Second)
		assert.Equal(t, []string{"consul_down 0"}, r.events(), "it has been up")
	})
}

func TestAConsulThatIsStillAwayAfterTheStart(t *testing.T) {
	bubble(t, func(r *rig) {
		r.sayConsul(consulGone)
		began := time.Now()
		r.wait(time.Second)
		r.say("a") // of the snapshot
		r.wait(startPatience - 2*time.Second)
		assert.Equal(t, []string{"applied 1"}, r.events())
		r.wait(10 * time.Second)
		assert.Equal(t, []string{"consul_down 1", "applied 1"}, r.events(), "in the order of their times")
		assert.Equal(t, began, r.c.History()[1].Time)
	})
}

func TestAConsulThatRefusesLbctlAtTheStart(t *testing.T) {
	bubble(t, func(r *rig) {
		r.sayConsul(consul.Status{Reachable: true, Refused: true, LastError: "ACL not found"})
		r.wait(5 * time.Second)
		assert.Equal(t, []string{"consul_down 0"}, r.events(), "waiting would not help")
	})
}

func TestStartsAndEndsOfLbctlAreInTheHistory(t *testing.T) {
	bubble(t, func(r *rig) {
		r.restart()
		var kinds []history.Kind
		for _, e := range r.c.History() {
			kinds = append(kinds, e.Kind)
			assert.Equal(t, "lbctl test", e.Reason)
		}
		assert.Equal(t, []history.Kind{history.Started, history.Stopped, history.Started}, kinds)
	})
}
