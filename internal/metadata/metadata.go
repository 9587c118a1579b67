// Package metadata reads what a service says of itself in Consul, by tags and by
// metadata whose keys begin with "lb-".
package metadata

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/endpoints"
)

// The metadata keys that make a service a balanced one.
const (
	KeyProtocol = "lb-protocol" // one of endpoints.Protocols
	KeyHost     = "lb-host"     // host names, separated by commas
	KeyPath     = "lb-path"     // path prefixes, separated by commas
	KeyVersion  = "lb-version"  // shown beside the instance
	KeyPort     = "lb-port"     // tcp: the port to listen on
	KeyMaxConns = "lb-max-conns"
	// KeyEndpoints is EndpointsAuto or EndpointsReload.
	KeyEndpoints    = "lb-endpoints"
	KeyMinInstances = "lb-min-instances"
	KeyCheck        = "lb-check" // an endpoints.Check
)

// The values of KeyEndpoints: how changes of a service's instances reach nginx.
const (
	EndpointsAuto   = "auto"
	EndpointsReload = "reload"
)

// The tags that make a service a balanced one, as its protocol does.
const (
	TagGRPC = "grpc_server"
	TagHTTP = "http_server"
)

// maxProblems is how many of a service's problems are told: a hundred instances
// mostly have one and the same.
const maxProblems = 5

// maxMinimum bounds lb-min-instances.
const maxMinimum = 10000

// maxRoutes bounds what one instance can ask for: hosts times paths.
const maxRoutes = 64

// maxMaxConns is more than any server has.
const maxMaxConns = 1_000_000

