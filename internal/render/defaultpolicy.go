package render

import (
	"fmt"
	"slices"

	"lbctl/internal/consul"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// defaultTrial finds out whether the operator's policy for all services makes a configuration
// fail. Otherwise each service would be a culprit, since the policy is in the change of each.
type defaultTrial struct {
	newest   consul.DefaultPolicy
	accepted policy.Document // the version that nginx accepted last
	suspects []endpoints.Suspect
	try      attempt
}

// failed is a configuration that fails.
type failed struct {
	entries []endpoints.Entry
	files   map[string][]byte // nil if a template fails
	why     string
}

// run returns why the newest version of the policy is refused. It is "" if the policy is not the
// cause, or has not changed. Then the cause is to be searched in left. err means that it could not
// be tested.
//
// Where services have a state that nginx accepted, the newest version is tried with nothing else
// changed, so that a fault of a service doesn't matter. If none has one, as when lbctl starts for
// the first time, the newest state of the services is tried with the version that was accepted
// before, or with none. If that fails too, services have faults of their own, which are to be
// searched without the policy.
func (t *defaultTrial) run(f failed) (refusal string, left failed, err error) {
	if t.newest.Index == 0 || t.newest.Layer.Document.Equal(t.accepted) {
		return "", f, nil
	}
	before := t.newest.Layer
	before.Document = t.accepted
	if !slices.ContainsFunc(t.suspects, func(s endpoints.Suspect) bool { return s.Last != nil }) {
		without, err := t.fails(t.under(f.entries, before))
		if err != nil || without.why != "" {
			return "", without, err
		}
		return f.placed(), f, nil
	}
	with, err := t.fails(t.asAccepted(f.entries, t.newest.Layer))
	if err != nil || with.why == "" {
		return "", f, err
	}
	// If that fails with the version before too, a template is the cause, or something outside of
	// lbctl.
	without, err := t.fails(t.asAccepted(f.entries, before))
	if err != nil || without.why != "" {
		return "", f, err
	}
	return with.placed(), f, nil
}

// fails tries entries; why is "" if they pass.
func (t *defaultTrial) fails(entries []endpoints.Entry) (failed, error) {
	files, why, err := t.try(entries)
	return failed{entries, files, why}, err
}

// under returns the entries with another policy where they have the newest one.
func (t *defaultTrial) under(all []endpoints.Entry, layer policy.Layer) []endpoints.Entry {
	entries := slices.Clone(all)
	for n := range entries {
		if entries[n].Policy.Layer(policy.LevelDefault).Equal(t.newest.Layer.Document) {
			entries[n] = entries[n].WithPolicy(layer)
		}
	}
	return entries
}

// asAccepted returns the entries with the suspects as nginx accepted them last, except for the
// operator's policy for all services. New services are left out.
func (t *defaultTrial) asAccepted(all []endpoints.Entry, layer policy.Layer) []endpoints.Entry {
	suspects := make(map[string]endpoints.Suspect, len(t.suspects))
	for _, s := range t.suspects {
		suspects[s.Name] = s
	}
	entries := make([]endpoints.Entry, 0, len(all))
	for _, e := range all {
		s, suspected := suspects[e.Name]
		switch {
		case !suspected:
			entries = append(entries, e)
		case s.Last != nil:
			entries = append(entries, s.AsAccepted(layer))
		}
	}
	return entries
}

// placed returns the reason with the service whose block it is about.
func (f failed) placed() string {
	names := make([]string, len(f.entries))
	for n, e := range f.entries {
		names[n] = e.Name
	}
	if name, ok := namedAt(f.why, f.files, names); ok {
		return fmt.Sprintf("%s, in the block of service %s", f.why, name)
	}
	return f.why
}
