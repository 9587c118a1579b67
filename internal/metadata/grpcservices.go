package metadata

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/printable"
)

// KeyGRPCServices has the full names of the gRPC services that a server offers, separated by
// commas. The registrar finds them out by reflection. The key does not begin with "lb-", so that an
// older lbctl ignores it, and it makes no service a balanced one. A list that is too long for
// one value goes on in "grpc-services-2" and so on.
const KeyGRPCServices = "grpc-services"

const (
	maxValue = 512 // characters of a value in Consul
	// maxGRPCServices bounds the services of one server.
	maxGRPCServices = maxRoutes
)

// RoutesItself reports whether metadata says by itself where a service is routed. lbctl then
// ignores KeyGRPCServices.
func RoutesItself(meta map[string]string) bool {
	return (&reader{meta: meta}).routingKeys() != ""
}

// IsGRPC reports whether tags and metadata say that a service speaks gRPC.
func IsGRPC(tags []string, meta map[string]string) bool {
	r := &reader{tags: tags, meta: meta}
	return r.protocol().Family() == "grpc" && len(r.errs) == 0
}

// GRPCServices returns the pairs of metadata for the services that a server offers. It refuses
// names that lbctl can't route, and more than it takes of one server.
func GRPCServices(names []string) (map[string]string, error) {
	if len(names) > maxGRPCServices {
		return nil, fmt.Errorf("%d gRPC services, want at most %d", len(names), maxGRPCServices)
	}
	pairs := map[string]string{}
	key, list := grpcServicesKey(1), ""
	for _, name := range names {
		if _, err := parseGRPCService(name); err != nil {
			return nil, fmt.Errorf("gRPC service %q, want %w", printable.Shorten(name), err)
		}
		if list != "" && len(list)+1+len(name) > maxValue {
			pairs[key] = list
			key, list = grpcServicesKey(len(pairs)+1), ""
		}
		if list != "" {
			list += ","
		}
		list += name
	}
	if list != "" {
		pairs[key] = list
	}
	return pairs, nil
}

// IsGRPCServicesKey reports whether GRPCServices may return the key.
func IsGRPCServicesKey(key string) bool {
	rest, found := strings.CutPrefix(key, KeyGRPCServices)
	return found && (rest == "" || strings.HasPrefix(rest, "-"))
}

// grpcServicesKey is the key of the n-th part of the list, from 1.
func grpcServicesKey(n int) string {
	if n == 1 {
		return KeyGRPCServices
	}
	return KeyGRPCServices + "-" + strconv.Itoa(n)
}

// offers returns a route for each gRPC service that the server offers. A service that says
// itself where it is routed has none.
func (r *reader) offers(p endpoints.Protocol) []endpoints.Route {
	if p.Family() != "grpc" || r.routingKeys() != "" {
		return nil
	}
	var routes []endpoints.Route
	for n := 1; r.value(grpcServicesKey(n)) != ""; n++ {
		for _, at := range listed(r, grpcServicesKey(n), parseGRPCService) {
			routes = append(routes, endpoints.Route{Path: at.path})
		}
	}
	if len(routes) > maxGRPCServices {
		r.errs = append(r.errs, fmt.Errorf("%s has %d services, want at most %d", KeyGRPCServices, len(routes), maxGRPCServices))
	}
	return routes
}

// parseGRPCService returns the path of a gRPC service.
func parseGRPCService(name string) (pathOf, error) {
	if at, err := parseGRPC(name); err == nil && !strings.ContainsAny(name, "/*") {
		return at, nil
	}
	return pathOf{}, errors.New(`full names of gRPC services like "shop.Cart", separated by commas`)
}
