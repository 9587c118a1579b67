// Package metadata reads the settings of services from Consul: tags, and metadata whose
// keys begin with "lb-".
package metadata

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
	"lbctl/internal/printable"
)

// The metadata keys. Each of them makes a service a balanced one.
const (
	KeyProtocol = "lb-protocol" // one of endpoints.Protocols
	KeyHost     = "lb-host"     // host names, separated by commas
	KeyPath     = "lb-path"     // path prefixes, or "=" and a whole path, separated by commas
	KeyGRPC     = "lb-grpc"     // gRPC packages, services and methods, separated by commas
	KeyMethod   = "lb-method"   // HTTP methods, separated by commas
	KeyHeader   = "lb-header"   // headers that a request must have, separated by commas
	KeyVersion  = "lb-version"  // shown beside the instance
	KeyPort     = "lb-port"     // tcp: the port to listen on
	KeyListen   = "lb-listen"   // names of listeners, separated by commas
	KeyTLS      = "lb-tls"      // tcp: TLSTerminate
	// KeyPaths has the policies of paths: a JSON object of objects of policy fields.
	KeyPaths = "lb-paths"
)

// KeyMaxConns is the key of the field "max-conns", which each instance may have for itself.
const KeyMaxConns = "lb-max-conns"

// keys has all keys: those above, and those of the fields of the policy.
var keys = allKeys()

// ownKeys has the keys that are no field of the policy.
var ownKeys = []string{KeyProtocol, KeyHost, KeyPath, KeyGRPC, KeyMethod, KeyHeader, KeyVersion, KeyPort, KeyListen, KeyTLS, KeyPaths}

func allKeys() []string {
	all := slices.Clone(ownKeys)
	for _, f := range policy.Fields() {
		if key := f.Key(); key != "" {
			all = append(all, key)
		}
	}
	return all
}

// TLSTerminate is the value of KeyTLS: nginx ends TLS, and instances get what is inside.
const TLSTerminate = "terminate"

// The tags. Each of them makes a service a balanced one.
const (
	TagGRPC = "grpc_server"
	TagHTTP = "http_server"
)

// maxProblems limits the reported problems of a service: a hundred instances usually have the
// same problem.
const maxProblems = 5

var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// ValidName reports whether a service with the name can be balanced: consul-template's query
// language has no syntax for other names.
func ValidName(service string) bool { return namePattern.MatchString(service) }

// HasTag reports whether tags make a service a balanced one.
func HasTag(tags []string) bool {
	return slices.Contains(tags, TagGRPC) || slices.Contains(tags, TagHTTP)
}

// Parse makes a service from Consul's entries of its instances; without instances it returns
// the zero Service. Mistakes are in its Problems. An instance with a kind, a sidecar proxy or a
// gateway, is not balanced: it has its parent's tags and metadata, but is not one of the
// parent's servers.
func Parse(name string, entries []*api.ServiceEntry, reserved Reserved) endpoints.Service {
	s := endpoints.Service{Name: name}
	var parsed []metadata
	var problems []string
	known := false
	for _, r := range sorted(entries) {
		if r.Service.Service != name {
			continue // Consul's index ignores case, but it is another service
		}
		known = true
		if r.Service.Kind != api.ServiceKindTypical {
			continue
		}
		m, err := parseInstance(r.Service, reserved)
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
		if why := reserved.refuse(i); why != "" {
			problems = append(problems, RefusedInstance(i, why))
			continue
		}
		s.Instances = append(s.Instances, i)
		maintained := i.Status == endpoints.Maintenance
		if output := checkOutput(r.Checks, maintained); output != "" {
			s.CheckOutputs = append(s.CheckOutputs, endpoints.CheckOutput{Node: i.Node, ID: i.ID, Text: output, Maintenance: maintained})
		}
	}
	if !known {
		return endpoints.Service{}
	}
	if !slices.ContainsFunc(parsed, func(m metadata) bool { return m.balanced }) {
		s.OK = true // it isn't balanced, so its mistakes don't matter
		return s
	}
	s.Problems = problems
	agree(&s, parsed)
	if more := len(s.Problems) - maxProblems; more > 0 {
		s.Problems = append(s.Problems[:maxProblems], fmt.Sprintf("and %d problems more", more))
	}
	return s
}

