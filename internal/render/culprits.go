package render

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"time"

	"lbctl/internal/endpoints"
)

// Bounds of the search for the services at fault. The services found until then are
// quarantined, and the next refusal continues from there.
const (
	bisectTries   = 40
	bisectTimeout = 30 * time.Second
)

// A Test asks nginx whether it would take files as a configuration: why is its
// reason not to, empty when it would. An error means that it could not be asked.
type Test func(ctx context.Context, files map[string][]byte) (why string, err error)

// Culprits is what Refused found.
type Culprits struct {
	// Services are those at fault, sorted. None: it lies elsewhere, or could not
	// be found, and nothing was changed.
	Services []string
	// Again is true when each of them was refused before, for the same data.
	Again bool
}

// Refused finds the services for which nginx did not take a configuration, and
// quarantines them: Updates then delivers a configuration without their changes. why is
// nginx's reason. test is nil if nginx -t does not find the fault, as when a reload
// failed: then only a port already in use can be traced to its service.
//
// Only services that changed since nginx last accepted them can be the cause. If the
// configuration fails without them too, the cause is a template, or outside of lbctl.
func (s *Source) Refused(ctx context.Context, c Configuration, why string, test Test) Culprits {
	ctx, cancel := context.WithTimeout(ctx, bisectTimeout)
	defer cancel()
	suspects := s.table.Suspects(c.Entries)
	if test == nil {
		name, ok := s.listener(why, suspects)
		if !ok {
			return Culprits{}
		}
		return s.quarantine(c.Entries, suspects, []culprit{{name, bindFailed.FindString(why)}})
	}
	bisection := newBisection(c.Entries, suspects)
	bisection.try = func(entries []endpoints.Entry) (map[string][]byte, string, error) {
		files, why := s.attempt(c.set, entries, c.crowded)
		if why != "" {
			return nil, why, nil
		}
		why, err := test(ctx, files)
		return files, why, errors.Join(err, ctx.Err())
	}
	bisection.named = func(why string, files map[string][]byte, names []string) (string, bool) {
		if name, ok := s.listener(why, suspects); ok && slices.Contains(names, name) {
			return name, true
		}
		return namedAt(why, files, names)
	}
	return s.quarantine(c.Entries, suspects, bisection.run(c.Files, why))
}

// failedFor finds the services with which a template fails, and quarantines them. It
// returns true if there are any: the next pass is made without their changes.
func (s *Source) failedFor(entries []endpoints.Entry, problems []Problem) bool {
	suspects := s.table.Suspects(entries)
	bisection := newBisection(entries, suspects)
	bisection.try = func(entries []endpoints.Entry) (map[string][]byte, string, error) {
		files, why := s.attempt(s.set, entries, s.memo.crowded)
		return files, why, nil
	}
	found := s.quarantine(entries, suspects, bisection.run(nil, problemsError(problems).Error()))
	return len(found.Services) > 0
}

// attempt executes templates for some entries only; why is what fails.
func (s *Source) attempt(set templateSet, entries []endpoints.Entry, crowded map[string]bool) (files map[string][]byte, why string) {
	r, _ := renderKnown(set, s.opts.Settings, entries, s.names, s.consul.Brain(), &memo{crowded: crowded})
	if len(r.problems) > 0 {
		return nil, problemsError(r.problems).Error()
	}
	return r.files, ""
}

// quarantine puts the culprits into quarantine, unless a template must be the cause: see
// templateAtFault.
func (s *Source) quarantine(entries []endpoints.Entry, suspects []endpoints.Suspect, culprits []culprit) Culprits {
	if templateAtFault(entries, suspects, culprits) {
		return Culprits{}
	}
	guilty := map[string]endpoints.Suspect{}
	for _, suspect := range suspects {
		guilty[suspect.Name] = suspect
	}
	found := Culprits{Again: true}
	for _, c := range culprits {
		suspect := guilty[c.service]
		refusal := endpoints.Refusal{Reason: c.why}
		if address, ok := boundInVain(c.why); ok && slices.Contains(s.opts.Settings.tcpListen(suspect.Port), address) {
			refusal.Listen = address
		}
		if s.table.Refuse(time.Now(), suspect.Entry, refusal) {
			found.Again = false
		}
		found.Services = append(found.Services, c.service)
	}
	slices.Sort(found.Services)
	return found
}

// templateAtFault reports whether a mistake in a template must be the cause: it fails
// for more than half of all services, those in quarantine included, and it is not known
// to have worked for any service.
func templateAtFault(entries []endpoints.Entry, suspects []endpoints.Suspect, culprits []culprit) bool {
	left, out := len(entries)-len(suspects), 0
	for _, e := range entries {
		if e.Refused && !e.Served() {
			out++
		}
	}
	if left > out {
		return false // these are as nginx took them
	}
	for _, suspect := range suspects {
		if suspect.Last == nil && slices.ContainsFunc(culprits, func(c culprit) bool { return c.service == suspect.Name }) {
			out++
		}
	}
	return 2*out > len(entries)
}

var bindFailed = regexp.MustCompile(`bind\(\) to (\S+) failed \([^)]*\)`)

// boundInVain is the address that nginx says it could not bind to.
func boundInVain(why string) (address string, ok bool) {
	match := bindFailed.FindStringSubmatch(why)
	if match == nil {
		return "", false
	}
	return match[1], true
}

// listener is the suspect for which nginx could not bind an address. One for
// which it listens there already is not: it has that port.
func (s *Source) listener(why string, suspects []endpoints.Suspect) (string, bool) {
	address, ok := boundInVain(why)
	if !ok {
		return "", false
	}
	for _, suspect := range suspects {
		last := suspect.Last
		listens := last != nil && last.Port == suspect.Port && len(last.Rotation()) > 0
		if suspect.Port != 0 && slices.Contains(s.opts.Settings.tcpListen(suspect.Port), address) && !listens {
			return suspect.Name, true
		}
	}
	return "", false
}
