package metadata

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// maxRoutes bounds the routes of one instance: hosts times paths times methods.
const maxRoutes = 64

var (
	hostPattern = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*$`)
	grpcPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*(\.\*|/[A-Za-z_][A-Za-z0-9_]*)?$`)
)

// pathOf is a path of a route; the zero value is every path.
type pathOf struct {
	path  string
	exact bool
}

// routes returns every host with every path and every method; none means the default place of
// the protocol.
func (r *reader) routes(p endpoints.Protocol) []endpoints.Route {
	if p == endpoints.TCP {
		return r.tcpRoutes()
	}
	hosts := listed(r, KeyHost, func(host string) (string, error) { return parseHost(host, r.reserved) })
	paths := r.paths(p)
	methods := listed(r, KeyMethod, func(method string) (string, error) { return parseMethod(p, method) })
	headers := r.headers()
	if n := len(hosts) * len(paths) * len(methods); n > maxRoutes {
		r.errs = append(r.errs, fmt.Errorf("%s, %s, %s and %s make %d routes (hosts: %d, paths: %d, methods: %d), want at most %d",
			KeyHost, KeyPath, KeyGRPC, KeyMethod, n, len(hosts), len(paths), len(methods), maxRoutes))
		return nil
	}
	var routes []endpoints.Route
	for _, host := range hosts {
		for _, at := range paths {
			for _, method := range methods {
				route := endpoints.Route{Host: host, Path: at.path, Exact: at.exact, Method: method, Headers: headers}
				if route != (endpoints.Route{}) {
					routes = append(routes, route)
				}
			}
		}
	}
	return routes
}

// tcpRoutes returns the hosts of a TCP service, which then gets the TLS connections whose clients
// name one of them; none means all connections to its port.
func (r *reader) tcpRoutes() []endpoints.Route {
	if keys := r.unroutableTCP(); keys != "" {
		r.errs = append(r.errs, fmt.Errorf("%s %q can't be routed by %s, want %s, or %s for TLS connections",
			KeyProtocol, endpoints.TCP, keys, KeyPort, KeyHost))
		return nil
	}
	var routes []endpoints.Route
	for _, host := range listed(r, KeyHost, func(host string) (string, error) { return parseHost(host, r.reserved) }) {
		if host != "" {
			routes = append(routes, endpoints.Route{Host: host})
		}
	}
	slices.SortFunc(routes, func(a, b endpoints.Route) int { return strings.Compare(a.Host, b.Host) })
	if n := len(routes); n > maxRoutes {
		r.errs = append(r.errs, fmt.Errorf("%d hosts in %s, want at most %d", n, KeyHost, maxRoutes))
	}
	return routes
}

// tls reads whether nginx ends the TLS of a TCP service's clients.
func (r *reader) tls(p endpoints.Protocol) {
	said := r.value(KeyTLS)
	switch {
	case said == "":
	case p != endpoints.TCP:
		r.bad(KeyTLS, said, fmt.Sprintf("none, because only %s %q has it: clients of the others use the listeners with TLS", KeyProtocol, endpoints.TCP))
	case said != TLSTerminate:
		r.bad(KeyTLS, said, fmt.Sprintf("%q", TLSTerminate))
	case r.value(KeyHost) != "":
		r.bad(KeyTLS, said, fmt.Sprintf("none with %s: nginx passes the TLS of these connections on", KeyHost))
	}
	r.metadata.tls = said
}

// routingKeys returns the keys that the instance has of those that make routes, for a message.
func (r *reader) routingKeys() string {
	return r.having(KeyHost, KeyPath, KeyGRPC, KeyMethod, KeyHeader)
}

// unroutableTCP returns the keys that the instance has of those that can't route TCP, for a
// message.
func (r *reader) unroutableTCP() string { return r.having(KeyPath, KeyGRPC, KeyMethod, KeyHeader) }

func (r *reader) having(keys ...string) string {
	var found []string
	for _, key := range keys {
		if r.value(key) != "" {
			found = append(found, key)
		}
	}
	return strings.Join(found, " and ")
}

// listed reads a key with a list; one that is not set has one element, the zero value.
func listed[T comparable](r *reader, key string, parse func(string) (T, error)) []T {
	value := r.value(key)
	list, err := splitList(value, parse)
	if err != nil {
		r.bad(key, value, err.Error())
	}
	return list
}

