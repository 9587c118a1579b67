package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/kv"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policyfile"
	"lbctl/internal/render"
	"lbctl/internal/spelling"
)

func checkServices(_ context.Context, e *examination) []Finding {
	if !e.Daemon.answers() {
		return skipped("no daemon runs that balances services")
	}
	var findings []Finding
	for _, s := range e.Daemon.Services {
		switch s.State {
		case endpoints.Quarantined, endpoints.Panic, endpoints.LastKnownGood:
			findings = append(findings, mend(warning(fmt.Sprintf("service %s is in the state %s: %s", s.Name, s.State, s.Reason), "the state fresh"),
				"lbctl services "+s.Name)...)
		case endpoints.Held:
			findings = append(findings, mend(warning(fmt.Sprintf("service %s: %s", s.Name, s.Reason), "instances that Consul lists"),
				fmt.Sprintf("register them again, or 'lbctl accept %s'", s.Name))...)
		}
		if s.State == endpoints.Quarantined {
			continue // its reason has them
		}
		if len(s.Problems) > 0 {
			findings = append(findings, warning(fmt.Sprintf("service %s: %s", s.Name, some(s.Problems)), "valid metadata")...)
		}
	}
	if len(findings) > 0 {
		return findings
	}
	return ok("%s have valid metadata", plural(len(e.Daemon.Services), "service"))
}

// checkReachable finds instances that pass their checks in Consul, but which this machine can't
// reach.
func checkReachable(_ context.Context, e *examination) []Finding {
	if !e.Daemon.answers() {
		return skipped("no daemon runs that probes instances")
	}
	if !e.Config.Probe.InRotation {
		return skipped("--probe is off")
	}
	var findings []Finding
	passing := 0
	for _, s := range e.Daemon.Services {
		var names []string
		reason := ""
		for _, i := range s.Instances {
			if i.Status != endpoints.Passing {
				continue
			}
			passing++
			if i.Ejected || i.InRotation && strings.HasPrefix(i.Reason, stays) {
				names = append(names, fmt.Sprintf("%s (%s)", i.ID, i.HostPort()))
				reason = i.Reason
			}
		}
		if len(names) > 0 {
			findings = append(findings, warning(fmt.Sprintf("service %s: this machine can't reach %s of %d, though the checks in Consul pass: %s: %s",
				s.Name, plural(len(names), "instance"), len(s.Instances), some(names), reason), "instances that this machine reaches, as Consul's agents do")...)
		}
	}
	if len(findings) > 0 {
		return findings
	}
	return ok("this machine reaches all %s that pass their checks", plural(passing, "instance"))
}

// stays begins the reason of an instance that fails its probes, but is not ejected.
const stays = "stays in rotation"

func checkPolicies(ctx context.Context, e *examination) []Finding {
	if f := e.leaderless(); f != nil {
		return f
	}
	prefix := kv.PolicyPrefix(e.Config.KVPrefix)
	documents, _, err := e.Consul.API().KV().List(prefix, askConsul(ctx))
	if err != nil {
		return skipped("%s", e.Consul.Explain(err))
	}
	var services []string // nil if they are not known, or not all of them
	if e.consul.services != nil && !e.consul.filtered {
		services = slices.Sorted(maps.Keys(e.consul.services))
	}
	var findings []Finding
	for _, d := range documents {
		name := strings.TrimPrefix(d.Key, prefix)
		problems := policyfile.Problems(name, d.Value, services)
		if _, err := policy.ParseDocument(d.Value); err == nil && e.Daemon.answers() {
			problems = append(problems, render.PolicyProblems(e.Daemon.Status.Problems, d.Key)...)
		}
		if len(problems) == 0 {
			continue
		}
		f := warning(fmt.Sprintf("policy %s: %s", d.Key, strings.Join(problems, "; ")), "policies that can be read and that nginx accepts, of services in Consul, with values that have an effect")
		f = mend(f, mendPolicy(name, d.Key))
		if nearest := spelling.Nearest(policyfile.Service(name), services); nearest != "" && !slices.Contains(services, policyfile.Service(name)) {
			f[0].Wanted = fmt.Sprintf("a policy of a service in Consul, such as %q", nearest)
		}
		findings = append(findings, f...)
	}
	if len(findings) > 0 {
		return findings
	}
	return ok("%s, all of services in Consul", plural(len(documents), "policy document"))
}

// mendPolicy says how to mend what is at a key of a policy.
func mendPolicy(name, key string) string {
	if canonical, err := policyfile.Name(name); err != nil || canonical != name {
		return fmt.Sprintf("'consul kv delete %s'", key)
	}
	text := fmt.Sprintf("'lbctl policy edit %s', or 'lbctl policy delete %s'", name, name)
	if policyfile.Service(name) != "" {
		text += ", or register the service"
	}
	return text
}

func sortedKeys(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
