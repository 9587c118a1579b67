package render

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"syscall"
	"time"

	"lbctl/internal/access"
	"lbctl/internal/certificates"
	"lbctl/internal/consul"
	"lbctl/internal/endpoints"
)

// Limits of the search for the culprits. The services found until then are
// quarantined, and the next refusal continues from there.
const (
	bisectTries   = 40
	bisectTimeout = 30 * time.Second
)

// A Test asks nginx whether it accepts files as a configuration: why is the reason if it
// does not, "" if it does. err means that the test could not be made.
type Test func(ctx context.Context, files map[string][]byte) (why string, err error)

// Culprits is what QuarantineCulprits found.
type Culprits struct {
	// Services has the culprits, sorted. It is empty if the cause lies elsewhere or was
	// not found; then nothing was changed.
	Services []string
	// Policy is the key of the operator's policy for all services, "lb/default", if its newest
	// version is the culprit. Then no service is.
	Policy string
	// Again is true when each of them was refused before, for the same data.
	Again bool
}

// QuarantineCulprits finds the services that made nginx reject a configuration, and
// quarantines them: Updates then delivers a configuration without their changes. If the
// newest version of the operator's policy for all services is at fault, the version before
// counts, and no service is quarantined. why is nginx's reason. test is nil if nginx -t does not
// find the fault, as when a reload failed: then only a port already in use can be traced to its
// service.
//
// Only services that changed since nginx last accepted them can be the cause. If the
// configuration fails without them too, the cause is a template, or outside of lbctl.
func (s *Source) QuarantineCulprits(ctx context.Context, c Configuration, why string, test Test) Culprits {
	ctx, cancel := context.WithTimeout(ctx, bisectTimeout)
	defer cancel()
	suspects := s.table.Suspects(c.Entries)
	if test == nil {
		name, ok := s.listener(why, suspects)
		if !ok {
			return Culprits{}
		}
		found := []culprit{{name, bindFailed.FindString(why)}}
		return s.refuse(suspects, append(found, s.otherTakenPorts(name, c.Entries, suspects)...))
	}
	try := func(entries []endpoints.Entry) (map[string][]byte, string, error) {
		files, why := s.attempt(c.set, c.certificates, entries, c.Networks, c.crowded)
		if why != "" {
			return nil, why, nil
		}
		why, err := test(ctx, files)
		return files, why, errors.Join(err, ctx.Err())
	}
	named := func(why string, files map[string][]byte, names []string) (string, bool) {
		if name, ok := s.listener(why, suspects); ok && slices.Contains(names, name) {
			return name, true
		}
		return namedAt(why, files, names)
	}
	return s.search(failed{c.Entries, c.Files, why}, c.defaultPolicy, suspects, try, named)
}

// failedFor finds the services with which a template fails, or the operator's policy for all
// services, and quarantines them. It returns true if there are any: the next pass is made without
// their changes.
func (s *Source) failedFor(entries []endpoints.Entry, problems []Problem) bool {
	try := func(entries []endpoints.Entry) (map[string][]byte, string, error) {
		files, why := s.attempt(s.set, s.certificates, entries, s.memo.networks, s.memo.crowded)
		return files, why, nil
	}
	f := failed{entries, nil, problemsError(problems).Error()}
	found := s.search(f, s.consul.DefaultPolicy(), s.table.Suspects(entries), try, nil)
	return found.Policy != "" || len(found.Services) > 0
}

// search finds the culprits of a configuration that fails, and quarantines them.
func (s *Source) search(f failed, newest consul.DefaultPolicy, suspects []endpoints.Suspect, try attempt, named namer) Culprits {
	trial := defaultTrial{newest, s.table.AcceptedDefaultPolicy(), suspects, try}
	refusal, f, err := trial.run(f)
	switch {
	case err != nil:
		return Culprits{}
	case refusal != "":
		first := s.table.RefuseDefaultPolicy(time.Now(), newest.Index, refusal)
		return Culprits{Policy: newest.Layer.Source, Again: !first}
	}
	bisection := newBisection(f.entries, suspects)
	bisection.try, bisection.named = try, named
	return s.quarantine(f.entries, suspects, bisection.run(f.files, f.why))
}

