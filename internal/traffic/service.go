package traffic

import (
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// service has the counts of a service.
type service struct {
	name      string
	family    string               // of its protocol
	gone      time.Time            // when it left the table; zero: it is there
	revision  uint64               // of the entry that instances are from
	hasNames  bool                 // some instances have a host name as their address
	at        map[string]*instance // by the address that nginx logs
	instances map[instanceKey]*instance
	versions  map[string]*version

	registered    []endpoints.Route // that routes are from
	isDefault     bool
	inMaintenance bool // nginx answers some or all of its requests itself
	routes        map[string]*route
	others        route // requests that took a route that is long gone
	sessions      sessions

	duration                    durations
	requestBytes, responseBytes uint64
	refused                     [len(refusals)]uint64
	retries                     [len(retryReasons)]uint64

	recent  *recent // nil: it has had no request
	changed bool    // since encoded was made
	encoded []byte  // the counts, for a snapshot
}

// route has the counts of requests that took a route.
type route struct {
	gone    time.Time // when it left the table; zero: it is there
	tallies []tally
}

// instanceKey identifies an instance within its service by its series: an address with another
// version is another one.
type instanceKey struct{ endpoint, version string }

// instance has the counts of the requests that were sent to an instance.
type instance struct {
	instanceKey
	node, id string
	logged   []string  // its addresses as nginx logs them
	gone     time.Time // when it left the table; zero: it is there
	of       *version
	results  results
	last     failure
	recent   *recentInstance // nil: it has had no request
}

// version has the counts of the requests that were sent to the instances with a version.
type version struct {
	results  results
	duration durations // of tries; of sessions, how long it took to connect
}

// failure is what went wrong at an instance.
type failure struct {
	result int8
	status int16 // HTTP status, if result is one of HTTP
	at     int64 // unix time in milliseconds; 0: nothing ever did
}

// tally is a number of requests.
type tally struct {
	tallyKey
	count uint64
}

// tallyKey has the class of an HTTP status and the index of a gRPC status in statusNames.
type tallyKey struct{ class, grpc uint8 }

// add adds to the tally with the key. There are few.
func add(tallies []tally, key tallyKey, count uint64) []tally {
	for n := range tallies {
		if tallies[n].tallyKey == key {
			tallies[n].count += count
			return tallies
		}
	}
	return append(tallies, tally{key, count})
}

func newService(name string) *service {
	return &service{
		name: name, at: map[string]*instance{}, instances: map[instanceKey]*instance{}, versions: map[string]*version{}, routes: map[string]*route{},
		changed: true,
	}
}

// instance returns the instance with the key, and makes it if it is new.
func (s *service) instance(key instanceKey) *instance {
	i := s.instances[key]
	if i == nil {
		v := s.versions[key.version]
		if v == nil {
			v = &version{}
			s.versions[key.version] = v
		}
		i = &instance{instanceKey: key, of: v}
		s.instances[key] = i
	}
	return i
}

// knows reports whether the service has the route of a request and the instances of its tries.
func (s *service) knows(r *accesslog.Record) bool {
	if s.routes[string(r.Route)] == nil && !r.TCP {
		return false
	}
	for n := range r.Tries {
		if s.at[string(r.Tries[n].Address)] == nil {
			return false
		}
	}
	return true
}

// count counts a request. isRecent: it ended so recently that it belongs to the current step of
// Recent. It reports whether the request is an error.
func (s *service) count(r *accesslog.Record, isRecent bool) (failed bool) {
	s.changed = true
	if r.TCP {
		failed = s.countSession(r)
	} else {
		failed = s.countRequest(r)
	}
	s.requestBytes += uint64(max(0, r.RequestBytes))
	s.responseBytes += uint64(max(0, r.ResponseBytes))
	if isRecent {
		if s.recent == nil {
			s.recent = &recent{}
		}
		s.recent.observe(r.Took, failed)
	}
	for n := range r.Tries {
		s.countTry(r, n, isRecent)
	}
	return failed
}

// countRequest counts what only requests have. It reports whether the request is an error.
func (s *service) countRequest(r *accesslog.Record) (failed bool) {
	key := tallyKey{codeClass(r.Status), statusIndex(r, s.isGRPC())}
	of := s.routes[string(r.Route)]
	if of == nil {
		of = &s.others
	}
	of.tallies = add(of.tallies, key, 1)
	s.duration.observe(r.Took, &bounds)
	if reason := refusal(r, s.inMaintenance); reason >= 0 {
		s.refused[reason]++
	}
	return isError(key)
}

// countSession counts what only sessions have. It reports whether the session is an error.
func (s *service) countSession(r *accesslog.Record) (failed bool) {
	s.duration.observe(r.Took, &sessionBounds)
	return s.sessions.count(r)
}

func (s *service) isGRPC() bool { return s.family == policy.GRPC }

// countTry counts the nth try of a request.
func (s *service) countTry(r *accesslog.Record, n int, isRecent bool) {
	try := &r.Tries[n]
	result, isInstance := resultIndexes[r.Result(n, s.isGRPC())]
	if !isInstance {
		return // there was none to try
	}
	if n > 0 {
		before := r.Result(n-1, s.isGRPC())
		if _, isInstance := resultIndexes[before]; isInstance {
			s.retries[retryReason(&r.Tries[n-1], before)]++
		}
	}
	i := s.at[string(try.Address)]
	if i == nil {
		return // it left the table long ago
	}
	i.results[result]++
	i.of.results[result]++
	took := try.Took
	if r.TCP {
		took = try.Connect
	}
	if took >= 0 {
		i.of.duration.observe(took, &bounds)
	}
	if isFailure(result) {
		i.last = failure{int8(result), int16(try.Status), r.Time.UnixMilli()}
	}
	if isRecent {
		if i.recent == nil {
			i.recent = &recentInstance{}
		}
		i.recent.observe(max(0, try.Took), isFailure(result))
	}
}
