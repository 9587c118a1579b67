package routing

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// Listener is where nginx accepts requests, with all routes there.
type Listener struct {
	Name      string             `json:"name"`
	Protocol  endpoints.Protocol `json:"protocol"` // what clients speak
	Addresses []string           `json:"addresses"`
	// Redirect is the port of HTTPS that every request is redirected to; 0: no redirect.
	Redirect int `json:"redirect,omitempty"`
	// Clients says which certificates the clients of hosts need: "" is all hosts without an entry.
	Clients map[string]Clients `json:"-"`
	// Ways has the routes, and a service's place as the default as an empty route, in the order
	// of Compare.
	Ways []Way `json:"routes"`
}

// family is that of the protocols of the listener's services.
func (l Listener) family() string { return l.Protocol.Family() }

// Clients says which certificates the clients of a host need.
type Clients struct {
	Optional bool   // a client may have none
	File     string // the name of the file with their authorities
	Broken   bool   // the file has no authority, so nobody is let in
}

// Way is a route to a service.
type Way struct {
	endpoints.Route
	Service string `json:"service"`
	// Upstream is the name of nginx's upstream; empty: the service has no instance that gets
	// traffic.
	Upstream string `json:"upstream,omitempty"`
	// Policy is the service's policy without what its protocol or this nginx can't apply. LeftOut
	// says what that is, and why.
	Policy  policy.Settings `json:"-"`
	LeftOut []string        `json:"-"`
	// Health: lbctl itself answers the requests, with the health of the services. There is no
	// Service then. Networks are those that may ask; none: all may.
	Health   bool     `json:"health,omitempty"`
	Networks []string `json:"networks,omitempty"`
}

// Reading is how an nginx reads requests.
type Reading struct {
	// FirstHeader: of several headers with one name, the first one counts. Otherwise their
	// values are joined by ", ".
	FirstHeader bool
	// StrictHosts: a host has only the characters that RFC 3986 allows, and its port only
	// digits.
	StrictHosts bool
}

// NewReading returns how an nginx reads requests. atLeast reports whether its version is at
// least the given one.
func NewReading(atLeast func(version string) bool) Reading {
	return Reading{FirstHeader: !atLeast("1.23.0"), StrictHosts: atLeast("1.30.0")}
}

// Decision is what becomes of a request at a listener.
type Decision struct {
	// Host and Path are those of the request as nginx compares them: the host without port and in
	// lower case, "" if there is none; the path decoded and clean.
	Host string `json:"host"`
	Path string `json:"path"`
	// Refused: nginx answers the request itself. If Taken is set too, because of the policy of its
	// service.
	Refused *Refusal `json:"refused,omitempty"`
	// Certificate says which certificate the client must have; "" if it needs none.
	Certificate string `json:"certificate,omitempty"`
	// Wanted says what the request must prove, with a right key or to another service, before an
	// instance gets it; "" if there is nothing.
	Wanted string `json:"wanted,omitempty"`
	// Taken is the way that the request takes; nil if it matches none.
	Taken *Way `json:"taken,omitempty"`
	// Lost has the other ways that match the host and path, in order, each with the reason.
	Lost []Lost `json:"lost"`
}

// Lost is a way that a request does not take, and why.
type Lost struct {
	Way
	Reason string `json:"reason"`
}

// Decide returns what becomes of a request.
func (l Listener) Decide(r Request, reading Reading) Decision {
	d := Decision{Lost: []Lost{}}
	if d.Host, d.Path, d.Refused = r.read(reading); d.Refused != nil {
		return d
	}
	if l.Redirect != 0 {
		d.Refused = &Refusal{308, fmt.Sprintf("the listener redirects every request to HTTPS on port %d", l.Redirect)}
		return d
	}
	hosts := Hosts(d.Host)
	if d.Certificate, d.Refused = l.certificate(hosts); d.Refused != nil {
		return d
	}
	if l.redirects(hosts, d.Path) {
		d.Refused = &Refusal{301, "nginx redirects to the path with a slash at its end: a gRPC call names a method"}
		return d
	}
	for _, w := range l.Ways {
		if !slices.Contains(hosts, w.Host) || !matchesPath(l.family(), w.Route, d.Path) {
			continue
		}
		switch why := l.mismatch(r, w.Route, reading); {
		case why != "" && (d.Taken == nil || samePlace(w.Route, d.Taken.Route)):
			d.Lost = append(d.Lost, Lost{w, why})
		case d.Taken != nil && w.Health:
			d.Lost = append(d.Lost, Lost{w, "lbctl takes no request from the route of a service"})
		case d.Taken != nil:
			d.Lost = append(d.Lost, Lost{w, behind(w.Route, d.Taken.Route)})
		default:
			d.Taken = &w
		}
	}
	if d.Taken == nil {
		return d
	}
	if d.Refused = l.answer(r, d, *d.Taken, reading); d.Refused == nil && d.Taken.Upstream != "" {
		d.Wanted = l.condition(*d.Taken, d.Path)
	}
	return d
}

