package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lbctl/internal/consul"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
)

// stateKinds are the events of services that come into a state, in the order of the history.
var stateKinds = []struct {
	state endpoints.State
	kind  history.Kind
}{
	{endpoints.Fresh, history.Recovered},
	{endpoints.Stale, history.Stale},
	{endpoints.LastKnownGood, history.LastKnownGood},
	{endpoints.Held, history.Held},
	{endpoints.Panic, history.Panic},
	{endpoints.Quarantined, history.Quarantined},
}

// recordStates adds the changes of the services' states between two lists of entries to the
// history. Both lists are sorted by name. before is nil for the first list of this process: a state
// that an earlier process has found is no news then.
func (l *loop) recordStates(now time.Time, before, after []endpoints.Entry) {
	isFirst := before == nil
	changed := map[endpoints.State][]*endpoints.Entry{}
	for old, e := range withFormer(before, after) {
		was := endpoints.Fresh // a new service is as Consul has it, or this is news
		if old != nil {
			was = old.State
		}
		if e.State != was && !(isFirst && e.Since.Before(l.began)) {
			changed[e.State] = append(changed[e.State], e)
		}
	}
	for _, of := range stateKinds {
		l.addStates(now, of.kind, changed[of.state])
	}
}

// addStates adds an event for each of the services, or one for all if there are many: all services
// may lose Consul at once.
func (l *loop) addStates(now time.Time, kind history.Kind, services []*endpoints.Entry) {
	event := history.Event{Time: now, Kind: kind, Generation: l.current.Number}
	if len(services) <= changesListed {
		for _, e := range services {
			event.Change, event.Reason = e.Name, e.Reason
			l.history.Add(event)
		}
		return
	}
	names := make([]string, 0, changesListed)
	var reasons []string
	for n, e := range services {
		if n < changesListed {
			names = append(names, e.Name)
		}
		if len(reasons) <= changesListed && e.Reason != "" && !slices.Contains(reasons, e.Reason) {
			reasons = append(reasons, e.Reason)
		}
	}
	if len(reasons) > changesListed {
		reasons[changesListed] = "and others"
	}
	event.Change = fmt.Sprintf("%s and %s more", strings.Join(names, ", "), plural(len(services)-len(names), "service"))
	event.Reason = strings.Join(reasons, "; ")
	l.history.Add(event)
}

// recordConsul adds an event if Consul has gone away or come back since the last call. The monitor
// of Consul has logged it already.
func (l *loop) recordConsul(now time.Time, s consul.Status) {
	switch {
	case s.Since.IsZero() || s.Up() == l.consulAway.IsZero():
		return // not asked yet, or no news
	case !s.Up() && s.Contact.IsZero() && !s.Refused && now.Sub(l.began) < startPatience:
		return // it may start together with lbctl
	}
	event := history.Event{Time: s.Since, Kind: history.ConsulDown, Generation: l.current.Number}
	if s.Up() {
		event.Kind, event.TookSeconds = history.ConsulUp, max(0, s.Since.Sub(l.consulAway).Seconds())
		l.consulAway = time.Time{}
	} else {
		event.Reason = consulFault(s)
		l.consulAway = s.Since
	}
	l.history.Add(event)
}
