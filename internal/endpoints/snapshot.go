package endpoints

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"lbctl/internal/policy"
)

// The versions of the file. A version goes up only if an older lbctl would misread the file. A
// new field is no reason, because an older lbctl ignores unknown fields.
const (
	snapshotVersion = 1
	// matchesVersion is written if a route has more than a host and a path: an older lbctl
	// would send requests to the service that do not match.
	matchesVersion = 2
)

// snapshot is the file's content: the state of a Table.
type snapshot struct {
	snapshotDates
	Version  int              `json:"version"`
	Filtered bool             `json:"filtered,omitempty"`
	Owners   map[claim]string `json:"owners,omitempty"`
	// RefusedDefault is the version of the operator's policy for all services that nginx refuses.
	RefusedDefault *RefusedPolicy    `json:"refused_default,omitempty"`
	Services       []snapshotService `json:"services"`
}

// snapshotDates has the times whose change alone is no reason to write a snapshot.
type snapshotDates struct {
	Observed  time.Time `json:"observed,omitzero"`  // the last change, not the last observation
	Confirmed time.Time `json:"confirmed,omitzero"` // when Consul last confirmed all services without a date of their own
}

type snapshotService struct {
	Name       string `json:"name"`
	Understood bool   `json:"understood"`
	Spec
	olderSpec
	Peak      int            `json:"peak,omitempty"`
	Crowded   bool           `json:"crowded,omitempty"`
	Instances []Instance     `json:"instances,omitempty"`
	Held      []snapshotHold `json:"held,omitempty"`
	State     State          `json:"state"`
	Since     time.Time      `json:"since"`
	// Confirmed is when Consul last confirmed it, if that differs from the snapshot's date.
	Confirmed time.Time `json:"confirmed,omitzero"`
	// Accepted: nginx accepted the service as it is above. Otherwise Last is the state that
	// it accepted last.
	Accepted bool           `json:"took,omitempty"`
	Last     *snapshotBlock `json:"last,omitempty"`
}

type snapshotBlock struct {
	Spec
	olderSpec
	Instances []Instance `json:"instances,omitempty"`
}