// paths reads the paths of lb-path and lb-grpc.
func (r *reader) paths(p endpoints.Protocol) []pathOf {
	paths := listed(r, KeyPath, func(path string) (pathOf, error) { return parsePath(p, path) })
	switch value := r.value(KeyGRPC); {
	case value == "":
		return paths
	case p.Family() != "grpc":
		if p != "" {
			r.bad(KeyGRPC, value, fmt.Sprintf("none, because only %s %q and %q have it", KeyProtocol, endpoints.GRPC, endpoints.GRPCS))
		}
		return paths
	}
	names := listed(r, KeyGRPC, parseGRPC)
	if r.value(KeyPath) == "" {
		return names
	}
	for _, name := range names {
		if !slices.Contains(paths, name) {
			paths = append(paths, name)
		}
	}
	return paths
}

// headers reads the headers that a request must have, all of them.
func (r *reader) headers() string {
	value := r.value(KeyHeader)
	if value == "" {
		return ""
	}
	matches, err := splitList(value, parseHeader)
	for n, m := range matches {
		if err == nil && slices.ContainsFunc(matches[:n], func(o endpoints.HeaderMatch) bool { return o.Name == m.Name }) {
			err = fmt.Errorf("each header once, and it has %q twice: a request must have all of them", m.Name)
		}
	}
	if err != nil {
		r.bad(KeyHeader, value, err.Error())
		return ""
	}
	return endpoints.JoinHeaders(matches)
}

func parseHost(host string, reserved Reserved) (string, error) {
	host = strings.ToLower(host)
	if len(host) > 253 || !hostPattern.MatchString(host) {
		return "", errors.New(`host names like "example.com" or "*.example.com", without a port, separated by commas`)
	}
	if reserved.ReservedHost(host) {
		return "", fmt.Errorf("host names outside of %q, which is reserved for the balancer", reserved.Domain)
	}
	return host, nil
}

// parsePath returns a path prefix in canonical form, without "/" at its end, or a whole path as it
// is. The prefix of all paths is "".
func parsePath(p endpoints.Protocol, path string) (pathOf, error) {
	at := pathOf{path: path}
	at.path, at.exact = strings.CutPrefix(path, "=")
	if plain := strings.TrimSuffix(at.path, "/"); at.path != "/" && !policy.IsLocation(plain) {
		return pathOf{}, errors.New(`path prefixes like "/api", or whole paths like "=/health", of at most 255 letters, digits and "._~@:+!-", separated by commas`)
	}
	if !at.exact {
		at.path = strings.TrimSuffix(at.path, "/")
	}
	if ReservedPath(at.path) {
		return pathOf{}, fmt.Errorf("paths outside of %q, which is reserved for the balancer", reservedPath)
	}
	if p.Family() == "grpc" && (at.exact || strings.Count(at.path, "/") > 2) {
		return pathOf{}, errors.New(`"/package.Service" or "/package.Service/Method" for gRPC, separated by commas`)
	}
	return at, nil
}

// parseGRPC returns the path of a gRPC package, service or method.
func parseGRPC(name string) (pathOf, error) {
	if len(name) > policy.MaxPath-1 || !grpcPattern.MatchString(name) {
		return pathOf{}, errors.New(`gRPC packages like "shop.*", services like "shop.Cart" or methods like "shop.Cart/Add", separated by commas`)
	}
	return pathOf{path: "/" + name}, nil
}

func parseMethod(p endpoints.Protocol, method string) (string, error) {
	switch {
	case p.Family() == "grpc":
		return "", errors.New("none for gRPC, because every call is a POST")
	case !endpoints.ValidMethod(method):
		return "", errors.New(`HTTP methods like "GET" or "POST", in upper case, separated by commas`)
	case method == "CONNECT" || method == "TRACE":
		return "", errors.New("methods other than CONNECT and TRACE, which nginx does not pass on")
	}
	return method, nil
}

func parseHeader(match string) (endpoints.HeaderMatch, error) {
	name, value, _ := strings.Cut(match, "=")
	m := endpoints.HeaderMatch{Name: strings.ToLower(strings.TrimSpace(name)), Value: strings.TrimSpace(value)}
	if m.Name == "host" {
		return m, fmt.Errorf("headers other than Host: want %s", KeyHost)
	}
	if !m.Valid() {
		return m, errors.New(`headers like "x-version=v2": letters, digits and "-" in the name, and 1 to 128 letters, digits and "._~@:+!/=-" in the value, separated by commas`)
	}
	return m, nil
}