// RefusedInstance returns the problem of an instance with a refused address.
func RefusedInstance(i endpoints.Instance, why string) string {
	return fmt.Sprintf("instance %q: address %q: %s: it gets no traffic", printable.Shorten(i.ID), i.HostPort(), why)
}

func sorted(entries []*api.ServiceEntry) []*api.ServiceEntry {
	return slices.SortedStableFunc(slices.Values(entries), func(a, b *api.ServiceEntry) int {
		return cmp.Or(strings.Compare(a.Node.Node, b.Node.Node), strings.Compare(a.Service.ID, b.Service.ID))
	})
}

// weight returns Consul's weight for the instance's status, within nginx's limits. 0 for
// warning means no traffic. Consul refuses 0 for passing, so if that is 0, both are unknown.
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

// agree merges the metadata of the instances, which may differ while a new version rolls
// out. The service gets the routes of all instances; for every other setting it gets the
// value that most instances have.
func agree(s *endpoints.Service, parsed []metadata) {
	parsed = slices.DeleteFunc(parsed, func(m metadata) bool { return !m.valid() })
	if len(parsed) == 0 {
		return
	}
	s.OK = true
	s.Protocol = most(parsed, func(m metadata) endpoints.Protocol { return m.protocol })
	same := slices.DeleteFunc(slices.Clone(parsed), func(m metadata) bool {
		if m.protocol == s.Protocol {
			return false
		}
		s.Problems = append(s.Problems, fmt.Sprintf("instance %q: %s %q differs from %q of most instances of %q, want the same for all",
			m.instance, KeyProtocol, m.protocol, s.Protocol, s.Name))
		return true
	})
	s.Policy = policy.Resolve(policy.Metadata(mostSaid(same)))
	if s.Protocol == endpoints.TCP {
		agreeTCP(s, same)
		return
	}
	if listeners := most(same, func(m metadata) string { return strings.Join(m.listeners, ",") }); listeners != "" {
		s.Listeners = strings.Split(listeners, ",")
	}
	routes, firm := map[endpoints.Route]bool{}, false
	for _, m := range same {
		for _, r := range m.routes {
			routes[r] = true
		}
		for _, r := range m.offers {
			routes[r] = true
		}
		s.Default = s.Default || len(m.routes) == 0
		firm = firm || len(m.routes) == 0 && len(m.offers) == 0
	}
	s.Yields = s.Default && !firm
	if len(routes) > 0 {
		s.Routes = slices.SortedFunc(maps.Keys(routes), func(a, b endpoints.Route) int {
			return cmp.Or(strings.Compare(a.Host, b.Host), strings.Compare(a.Path, b.Path), strings.Compare(a.String(), b.String()))
		})
	}
}

// agreeTCP merges what instances of a TCP service say of its port.
func agreeTCP(s *endpoints.Service, same []metadata) {
	differs := func(m metadata, key, value, usual string) {
		if value != usual {
			s.Problems = append(s.Problems, fmt.Sprintf("instance %q: %s %q differs from %q of most instances of %q, want the same for all",
				m.instance, key, value, usual, s.Name))
		}
	}
	hosts := func(m metadata) string {
		words := make([]string, len(m.routes))
		for n, r := range m.routes {
			words[n] = r.Host
		}
		return strings.Join(words, ",")
	}
	s.Port = most(same, func(m metadata) int { return m.port })
	usual, tls := most(same, hosts), most(same, func(m metadata) string { return m.tls })
	s.Terminate = tls == TLSTerminate
	for _, m := range same {
		differs(m, KeyPort, strconv.Itoa(m.port), strconv.Itoa(s.Port))
		differs(m, KeyHost, hosts(m), usual)
		differs(m, KeyTLS, m.tls, tls)
		if hosts(m) == usual {
			s.Routes = m.routes
		}
	}
}

// most returns the most frequent value; if there are several, the lowest.
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

// mostSaid returns, for each field, what most instances say of it. Those that don't set the
// field count too.
func mostSaid(parsed []metadata) policy.Document {
	if !slices.ContainsFunc(parsed, func(m metadata) bool { return !m.policy.IsZero() }) {
		return policy.Document{}
	}
	documents := make([]policy.Document, len(parsed))
	for n, m := range parsed {
		documents[n] = m.policy
	}
	return policy.Common(documents)
}
