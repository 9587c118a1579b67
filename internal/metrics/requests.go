package metrics

import (
	"lbctl/internal/policy"
	"lbctl/internal/traffic"
)

// Traffic are the counts of requests and sessions.
type Traffic interface {
	Services() []traffic.Service
	Unrouted() []traffic.Requests
	UnroutedSessions() []traffic.Result
}

var (
	requestsSection = newSection("Requests")

	requestsTotal = requestsSection.counter("lbctl_requests_total",
		"Requests that have ended, by what the client got. "+
			"The gRPC status is OTHER for a number that gRPC does not know, NONE if the client got none because it did not wait, and empty for a request that is not gRPC.",
		service, label{"route", "(registered route such as `*/shop` or `GET api.example.com=/v1`, or empty if it left long before)"}, label{"protocol", "grpc|http"},
		label{"code", oneOf(traffic.Codes())}, label{"grpc_status", oneOf(append(traffic.GRPCStatuses(), ""))})
	requestDuration = requestsSection.histogram("lbctl_request_duration_seconds",
		"How long requests took, from their first byte until nginx had sent the last byte of the answer. A stream is one request.",
		service, label{"protocol", "grpc|http"})
	requestsInFlight = requestsSection.gauge("lbctl_requests_in_flight",
		"Requests that nginx sends on to the service and that have not ended. Only with --requests-in-flight=on. "+
			"A request whose body is copied (mirror.service) counts when its body has come. If nginx had no room for lines, those that began before do not count.", service)
	requestBytes    = requestsSection.counter("lbctl_request_bytes_total", "Bytes that nginx got from clients: headers and bodies, or in TCP sessions. A session counts when it ends.", service)
	responseBytes   = requestsSection.counter("lbctl_response_bytes_total", "Bytes that nginx sent to clients: headers and bodies, or in TCP sessions. A session counts when it ends.", service)
	requestsRefused = requestsSection.counter("lbctl_requests_refused_total",
		"Requests that nginx answered itself because of a policy or of the access rules.", service, label{"reason", oneOf(traffic.Refusals())})
	unrouted = requestsSection.counter("lbctl_unrouted_requests_total",
		"Requests that reached no service. The code of nginx's own errors is that of the error, also for gRPC clients, which get 200.",
		label{"code", oneOf(traffic.Codes())})
	upstreamRequests = requestsSection.counter("lbctl_upstream_requests_total",
		"Tries to have a request answered by an instance. success: it answered as it should. cancelled: the client left, or the answer broke off halfway. "+
			"4xx: the answer is not gRPC, or nginx was to try again after it. Others are errors of the instance; connect, timeout and reset say that it did not answer.",
		service, label{"endpoint", "(address and port of the instance)"}, label{"version", "(lb-version of the instance, or empty)"},
		label{"result", oneOf(traffic.Results())})
	upstreamDuration = requestsSection.histogram("lbctl_upstream_duration_seconds",
		"How long tries took, from the connection to an instance until the end of its answer.",
		service, label{"version", "(lb-version of the instance, or empty)"})
	upstreamRetries = requestsSection.counter("lbctl_upstream_retries_total",
		"Tries of nginx that were not the first one of their request or TCP session, by why the one before failed.",
		service, label{"reason", oneOf(traffic.RetryReasons())})
)

func collectRequests(to *text, counters Traffic) {
	if counters == nil {
		return
	}
	all := counters.Services()
	each := func(write func(s *traffic.Service)) {
		for n := range all {
			write(&all[n])
		}
	}
	requests := func(write func(s *traffic.Service)) {
		each(func(s *traffic.Service) {
			if s.Protocol != policy.TCP {
				write(s)
			}
		})
	}
	each(func(s *traffic.Service) {
		for _, r := range s.Requests {
			to.set(requestsTotal, float64(r.Count), s.Name, r.Route, s.Protocol, r.Code, r.GRPCStatus)
		}
	})
	requests(func(s *traffic.Service) {
		to.observed(requestDuration, traffic.Buckets, s.Duration.Counts, s.Duration.Sum, s.Name, s.Protocol)
	})
	requests(func(s *traffic.Service) {
		if s.InFlight >= 0 {
			to.set(requestsInFlight, float64(s.InFlight), s.Name)
		}
	})
	each(func(s *traffic.Service) { to.set(requestBytes, float64(s.RequestBytes), s.Name) })
	each(func(s *traffic.Service) { to.set(responseBytes, float64(s.ResponseBytes), s.Name) })
	each(func(s *traffic.Service) { to.byReason(requestsRefused, s.Refused, traffic.Refusals(), s.Name) })
	collectUnrouted(to, counters.Unrouted())
	requests(func(s *traffic.Service) { collectInstances(to, upstreamRequests, s) })
	requests(func(s *traffic.Service) {
		for _, v := range s.Versions {
			to.observed(upstreamDuration, traffic.Buckets, v.Duration.Counts, v.Duration.Sum, s.Name, v.Name)
		}
	})
	each(func(s *traffic.Service) { to.byReason(upstreamRetries, s.Retries, traffic.RetryReasons(), s.Name) })
	collectSessions(to, all, counters.UnroutedSessions())
}

// byReason writes a series of a service for each reason that occurred, in the order of reasons.
func (t *text) byReason(f *family, counts map[string]uint64, reasons []string, service string) {
	for _, reason := range reasons {
		if count, ok := counts[reason]; ok {
			t.set(f, float64(count), service, reason)
		}
	}
}

func collectUnrouted(to *text, requests []traffic.Requests) {
	codes := map[string]uint64{}
	for _, r := range requests {
		codes[r.Code] += r.Count
	}
	for _, code := range traffic.Codes() {
		if count, ok := codes[code]; ok {
			to.set(unrouted, float64(count), code)
		}
	}
}

// collectInstances writes the tries of a service's instances.
func collectInstances(to *text, f *family, s *traffic.Service) {
	for _, i := range s.Instances {
		answered := false
		for _, r := range i.Results {
			to.set(f, float64(r.Count), s.Name, i.Endpoint, i.Version, r.Result)
			answered = answered || r.Result == traffic.Success
		}
		if !answered { // an instance without traffic should be seen
			to.set(f, 0, s.Name, i.Endpoint, i.Version, traffic.Success)
		}
	}
}