// certificate says which certificate the clients of a host need, given the names that match it.
// nginx refuses them all if they can't show one.
func (l Listener) certificate(hosts []string) (wanted string, refused *Refusal) {
	for _, host := range hosts {
		c, ok := l.Clients[host]
		if !ok {
			continue
		}
		status := http.StatusForbidden
		if l.family() == "grpc" {
			status = http.StatusUnauthorized // what gRPC calls UNAUTHENTICATED
		}
		switch {
		case c.Optional:
			return "", nil
		case !l.Protocol.TLS():
			return "", &Refusal{status, fmt.Sprintf("the host wants a client certificate (%s), and this listener has no TLS", c.File)}
		case c.Broken:
			return "", &Refusal{status, fmt.Sprintf("the host wants a client certificate, and %s has no usable authority", c.File)}
		}
		return "of one of the authorities in " + c.File, nil
	}
	return "", nil
}

// redirects reports whether nginx redirects a path to the same one with a slash. It does that
// if a location has that path and passes its requests on. For HTTP there is always a location
// for the path without the slash too.
func (l Listener) redirects(hosts []string, path string) bool {
	if l.family() != "grpc" || strings.HasSuffix(path, "/") {
		return false
	}
	slashed := Place{Path: path + "/"}
	exists := false
	for _, w := range l.Ways {
		places := Places(l.family(), w.Route)
		if !slices.Contains(hosts, w.Host) || !slices.ContainsFunc(places, func(p Place) bool { return p.Matches(slashed.Path) }) {
			continue
		}
		exists = exists || slices.Contains(places, slashed) || slices.ContainsFunc(w.Policy.Paths(), func(own policy.Path) bool {
			return slices.Contains(PolicyPlaces(l.family(), own), slashed)
		})
		if !w.Conditional() {
			return exists && (w.Upstream != "" || w.Health) && l.PolicyAt(w, slashed.Path).Maintenance.Enabled != policy.On
		}
	}
	return false
}

func matchesPath(family string, r endpoints.Route, path string) bool {
	return slices.ContainsFunc(Places(family, r), func(p Place) bool { return p.Matches(path) })
}

// mismatch says why a request does not match the method and headers of a route; "" if it does.
func (l Listener) mismatch(r Request, route endpoints.Route, reading Reading) string {
	if route.Method != "" && route.Method != r.Method {
		return fmt.Sprintf("its method is %s, and the request's is %s", route.Method, r.Method)
	}
	for _, m := range route.HeaderMatches() {
		value, ok := l.header(r, m.Name, reading)
		switch {
		case !ok:
			return fmt.Sprintf("it wants the header %s: %s, and the request has none", m.Name, m.Value)
		case value != m.Value:
			return fmt.Sprintf("it wants the header %s: %s, and the request has %q", m.Name, m.Value, value)
		}
	}
	return ""
}

// header returns the value of a request's header, as nginx's variable $http_NAME has it.
func (l Listener) header(r Request, name string, reading Reading) (value string, ok bool) {
	var values []string
	for _, h := range r.Headers {
		if l.variable(h.Name) == strings.ReplaceAll(name, "-", "_") {
			if r.HTTP != HTTP2 {
				h.Value = strings.Trim(h.Value, " ")
			}
			values = append(values, h.Value)
		}
	}
	if len(values) == 0 {
		return "", false
	}
	if reading.FirstHeader {
		return values[0], true
	}
	return strings.Join(values, ", "), true
}

// variable returns the name of nginx's variable for a header, without "http_"; "" if nginx
// ignores the header. For gRPC it takes all names, and for HTTP only letters, digits and "-".
func (l Listener) variable(header string) string {
	name := lower(header)
	if l.family() != "grpc" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return ""
	}
	return strings.ReplaceAll(name, "-", "_")
}

// samePlace reports whether two routes differ in their method and headers at most.
func samePlace(a, b endpoints.Route) bool {
	return a.Host == b.Host && a.Path == b.Path && a.Exact == b.Exact
}

// behind says why a route comes after another one, which the request takes.
func behind(r, taken endpoints.Route) string {
	switch {
	case r.Host != taken.Host && r.Host == "":
		return "it is for any host, and the taken one names it"
	case r.Host != taken.Host:
		return "its host is less exact"
	case r.Exact != taken.Exact:
		return "it is a prefix, and the taken one is the whole path"
	case r.Path != taken.Path:
		return "its path is shorter"
	case (r.Method == "") != (taken.Method == ""):
		return "it has no method"
	case len(r.HeaderMatches()) != len(taken.HeaderMatches()):
		return "it has fewer headers"
	default:
		return "its headers come later in alphabetical order"
	}
}