var (
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	hostPattern    = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*$`)
	pathPattern    = regexp.MustCompile(`^(/[A-Za-z0-9._~@:+!-]+)*/?$`)
	versionLabel   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	nowhereSegment = regexp.MustCompile(`/\.{1,2}(/|$)`)
)

// ValidName reports whether a service of that name can be balanced: consul-template's
// query language has no way to name other services.
func ValidName(service string) bool { return namePattern.MatchString(service) }

// Parse makes a service of what Consul says about its instances; the zero Service
// when there is none. Whatever is wrong is in its Problems; reserved are ports that
// lb-port can't have.
func Parse(name string, entries []*api.ServiceEntry, reserved []int) endpoints.Service {
	s := endpoints.Service{Name: name}
	var parsed []metadata
	var problems []string
	for _, r := range sorted(entries) {
		if r.Service.Service != name {
			continue // Consul's index ignores case, names differ by it
		}
		m, err := parseMetadata(r.Service, reserved)
		if err != nil {
			problems = append(problems, err.Error())
		}
		parsed = append(parsed, m)

		i := endpoints.Instance{
			ID:       r.Service.ID,
			Node:     r.Node.Node,
			Address:  cmp.Or(r.Service.Address, r.Node.Address),
			Port:     r.Service.Port,
			Weight:   weight(r),
			Status:   endpoints.Status(r.Checks.AggregatedStatus()),
			Version:  m.version,
			MaxConns: m.maxConns,
		}
		if err := i.Validate(); err != nil {
			problems = append(problems, strings.ReplaceAll(err.Error(), "\n", "; ")+": it gets no traffic")
			continue
		}
		s.Instances = append(s.Instances, i)
	}
	if len(parsed) == 0 {
		return endpoints.Service{}
	}
	if !slices.ContainsFunc(parsed, func(m metadata) bool { return m.balanced }) {
		s.OK = true // it isn't ours, and neither is what is wrong with it
		return s
	}
	s.Problems = problems
	agree(&s, parsed)
	if more := len(s.Problems) - maxProblems; more > 0 {
		s.Problems = append(s.Problems[:maxProblems], fmt.Sprintf("and %d problems more", more))
	}
	return s
}

func sorted(entries []*api.ServiceEntry) []*api.ServiceEntry {
	return slices.SortedStableFunc(slices.Values(entries), func(a, b *api.ServiceEntry) int {
		return cmp.Or(strings.Compare(a.Node.Node, b.Node.Node), strings.Compare(a.Service.ID, b.Service.ID))
	})
}

// weight is Consul's weight for the instance's status, within what nginx takes. Consul
// refuses 0 for passing, so both are unknown then; 0 for warning means no traffic.
func weight(r *api.ServiceEntry) int {
	w := r.Service.Weights
	if w.Passing < 1 {
		return 1
	}
	if r.Checks.AggregatedStatus() == api.HealthWarning {
		return min(max(w.Warning, 0), 65535)
	}
	return min(w.Passing, 65535)
}

// metadata is what one instance says about its service.
type metadata struct {
	instance string
	balanced bool // it says anything at all
	protocol endpoints.Protocol
	routes   []endpoints.Route // none: the default place of the protocol
	port     int
	version  string
	maxConns int
	byReload bool
	minimum  int // of instances; 0: it says nothing
	check    endpoints.Check
}

// valid reports whether the metadata was understood.
func (m metadata) valid() bool { return m.protocol != "" }

// parseMetadata reads one instance's metadata and tags. With an error the
// metadata isn't valid, for half of it may mean something else than all of it.
func parseMetadata(r *api.AgentService, reserved []int) (metadata, error) {
	m := metadata{instance: Shorten(r.ID)}
	var errs []error
	bad := func(key, found, want string) {
		errs = append(errs, fmt.Errorf("%s %q, want %s", key, Shorten(found), want))
	}

	m.balanced = slices.Contains(r.Tags, TagGRPC) || slices.Contains(r.Tags, TagHTTP)
	value := func(key string) string {
		v, ok := r.Meta[key]
		m.balanced = m.balanced || ok
		return strings.TrimSpace(v)
	}
	protocol, hosts, paths := value(KeyProtocol), value(KeyHost), value(KeyPath)
	version, port := value(KeyVersion), value(KeyPort)
	maxConns, delivery := value(KeyMaxConns), value(KeyEndpoints)
	minimum, check := value(KeyMinInstances), endpoints.Check(value(KeyCheck))
	if !m.balanced {
		return m, nil
	}

	p := endpoints.Protocol(strings.ToLower(protocol))
	switch {
	case protocol != "":
		if !slices.Contains(endpoints.Protocols, p) {
			bad(KeyProtocol, protocol, fmt.Sprintf("one of %q", endpoints.Protocols))
		}
	case slices.Contains(r.Tags, TagGRPC) && slices.Contains(r.Tags, TagHTTP):
		errs = append(errs, fmt.Errorf("it has both tags, %q and %q, want one of them or %s", TagGRPC, TagHTTP, KeyProtocol))
	case slices.Contains(r.Tags, TagGRPC):
		p = endpoints.GRPC
	case slices.Contains(r.Tags, TagHTTP):
		p = endpoints.HTTP
	case port != "":
		p = endpoints.TCP
	default:
		errs = append(errs, fmt.Errorf("neither %s nor one of the tags %q and %q says what it speaks, want one of them",
			KeyProtocol, TagGRPC, TagHTTP))
	}

	hostList, err := splitList(hosts, parseHost)
	if err != nil {
		bad(KeyHost, hosts, err.Error())
	}
	pathList, err := splitList(paths, func(path string) (string, error) { return parsePath(p, path) })
	if err != nil {
		bad(KeyPath, paths, err.Error())
	}
	if len(hostList)*len(pathList) > maxRoutes {
		errs = append(errs, fmt.Errorf("%d hosts in %s and %d paths in %s make %d routes, want at most %d",
			len(hostList), KeyHost, len(pathList), KeyPath, len(hostList)*len(pathList), maxRoutes))
	}
	switch {
	case p == endpoints.TCP && (hosts != "" || paths != ""):
		errs = append(errs, fmt.Errorf("%s %q can't be routed by %s or %s, want %s", KeyProtocol, p, KeyHost, KeyPath, KeyPort))
	case p == endpoints.TCP:
		m.port, err = strconv.Atoi(port)
		if err != nil || m.port < 1024 || m.port > 65535 || slices.Contains(reserved, m.port) {
			bad(KeyPort, port, fmt.Sprintf("a port of 1024 to 65535 other than %s, which are taken", listOf(reserved)))
		}
	case port != "":
		bad(KeyPort, port, fmt.Sprintf("none, for it is for %s %q only", KeyProtocol, endpoints.TCP))
	}
	if version != "" && !versionLabel.MatchString(version) {
		bad(KeyVersion, version, `1 to 64 letters, digits, ".", "_" or "-"`)
	}
	if maxConns != "" {
		m.maxConns, err = strconv.Atoi(maxConns)
		if err != nil || m.maxConns < 1 || m.maxConns > maxMaxConns {
			bad(KeyMaxConns, maxConns, fmt.Sprintf("a number of connections from 1 to %d", maxMaxConns))
		}
	}
	if delivery != "" && delivery != EndpointsAuto && delivery != EndpointsReload {
		bad(KeyEndpoints, delivery, fmt.Sprintf("%q or %q", EndpointsAuto, EndpointsReload))
	}
	m.byReload = delivery == EndpointsReload
	if minimum != "" {
		m.minimum, err = strconv.Atoi(minimum)
		if err != nil || m.minimum < 1 || m.minimum > maxMinimum {
			bad(KeyMinInstances, minimum, fmt.Sprintf("a whole number from 1 to %d", maxMinimum))
		}
	}
	if !check.Valid() {
		bad(KeyCheck, string(check), `"tcp", "http:/path", "grpc", "grpc:package.Service" or "none"`)
	}
	if len(errs) > 0 {
		return metadata{instance: m.instance, balanced: true}, fmt.Errorf("instance %q: %w", m.instance, joinLines(errs))
	}

	m.protocol, m.version, m.check = p, version, check
	for _, host := range hostList {
		for _, path := range pathList {
			if r := (endpoints.Route{Host: host, Path: path}); r != (endpoints.Route{}) {
				m.routes = append(m.routes, r)
			}
		}
	}
	return m, nil
}

// agree settles what the instances say about their service, which may differ
// while a new version rolls out: routes are those of all, everything else is
// that of most.
func agree(s *endpoints.Service, parsed []metadata) {
	parsed = slices.DeleteFunc(parsed, func(m metadata) bool { return !m.valid() })
	if len(parsed) == 0 {
		return
	}
	s.OK = true
	s.ByReload = slices.ContainsFunc(parsed, func(m metadata) bool { return m.byReload })
	s.Protocol = most(parsed, func(m metadata) endpoints.Protocol { return m.protocol })
	same := slices.DeleteFunc(slices.Clone(parsed), func(m metadata) bool {
		if m.protocol == s.Protocol {
			return false
		}
		s.Problems = append(s.Problems, fmt.Sprintf("instance %q: %s %q, but %q is what most instances of %q have, want one for all",
			m.instance, KeyProtocol, m.protocol, s.Protocol, s.Name))
		return true
	})
	s.MinInstances = most(same, func(m metadata) int { return m.minimum })
	s.Check = most(same, func(m metadata) endpoints.Check { return m.check })
	if s.Protocol == endpoints.TCP {
		s.Port = most(same, func(m metadata) int { return m.port })
		for _, m := range same {
			if m.port != s.Port {
				s.Problems = append(s.Problems, fmt.Sprintf("instance %q: %s %q, but %q is what most instances of %q have, want one for all",
					m.instance, KeyPort, strconv.Itoa(m.port), strconv.Itoa(s.Port), s.Name))
			}
		}
		return
	}
	routes := map[endpoints.Route]bool{}
	for _, m := range same {
		for _, r := range m.routes {
			routes[r] = true
		}
		s.Default = s.Default || len(m.routes) == 0
	}
	if len(routes) > 0 {
		s.Routes = slices.SortedFunc(maps.Keys(routes), func(a, b endpoints.Route) int {
			return cmp.Or(strings.Compare(a.Host, b.Host), strings.Compare(a.Path, b.Path))
		})
	}
}

// most is the value that most have; of several the lowest.
func most[T cmp.Ordered](all []metadata, value func(metadata) T) T {
	count := map[T]int{}
	for _, m := range all {
		count[value(m)]++
	}
	var winner T
	for _, v := range slices.Sorted(maps.Keys(count)) {
		if count[v] > count[winner] {
			winner = v
		}
	}
	return winner
}

// splitList parses a comma separated list; an empty one has one element, "".
func splitList(list string, parse func(string) (string, error)) ([]string, error) {
	var elements []string
	for element := range strings.SplitSeq(list, ",") {
		element = strings.TrimSpace(element)
		if element == "" {
			continue
		}
		element, err := parse(element)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(elements, element) {
			elements = append(elements, element)
		}
	}
	if len(elements) == 0 {
		return []string{""}, nil
	}
	return elements, nil
}

func parseHost(host string) (string, error) {
	host = strings.ToLower(host)
	if len(host) > 253 || !hostPattern.MatchString(host) {
		return "", errors.New(`host names like "example.com" or "*.example.com", without a port, separated by commas`)
	}
	return host, nil
}

// parsePath brings a path prefix to its one form, without "/" at its end: the
// prefix of everything is "".
func parsePath(p endpoints.Protocol, path string) (string, error) {
	if len(path) > 256 || !strings.HasPrefix(path, "/") || !pathPattern.MatchString(path) || nowhereSegment.MatchString(path) {
		return "", errors.New(`path prefixes like "/api" of letters, digits and "._~@:+!-", separated by commas`)
	}
	path = strings.TrimSuffix(path, "/")
	if p.Family() == "grpc" && strings.Count(path, "/") > 2 {
		return "", errors.New(`"/package.Service" or "/package.Service/Method" for gRPC, separated by commas`)
	}
	return path, nil
}

// Shorten keeps values from Consul, which may have 512 characters, from
// filling a line of a status.
func Shorten(value string) string {
	if len(value) <= 80 {
		return value
	}
	return value[:77] + "..."
}

func listOf(ports []int) string {
	words := make([]string, len(ports))
	for n, port := range ports {
		words[n] = strconv.Itoa(port)
	}
	return strings.Join(words, ", ")
}

// joinLines is errors.Join on one line.
func joinLines(errs []error) error {
	words := make([]string, len(errs))
	for n, err := range errs {
		words[n] = err.Error()
	}
	return errors.New(strings.Join(words, "; "))
}
