package metrics

import (
	"lbctl/internal/policy"
	"lbctl/internal/traffic"
)

var (
	sessionsSection = newSection("Sessions of TCP services")

	sessionsTotal = sessionsSection.counter("lbctl_sessions_total",
		"Sessions that have ended. success: an instance took it; lbctl does not know what it said. "+
			"no-instance, unreachable, max-conns and internal are errors of the service or of nginx; with all others but success nginx refused the client, or it left.",
		service, label{"result", oneOf(traffic.SessionResults())})
	sessionDuration = sessionsSection.histogram("lbctl_session_duration_seconds",
		"How long sessions took, from the client's connection until both sides were closed.", service)
	unroutedSessions = sessionsSection.counter("lbctl_unrouted_sessions_total",
		"Sessions that reached no service: on a port that services share, the client named no host or one that no service has, or it was refused before.",
		label{"result", oneOf(traffic.SessionResults())})
	upstreamSessions = sessionsSection.counter("lbctl_upstream_sessions_total",
		"Tries to have a session taken by an instance. connect: nginx could not connect. cancelled: the client left before.",
		service, label{"endpoint", "(address and port of the instance)"}, label{"version", "(lb-version of the instance, or empty)"},
		label{"result", oneOf(traffic.TryResults())})
	upstreamConnect = sessionsSection.histogram("lbctl_upstream_connect_duration_seconds",
		"How long nginx took to connect to an instance for a session.",
		service, label{"version", "(lb-version of the instance, or empty)"})
)

func collectSessions(to *text, all []traffic.Service, unrouted []traffic.Result) {
	each := func(write func(s *traffic.Service)) {
		for n := range all {
			if all[n].Protocol == policy.TCP {
				write(&all[n])
			}
		}
	}
	each(func(s *traffic.Service) { collectResults(to, s) })
	each(func(s *traffic.Service) {
		to.observed(sessionDuration, traffic.SessionBuckets, s.Duration.Counts, s.Duration.Sum, s.Name)
	})
	for _, r := range unrouted {
		to.set(unroutedSessions, float64(r.Count), r.Result)
	}
	each(func(s *traffic.Service) { collectInstances(to, upstreamSessions, s) })
	each(func(s *traffic.Service) {
		for _, v := range s.Versions {
			to.observed(upstreamConnect, traffic.Buckets, v.Duration.Counts, v.Duration.Sum, s.Name, v.Name)
		}
	})
}

// collectResults writes the sessions of a service. One without any should be seen.
func collectResults(to *text, s *traffic.Service) {
	succeeded := false
	for _, r := range s.Sessions {
		to.set(sessionsTotal, float64(r.Count), s.Name, r.Result)
		succeeded = succeeded || r.Result == traffic.Success
	}
	if !succeeded {
		to.set(sessionsTotal, 0, s.Name, traffic.Success)
	}
}
