package traffic

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"lbctl/internal/policy"
)

// Service has the totals of a service. For a TCP service, sessions stand where it says requests, but it
// has Sessions in the place of Requests and Refused.
type Service struct {
	Name                        string
	Protocol                    string            // "grpc", "http" or "tcp"
	Sessions                    []Result          // of a TCP service: see SessionResults
	Requests                    []Requests        // by route, code class and grpc status; sorted
	Versions                    []Version         // with a try, sorted by name
	Duration                    Histogram         // of whole requests, in Buckets; of sessions in SessionBuckets
	RequestBytes, ResponseBytes uint64            // from and to clients, of headers and bodies
	Refused                     map[string]uint64 // requests that nginx refused, by reason
	Retries                     map[string]uint64 // further tries, by why the try before failed
	Instances                   []Instance        // all in the table and those that just left it, sorted by Endpoint and Version
	InFlight                    int64             // requests that have not ended; -1: not counted, as sessions
}

// Requests is a number of requests.
type Requests struct {
	Route      string // empty: it left the table long before the request ended
	Code       string // "2xx", by the status that the client got; "other" if that is none of HTTP
	GRPCStatus string // "OK"; "OTHER" for an unknown number, "NONE" if the client got none; empty: not gRPC
	Count      uint64
}

// Version has the totals of the tries of all instances with a version, also of those that are gone
// while others are there.
type Version struct {
	Name     string    // lb-version; empty: none
	Requests []Result  // tries
	Duration Histogram // of whole tries; for a TCP service, of how long it took to connect
}

// Instance has the totals of an instance.
type Instance struct {
	Endpoint string // address and port, as registered
	Node, ID string
	Version  string   // lb-version; empty: none
	Results  []Result // of its tries
	// LastError says what went wrong last, and LastErrorAt when; empty: nothing did.
	LastError   string
	LastErrorAt time.Time
}

// Result is a number of tries, or of sessions of a TCP service. Of tries, "success": the instance answered as it should. "cancelled": the
// client left, or the answer broke off halfway. "4xx": the answer is not gRPC, or nginx was to try
// again after it. All others are errors of the instance: "5xx"; "connect", "timeout" and "reset" if
// it did not answer; or the name of a gRPC status.
type Result struct {
	Result string
	Count  uint64
}

// IsError reports whether the tries are errors of the instance; not for sessions.
func (r Result) IsError() bool {
	return isFailure(resultIndexes[r.Result])
}

// Histogram is a histogram of durations.
type Histogram struct {
	Counts []uint64 // one for each of Buckets, and one for what is longer; not cumulated
	Sum    float64  // seconds
}

// Services returns the totals of all services, sorted by name: those of the table, and those that
// left it in the last five minutes.
func (c *Counters) Services() []Service {
	inFlight := c.inFlight()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Service, 0, len(c.services))
	for _, name := range slices.Sorted(maps.Keys(c.services)) {
		all = append(all, c.services[name].totals(inFlight))
	}
	return all
}

// Service returns the totals of a service; false if it has none, see Services.
func (c *Counters) Service(name string) (Service, bool) {
	inFlight := c.inFlight()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.services[name]
	if s == nil {
		return Service{}, false
	}
	return s.totals(inFlight), true
}

// Unrouted returns the totals of the requests that reached no service, or one that left the table
// long ago. The code of nginx's own errors is that of the error, also for gRPC clients.
func (c *Counters) Unrouted() []Requests {
	c.mu.Lock()
	defer c.mu.Unlock()
	return requests(nil, "", c.unrouted)
}

// UnroutedSessions returns the totals of the sessions that reached no service, or one that left the
// table long ago.
func (c *Counters) UnroutedSessions() []Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unroutedSessions.shown()
}

// totals returns the totals of the service, with the requests in flight of all services.
func (s *service) totals(inFlight map[string]int64) Service {
	t := Service{
		Name: s.name, Protocol: s.family, Sessions: s.sessions.shown(), Duration: s.duration.shown(), RequestBytes: s.requestBytes, ResponseBytes: s.responseBytes,
		Refused: named(refusals[:], s.refused[:]), Retries: named(retryReasons[:], s.retries[:]), InFlight: -1,
		Instances: make([]Instance, 0, len(s.instances)),
	}
	if inFlight != nil && s.family != policy.TCP {
		t.InFlight = inFlight[s.name]
	}
	for name, r := range s.routes {
		t.Requests = requests(t.Requests, name, r.tallies)
	}
	t.Requests = requests(t.Requests, "", s.others.tallies)
	slices.SortFunc(t.Requests, func(x, y Requests) int {
		return cmp.Or(cmp.Compare(x.Route, y.Route), cmp.Compare(x.Code, y.Code), cmp.Compare(x.GRPCStatus, y.GRPCStatus))
	})
	for name, v := range s.versions {
		if results := v.results.shown(); results != nil {
			t.Versions = append(t.Versions, Version{name, results, v.duration.shown()})
		}
	}
	slices.SortFunc(t.Versions, func(x, y Version) int { return cmp.Compare(x.Name, y.Name) })
	for _, i := range s.instances {
		one := Instance{Endpoint: i.endpoint, Node: i.node, ID: i.id, Version: i.version, Results: i.results.shown()}
		if i.last.at != 0 {
			one.LastError, one.LastErrorAt = i.last.text(), time.UnixMilli(i.last.at)
		}
		t.Instances = append(t.Instances, one)
	}
	slices.SortFunc(t.Instances, func(x, y Instance) int {
		return cmp.Or(cmp.Compare(x.Endpoint, y.Endpoint), cmp.Compare(x.Version, y.Version))
	})
	return t
}

// requests appends the tallies of a route.
func requests(to []Requests, route string, tallies []tally) []Requests {
	for _, t := range tallies {
		to = append(to, Requests{route, codeNames[t.class], statusNames[t.grpc], t.count})
	}
	return to
}

// shown returns the results that occurred.
func (r *results) shown() []Result {
	var all []Result
	for n, count := range r {
		if count > 0 {
			all = append(all, Result{resultNames[n], count})
		}
	}
	return all
}

// named returns the counts that are not 0 by name.
func named(names []string, counts []uint64) map[string]uint64 {
	all := map[string]uint64{}
	for n, count := range counts {
		if count > 0 {
			all[names[n]] = count
		}
	}
	return all
}
