package render

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul-template/dependency"

	"lbctl/internal/endpoints"
)

// The metadata keys and tags that make a service a balanced one.
const (
	keyProtocol = "lb-protocol"
	keyHost     = "lb-host"
	keyPath     = "lb-path"
	keyVersion  = "lb-version"
	keyPort     = "lb-port"
	keyMaxConns = "lb-max-conns"
	// keyEndpoints says how changes of a service's instances reach nginx.
	keyEndpoints    = "lb-endpoints"
	endpointsAuto   = "auto"
	endpointsReload = "reload"

	tagGRPC = "grpc_server"
	tagHTTP = "http_server"
)

// maxProblems is how many of a service's problems are told: a hundred instances
// mostly have one and the same.
const maxProblems = 5

// maxRoutes bounds what one instance can ask for: hosts times paths.
const maxRoutes = 64

// maxMaxConns is more than any server has.
const maxMaxConns = 1_000_000

var (
	// consul-template's query language has no way to name other services.
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	hostPattern    = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*$`)
	pathPattern    = regexp.MustCompile(`^(/[A-Za-z0-9._~@:+!-]+)*/?$`)
	versionLabel   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	nowhereSegment = regexp.MustCompile(`/\.{1,2}(/|$)`)
)

// parseService makes a service of what Consul says about it; the zero Service
// when it has no instance. Whatever is wrong is in its Problems; reserved are
// ports that lb-port can't have.
func parseService(name string, registered []*dependency.HealthService, reserved []int) endpoints.Service {
	s := endpoints.Service{Name: name}
	var parsed []metadata
	var problems []string
	for _, r := range registered {
		if r.Name != name {
			continue // Consul's index ignores case, names differ by it
		}
		m, err := parseMetadata(r, reserved)
		if err != nil {
			problems = append(problems, err.Error())
		}
		parsed = append(parsed, m)

		i := endpoints.Instance{
			ID:       r.ID,
			Node:     r.Node,
			Address:  r.Address,
			Port:     r.Port,
			Weight:   weight(r),
			Status:   endpoints.Status(r.Status),
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

// weight is Consul's weight for the instance's status, within what nginx takes.
func weight(r *dependency.HealthService) int {
	w := r.Weights.Passing
	if r.Status == dependency.HealthWarning {
		w = r.Weights.Warning
	}
	return min(max(w, 1), 65535)
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
}

// valid reports whether the metadata was understood.
func (m metadata) valid() bool { return m.protocol != "" }

// parseMetadata reads one instance's metadata and tags. With an error the
// metadata isn't valid, for half of it may mean something else than all of it.
func parseMetadata(r *dependency.HealthService, reserved []int) (metadata, error) {
	m := metadata{instance: shorten(r.ID)}
	var errs []error
	bad := func(key, found, want string) {
		errs = append(errs, fmt.Errorf("%s %q, want %s", key, shorten(found), want))
	}

	m.balanced = slices.Contains(r.Tags, tagGRPC) || slices.Contains(r.Tags, tagHTTP)
	value := func(key string) string {
		v, ok := r.ServiceMeta[key]
		m.balanced = m.balanced || ok
		return strings.TrimSpace(v)
	}
	protocol, hosts, paths := value(keyProtocol), value(keyHost), value(keyPath)
	version, port := value(keyVersion), value(keyPort)
	maxConns, delivery := value(keyMaxConns), value(keyEndpoints)
	if !m.balanced {
		return m, nil
	}

	p := endpoints.Protocol(strings.ToLower(protocol))
	switch {
	case protocol != "":
		if !slices.Contains(endpoints.Protocols, p) {
			bad(keyProtocol, protocol, fmt.Sprintf("one of %q", endpoints.Protocols))
		}
	case slices.Contains(r.Tags, tagGRPC) && slices.Contains(r.Tags, tagHTTP):
		errs = append(errs, fmt.Errorf("it has both tags, %q and %q, want one of them or %s", tagGRPC, tagHTTP, keyProtocol))
	case slices.Contains(r.Tags, tagGRPC):
		p = endpoints.GRPC
	case slices.Contains(r.Tags, tagHTTP):
		p = endpoints.HTTP
	case port != "":
		p = endpoints.TCP
	default:
		errs = append(errs, fmt.Errorf("neither %s nor one of the tags %q and %q says what it speaks, want one of them",
			keyProtocol, tagGRPC, tagHTTP))
	}

	hostList, err := splitList(hosts, parseHost)
	if err != nil {
		bad(keyHost, hosts, err.Error())
	}
	pathList, err := splitList(paths, func(path string) (string, error) { return parsePath(p, path) })
	if err != nil {
		bad(keyPath, paths, err.Error())
	}
	if len(hostList)*len(pathList) > maxRoutes {
		errs = append(errs, fmt.Errorf("%d hosts in %s and %d paths in %s make %d routes, want at most %d",
			len(hostList), keyHost, len(pathList), keyPath, len(hostList)*len(pathList), maxRoutes))
	}
	switch {
	case p == endpoints.TCP && (hosts != "" || paths != ""):
		errs = append(errs, fmt.Errorf("%s %q can't be routed by %s or %s, want %s", keyProtocol, p, keyHost, keyPath, keyPort))
	case p == endpoints.TCP:
		m.port, err = strconv.Atoi(port)
		if err != nil || m.port < 1024 || m.port > 65535 || slices.Contains(reserved, m.port) {
			bad(keyPort, port, fmt.Sprintf("a port of 1024 to 65535 other than %s, which are taken", listOf(reserved)))
		}
	case port != "":
		bad(keyPort, port, fmt.Sprintf("none, for it is for %s %q only", keyProtocol, endpoints.TCP))
	}
	if version != "" && !versionLabel.MatchString(version) {
		bad(keyVersion, version, `1 to 64 letters, digits, ".", "_" or "-"`)
	}
	if maxConns != "" {
		m.maxConns, err = strconv.Atoi(maxConns)
		if err != nil || m.maxConns < 1 || m.maxConns > maxMaxConns {
			bad(keyMaxConns, maxConns, fmt.Sprintf("a number of connections from 1 to %d", maxMaxConns))
		}
	}
	if delivery != "" && delivery != endpointsAuto && delivery != endpointsReload {
		bad(keyEndpoints, delivery, fmt.Sprintf("%q or %q", endpointsAuto, endpointsReload))
	}
	m.byReload = delivery == endpointsReload
	if len(errs) > 0 {
		return metadata{instance: m.instance, balanced: true}, fmt.Errorf("instance %q: %w", m.instance, joinLines(errs))
	}

	m.protocol, m.version = p, version
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
// while a new version rolls out: routes are those of all, protocol and port
// those of most.
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
			m.instance, keyProtocol, m.protocol, s.Protocol, s.Name))
		return true
	})
	if s.Protocol == endpoints.TCP {
		s.Port = most(same, func(m metadata) int { return m.port })
		for _, m := range same {
			if m.port != s.Port {
				s.Problems = append(s.Problems, fmt.Sprintf("instance %q: %s %q, but %q is what most instances of %q have, want one for all",
					m.instance, keyPort, strconv.Itoa(m.port), strconv.Itoa(s.Port), s.Name))
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

// shorten keeps values from Consul, which may have 512 characters, from
// filling a line of a status.
func shorten(value string) string {
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