// attempt executes the templates for a part of the entries; why is the error of a template,
// "" if none failed.
func (s *Source) attempt(set templateSet, shown certificates.Set, entries []endpoints.Entry, networks *access.Networks, crowded map[string]bool) (files map[string][]byte, why string) {
	r, _ := renderKnown(set, s.opts.Settings.with(shown), entries, s.names, s.consul.Brain(), &memo{crowded: crowded, networks: networks})
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
	return s.refuse(suspects, culprits)
}

// refuse puts the culprits into quarantine.
func (s *Source) refuse(suspects []endpoints.Suspect, culprits []culprit) Culprits {
	byName := map[string]endpoints.Suspect{}
	for _, suspect := range suspects {
		byName[suspect.Name] = suspect
	}
	found := Culprits{Again: true}
	for _, c := range culprits {
		suspect := byName[c.service]
		refusal := endpoints.Refusal{Reason: c.why}
		if address, ok := failedBind(c.why); ok && slices.Contains(s.opts.Settings.TCPListen(suspect.Port), address) {
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
		return false // the templates work for these services
	}
	for _, suspect := range suspects {
		if suspect.Last == nil && slices.ContainsFunc(culprits, func(c culprit) bool { return c.service == suspect.Name }) {
			out++
		}
	}
	return 2*out > len(entries)
}

var bindFailed = regexp.MustCompile(`bind\(\) to (\S+) failed \([^)]*\)`)

// failedBind returns the address that nginx could not bind to, if that is the reason.
func failedBind(why string) (address string, ok bool) {
	match := bindFailed.FindStringSubmatch(why)
	if match == nil {
		return "", false
	}
	return match[1], true
}

// listener returns the suspect for which nginx could not bind an address. A suspect for
// which nginx already listens there is not the cause.
func (s *Source) listener(why string, suspects []endpoints.Suspect) (string, bool) {
	address, ok := failedBind(why)
	if !ok {
		return "", false
	}
	for _, suspect := range suspects {
		listens := suspect.Last != nil && listensAt(*suspect.Last) == suspect.Port
		if suspect.Port != 0 && slices.Contains(s.opts.Settings.TCPListen(suspect.Port), address) && !listens {
			return suspect.Name, true
		}
	}
	return "", false
}

// listensAt returns the port at which nginx listens for a service, 0 if there is none.
func listensAt(s endpoints.Service) int {
	if len(s.Rotation()) == 0 {
		return 0
	}
	return s.Port
}

// otherTakenPorts returns the suspects besides the named one whose ports another process has too.
// nginx names only the first port that it could not bind, and each attempt takes it seconds. A
// port at which nginx listens already, for any service, is not taken.
func (s *Source) otherTakenPorts(named string, entries []endpoints.Entry, suspects []endpoints.Suspect) (others []culprit) {
	held, suspected := map[int]bool{}, map[string]bool{}
	for _, suspect := range suspects {
		suspected[suspect.Name] = true
		if suspect.Last != nil {
			held[listensAt(*suspect.Last)] = true
		}
	}
	for _, e := range entries {
		if !suspected[e.Name] {
			held[listensAt(endpoints.Service{Spec: e.Spec, Instances: slices.Concat(e.Instances, e.Held)})] = true
		}
	}
	for _, suspect := range suspects {
		port := listensAt(endpoints.Service{Spec: suspect.Spec, Instances: slices.Concat(suspect.Instances, suspect.Held)})
		if suspect.Name == named || port == 0 || held[port] {
			continue
		}
		for _, address := range s.opts.Settings.TCPListen(port) {
			if !endpoints.Free(address) {
				why := fmt.Sprintf("bind() to %s failed (%d: Address already in use)", address, syscall.EADDRINUSE)
				others = append(others, culprit{suspect.Name, why})
				break
			}
		}
	}
	return others
}
