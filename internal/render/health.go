package render

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/routing"
)

// The names of the sockets in the run directory where lbctl tells the health of services.
const (
	HealthSocket     = "health.sock"     // to HTTP requests
	HealthSocketGRPC = "healthgrpc.sock" // to calls of gRPC's health service
)

// DefaultHealthPath is the path of HTTP requests for the health of services.
const DefaultHealthPath = "/health"

// HealthScope says which requests for the health of services lbctl answers. A service that names
// their path in a route of its own gets them in any case, and so does one that has their host.
type HealthScope string

// The scopes.
const (
	HealthOff HealthScope = ""
	// HealthUnrouted: requests that no service would get.
	HealthUnrouted HealthScope = "unrouted"
	// HealthBeforeDefault: also those that the default service would get, or another one whose
	// route has no path and no host.
	HealthBeforeDefault HealthScope = "before-default"
)

// Health says which requests for the health of services nginx passes on to lbctl.
type Health struct {
	HTTP, GRPC HealthScope
	Path       string   // of HTTP requests; default DefaultHealthPath
	Networks   []string // that may ask, in CIDR form; none: all may
}

var healthPath = regexp.MustCompile(`^(/[A-Za-z0-9._~@:+!=-]+)+$`)

// CheckHealthPath returns an error if lbctl can't tell the health of services at a path.
func CheckHealthPath(path string) error {
	dots := slices.ContainsFunc(strings.Split(path, "/"), func(segment string) bool { return segment == "." || segment == ".." })
	if !healthPath.MatchString(path) || dots || metadata.ReservedPath(path) || len(path) > 200 {
		return errors.New("want a path of letters, digits and ._~@:+!=- between slashes, such as /health or /internal/health")
	}
	return nil
}

func (h Health) check() (errs []error) {
	if h.HTTP != HealthOff {
		if err := CheckHealthPath(h.path()); err != nil {
			errs = append(errs, fmt.Errorf("path of health %q, %w", h.Path, err))
		}
	}
	for _, network := range h.Networks {
		if _, err := netip.ParsePrefix(network); err != nil {
			errs = append(errs, fmt.Errorf("networks of health %q, want networks like %q", network, "10.0.0.0/8"))
		}
	}
	for _, scope := range []HealthScope{h.HTTP, h.GRPC} {
		if !slices.Contains([]HealthScope{HealthOff, HealthUnrouted, HealthBeforeDefault}, scope) {
			errs = append(errs, fmt.Errorf("scope of health %q, want %q or %q", scope, HealthUnrouted, HealthBeforeDefault))
		}
	}
	return errs
}

func (h Health) path() string {
	if h.Path == "" {
		return DefaultHealthPath
	}
	return h.Path
}

// healthWay is the way of requests for the health of services.
type healthWay struct {
	way
	beforeDefault bool
	networks      []string
}

// way returns the way of the requests of a family; nil if lbctl answers none.
func (h Health) way(family string) *healthWay {
	scope, protocol, route := h.HTTP, endpoints.HTTP, endpoints.Route{Path: h.path(), Exact: true}
	if family == "grpc" {
		scope, protocol, route = h.GRPC, endpoints.GRPC, endpoints.Route{Path: "/grpc.health.v1.Health"}
	}
	if scope == HealthOff {
		return nil
	}
	to := routed{health: true, spec: endpoints.Spec{Protocol: protocol}}
	return &healthWay{way{route, routing.Places(family, route), to}, scope == HealthBeforeDefault, h.Networks}
}

// place is where nginx looks for the requests: the route has only one.
func (h *healthWay) place() routing.Place { return h.places[0] }

// has reports whether all requests of a place are for the health of services.
func (h *healthWay) has(p routing.Place) bool {
	return h != nil && slices.Contains(slices.Collect(p.Around()), h.place())
}

// insert puts the way among all others, which are in the order in which they are tried.
func (h *healthWay) insert(all []routing.Way) []routing.Way {
	if h == nil {
		return all
	}
	at := len(all)
	if first := slices.IndexFunc(all, func(w routing.Way) bool { return w.Host == "" && w.Path == "" }); h.beforeDefault && first >= 0 {
		at = first
	}
	return slices.Insert(all, at, routing.Way{Route: h.route, Health: true, Networks: h.networks})
}