type snapshotHold struct {
	Instance Instance  `json:"instance"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
}

func (t *Table) snapshot() snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.confirmation.note(now, t.records)
	s := snapshot{
		snapshotDates: snapshotDates{Observed: t.seen, Confirmed: now},
		Version:       snapshotVersion,
		Filtered:      t.confirmation.trust.Filtered,
		Owners:        maps.Clone(t.claims.owners),
		Services:      make([]snapshotService, 0, len(t.records)),
	}
	if r := t.quarantine.refusedDefault; r != nil {
		refused := r.RefusedPolicy
		s.RefusedDefault = &refused
	}
	for _, name := range t.names() {
		r := t.records[name]
		ss := snapshotService{
			Name:       name,
			Understood: r.good != nil,
			Spec:       r.spec(),
			Instances:  r.instances,
			Peak:       r.peak,
			Crowded:    r.crowded,
			State:      r.state,
			Since:      r.since,
		}
		if r.confirmed != now {
			ss.Confirmed = cmp.Or(r.confirmed, t.seen)
		}
		for _, h := range t.guard.holds[name] {
			ss.Held = append(ss.Held, snapshotHold{h.instance, h.reason, h.since})
		}
		slices.SortFunc(ss.Held, func(a, b snapshotHold) int { return compareInstances(a.Instance, b.Instance) })
		if accepted, ok := t.quarantine.accepted[name]; ok && equal(accepted.service, r.entry.block()) {
			ss.Accepted = true
		} else if accepted.service.Protocol != "" {
			ss.Last = &snapshotBlock{Spec: accepted.service.Spec, Instances: accepted.service.Instances}
		}
		s.Services = append(s.Services, ss)
		if hasMatches(ss.Spec) || ss.Last != nil && hasMatches(ss.Last.Spec) {
			s.Version = matchesVersion
		}
	}
	return s
}

func hasMatches(s Spec) bool {
	return slices.ContainsFunc(s.Routes, func(r Route) bool { return r.Exact || r.Conditional() || strings.HasSuffix(r.Path, ".*") })
}

// parseSnapshot returns the valid part of a snapshot, and an error that names the rest.
// Values are validated like Consul's, because they go into nginx's configuration before
// Consul confirms them. A service with an invalid value is left out. Unknown fields and
// checks come from a newer lbctl and are ignored.
func parseSnapshot(b []byte) (s snapshot, usable bool, err error) {
	if err := json.Unmarshal(b, &s); err != nil {
		return snapshot{}, false, err
	}
	if s.Version < snapshotVersion || s.Version > matchesVersion {
		return snapshot{}, false, fmt.Errorf("version %d, want %d or %d", s.Version, snapshotVersion, matchesVersion)
	}
	var errs []error
	for n := range s.Services {
		ss := &s.Services[n]
		ss.olderSpec.moveTo(&ss.Spec)
		ss.ignoreUnknown()
		if ss.Last != nil {
			ss.Last.olderSpec.moveTo(&ss.Last.Spec)
			ss.Last.ignoreUnknown()
		}
	}
	s.Services = slices.DeleteFunc(s.Services, func(ss snapshotService) bool {
		err := ss.validate()
		errs = append(errs, err)
		return err != nil
	})
	return s, true, errors.Join(errs...)
}

// olderSpec has the settings that an lbctl without policies wrote beside those of Spec.
type olderSpec struct {
	ByReload     bool   `json:"by_reload,omitempty"`
	MinInstances int    `json:"min_instances,omitempty"`
	Check        string `json:"check,omitempty"`
}

// moveTo makes a policy of the settings.
func (o *olderSpec) moveTo(s *Spec) {
	var said policy.Document
	for name, text := range map[string]string{"check": o.Check, "min-instances": strconv.Itoa(o.MinInstances)} {
		_ = said.Set(name, text) // what is not set or not known counts as not said
	}
	if o.ByReload {
		_ = said.Set("endpoints", string(policy.DeliveryReload))
	}
	if !said.IsZero() {
		s.Policy = policy.Resolve(policy.Metadata(said))
	}
	*o = olderSpec{}
}

// ignoreUnknown removes routes with matches that this lbctl does not know.
func (s *Spec) ignoreUnknown() {
	s.Routes = slices.DeleteFunc(s.Routes, func(r Route) bool { return !r.knownMatches() })
}

func (ss snapshotService) validate() error {
	var errs []error
	if ss.Name == "" {
		errs = append(errs, errors.New("a service without a name"))
	}
	check := func(what string, spec Spec, understood bool, instances []Instance) {
		if understood && !slices.Contains(Protocols, spec.Protocol) {
			errs = append(errs, fmt.Errorf("service %q: %sprotocol %q unknown, want one of %q", ss.Name, what, spec.Protocol, Protocols))
		}
		for _, i := range instances {
			if err := i.Validate(); err != nil {
				errs = append(errs, fmt.Errorf("service %q: %s%w", ss.Name, what, err))
			}
		}
	}
	check("", ss.Spec, ss.Understood, ss.Instances)
	for _, h := range ss.Held {
		check("held ", Spec{}, false, []Instance{h.Instance})
	}
	if ss.Last != nil {
		check("last ", ss.Last.Spec, true, ss.Last.Instances)
	}
	return errors.Join(errs...)
}

// restore fills an empty table. A clock may have been wrong, so dates in the future become
// now; otherwise a service would count as confirmed until then.
func (t *Table) restore(now time.Time, s snapshot) {
	past := func(at time.Time) time.Time {
		if at.After(now) {
			return now
		}
		return at
	}
	t.seen = past(s.Observed)
	// Without this, the table would trust the first observation before anyone has checked
	// whether answers are still filtered.
	t.confirmation.trust.Filtered = s.Filtered
	t.claims.owners = s.Owners
	if r := s.RefusedDefault; r != nil {
		t.quarantine.refusedDefault = &refusedDefault{RefusedPolicy: *r, times: 1, again: now.Add(retrySame)}
	}
	for _, ss := range s.Services {
		r := &record{
			instances:  ss.Instances,
			inRotation: Service{Instances: ss.Instances}.InRotation(),
			peak:       ss.Peak,
			crowded:    ss.Crowded,
			state:      ss.State,
			since:      past(ss.Since),
			// An older lbctl wrote no Confirmed.
			confirmed: past(cmp.Or(ss.Confirmed, s.Confirmed, s.Observed)),
		}
		if ss.Understood {
			good := ss.Spec
			r.good = &good
		}
		for _, h := range ss.Held {
			t.guard.put(ss.Name, &hold{instance: h.Instance, reason: h.Reason, since: past(h.Since)})
		}
		t.records[ss.Name] = r
	}
	t.entries = t.compose(t.seen, nil)
	for _, ss := range s.Services {
		switch {
		case ss.Last != nil:
			t.quarantine.accepted[ss.Name] = accepted{service: Service{Name: ss.Name, Spec: ss.Last.Spec, Instances: ss.Last.Instances}}
		case ss.Accepted:
			t.quarantine.accepted[ss.Name] = accepted{service: t.records[ss.Name].entry.block()}
		}
	}
}
