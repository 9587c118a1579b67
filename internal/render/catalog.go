package render

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"lbctl/internal/access"
	"lbctl/internal/certificates"
	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/policy"
	"lbctl/internal/printable"
	"lbctl/internal/resolver"
	"lbctl/internal/routing"
)

// Catalog has the services in Consul for templates, which get it from the function
// catalog. It is sorted, has no conflicts, and all its values are validated: a
// configuration that contains them unchanged is valid.
type Catalog struct {
	GRPC, HTTP Frontend
	TCP        []TCPService // services with a port of their own and an upstream, sorted by its name
	SharedTCP  []SharedPort // ports that services share by host, in order
	TLS        *TLS         // nil without a certificate
	Clients    bool         // some hosts want certificates of clients

	entries  []endpoints.Entry
	networks *access.Networks
	files    map[string][]byte // that the templates' files name: authorities for clients
	reads    *reads
}

// Services returns all balanced services, sorted by name, with everything that lbctl knows
// about them. The fields of the Catalog are made from it.
func (c Catalog) Services() []endpoints.Entry {
	c.reads.services = true
	return c.entries
}

// Networks returns which networks are denied; nil if none is.
func (c Catalog) Networks() *access.Networks {
	c.reads.networks = true
	return c.networks
}

// TLS says which certificate nginx shows for which host name.
type TLS struct {
	Default string // file with chain and key, for clients that name no host or an unknown one
	Hosts   []certificates.HostCertificate
}

// Frontend has the upstreams and virtual hosts of one family, gRPC or HTTP.
type Frontend struct {
	Upstreams []Upstream // sorted by name of the service
	// Hosts are those of the first group of listeners, its default host first, then those of
	// the other groups. The listeners of a group lead to the same services.
	Hosts []Host
}

// Upstream has the instances of one service that get traffic. Unless nginx asks for them,
// there is at least one, because nginx refuses an empty upstream.
type Upstream struct {
	endpoints.Spec        // of the service
	Name           string // of letters, digits, "-" and "_"; unique
	Service        string
	// Policy is the policy of the service, without what this nginx or its protocol can't have.
	Policy   *policy.Policy
	MaxConns int // limit of each server, if nginx asks for them; 0 is no limit
	// Resolve is true if nginx asks for the servers by Host and ResolveService. Then its
	// files should not contain them, although Servers returns them.
	Resolve bool
	IPv6    bool // some of the servers have an IPv6 address
	ZoneKiB int  // size of the shared memory that nginx needs for the upstream

	block   string // appended to the name of the upstream block
	servers []Server
	targets []resolver.Target // the servers, in the form of the resolver
	// answerSize is the size of a DNS answer with the targets, in bytes.
	answerSize int
	revision   uint64 // revision of the entry that the servers were made from
	plain      bool   // all addresses of the entry are IP addresses
	reads      *reads
}

// Servers returns the instances, sorted by address.
func (u Upstream) Servers() []Server {
	if u.Resolve {
		u.reads.servers = true
	}
	return u.servers
}

// Server is one instance, with the values of nginx's directive server.
type Server struct {
	Address  string // "10.0.0.1:7777", "[fd00::1]:7777"
	Weight   int    // 1 to 65535
	MaxConns int    // 0 is no limit
}

// Host is one virtual host, on one or several listeners that lead to the same services.
type Host struct {
	Name      string     // "example.com", "*.example.com"; "_" for the default host
	Default   bool       // it serves requests for all other host names
	Listen    []Socket   // the addresses of its listeners
	Locations []Location // longest path first; the last one is "/"
	Named     []Location // the locations of choices

	Redirect int  // port of HTTPS that all requests are redirected to; 0: none
	HSTS     bool // some of its listeners have Listener.HSTS
	// TrustedProxies are the networks whose word about the address of a client nginx believes.
	TrustedProxies []string
	ProxyProtocol  bool         // the trusted proxies say it by PROXY protocol, others by X-Forwarded-For
	Clients        *HostClients // nil: clients need no certificate
}

// Location sends requests for a path to a service.
type Location struct {
	Path  string // "/api" if Exact, "/api/" for all paths below it
	Exact bool   // matches Path only, not the paths below it
	// Name is that of a named location, which gets its requests from choices of other
	// locations: Path and Exact are those of the route, and there are no choices.
	Name           string
	Choices        []Choice // the first one that a request matches takes it
	endpoints.Spec          // of the service
	Service        string   // empty: no service has this path
	Route          string   // that leads to the service, as endpoints.Route.String returns it
	Health         bool     // lbctl itself answers, with the health of the services; there is no Service
	Upstream       string   // empty: the service has no instance that gets traffic
	// Policy is the policy for the path, without what this nginx or its protocol can't have; nil
	// if no service has the path.
	Policy *policy.Policy

	// TLSFiles are the files that the policy's tls names.
	TLSFiles TLSFiles

	routePath, policyPath policy.Path // of the route, and of the requests that the policy is for
	mirrors               map[string]string
}

// ChoicesTakeAll reports whether each request takes a choice. The last one then leads to the
// location's own service.
func (l Location) ChoicesTakeAll() bool {
	return len(l.Choices) > 0 && len(l.Choices[len(l.Choices)-1].Variables) == 0
}

// Module returns the first word of nginx's directives for the requests: "grpc" or "proxy".
func (l Location) Module() string {
	if l.Protocol.Family() == "grpc" && !l.SafeGRPC() {
		return "grpc"
	}
	return "proxy"
}

// Choice takes some of a location's requests: those of which nginx's Variables, separated by
// spaces, are Value.
type Choice struct {
	Variables []string // without "$"; none: it takes all requests
	Value     string
	Location  string // the name of the host's location that gets the requests
}

// TCPService is one service on a port of its own.
type TCPService struct {
	Listen   Listen // "0.0.0.0:6379", "[::]:6379"
	TLS      bool   // clients speak TLS, which nginx ends
	Clients  *HostClients
	Upstream Upstream
}

// SharedPort is a port where nginx passes TLS connections on to the service of the host that the
// client names. It has one service or more.
type SharedPort struct {
	Port     int
	Listen   Listen
	Services []SharedService // sorted by name of the upstream
}

// SharedService is a service of a SharedPort.
type SharedService struct {
	Hosts    []string // "db.example.com", "*.example.com"
	Upstream Upstream
}

// addresses returns the IP addresses for the address of an instance, which may be a host
// name; none if that doesn't resolve. known is false until the first lookup has ended.
type addresses func(address string) (found []string, known bool)

// newCatalog arranges the entries of an endpoints.Table for nginx. It also returns the
// builder that it used, whose problems have no time yet.
//
// before is the builder of an earlier catalog, or nil; parts made from the same input are
// reused. crowded has the services that had too many servers for a DNS answer before.
func newCatalog(entries []endpoints.Entry, settings Settings, resolve addresses, before *builder, crowded map[string]bool) (Catalog, *builder) {
	b := &builder{
		settings:  settings,
		resolve:   resolve,
		upstreams: make(map[string]Upstream, len(entries)),
		routed:    make([]routed, 0, len(entries)),
		claims:    map[claim]string{},
		byReload:  map[string]string{},
		unusable:  map[string][]endpoints.Unusable{},
		crowded:   map[string]bool{},
		reads:     &reads{asked: map[string]bool{}},
		policies:  map[string]usablePolicy{},
		files:     map[string][]byte{},

		crowdedBefore: crowded,
	}
	b.reserved = settings.withTCP(settings.reserved(), entries)
	b.open = settings.openListeners()
	if before != nil {
		b.earlier = before.upstreams
		b.policiesBefore = before.policies
	}
	if before != nil && slices.Equal(b.reserved.Sockets, before.reserved.Sockets) {
		b.before = before.upstreams
	}
	c := Catalog{entries: entries, files: settings.clientsFiles(), reads: b.reads}
	for _, e := range entries {
		e.Policy = b.policy(e)
		switch e.Protocol.Family() {
		case "grpc", "http":
			b.route(e)
		case "tcp":
			b.tcp(e, &c)
		}
	}
	maps.Copy(c.files, b.files)
	for n := range b.routed {
		b.routed[n].mirrors = b.mirrors(b.routed[n])
		b.externals(b.routed[n])
	}
	if before != nil && !before.conflict && b.sameEntrances(before) && slices.EqualFunc(b.routed, before.routed, sameRouted) {
		b.hosts, b.routesAt = before.hosts, before.routesAt
	} else {
		b.makeHosts()
	}
	if set := settings.Certificates; set.Default != "" {
		c.TLS = &TLS{Default: set.Default, Hosts: set.Hosts}
	}
	c.Clients = len(settings.Certificates.Clients) > 0
	c.GRPC = b.frontend("grpc")
	c.HTTP = b.frontend("http")
	slices.SortFunc(c.SharedTCP, func(x, y SharedPort) int { return x.Port - y.Port })
	for _, shared := range c.SharedTCP {
		slices.SortFunc(shared.Services, func(x, y SharedService) int { return strings.Compare(x.Upstream.Name, y.Upstream.Name) })
	}
	slices.SortFunc(c.TCP, func(x, y TCPService) int { return strings.Compare(x.Upstream.Name, y.Upstream.Name) })
	b.listeners = b.listenersWith(c.TCP)
	if pages := c.HTTP.pages(); len(pages) > 0 {
		maps.Copy(pages, c.files)
		c.files = pages
	}
	slices.SortStableFunc(b.problems, func(x, y Problem) int { return strings.Compare(x.Subject, y.Subject) })
	return c, b
}

type builder struct {
	settings  Settings
	resolve   addresses
	reserved  metadata.Reserved
	before    map[string]Upstream      // by service: earlier upstreams that can be reused
	earlier   map[string]Upstream      // by service: all earlier upstreams
	upstreams map[string]Upstream      // by service
	routed    []routed                 // services that have routes, in order
	routedAt  map[string]int           // their indexes by name, see routedIndex
	open      []Listener               // the listeners that exist
	hosts     map[string][]Host        // by family
	routesAt  map[string][]routing.Way // by listener, in order
	listeners []routing.Listener
	claims    map[claim]string  // the service that has each claim
	conflict  bool              // a service did not get a route, a listener or a port that it claims
	byReload  map[string]string // services whose servers are in nginx's files, and why
	crowded   map[string]bool   // services that have too many servers for a DNS answer
	unusable  map[string][]endpoints.Unusable
	reads     *reads
	problems  []Problem
	policies  map[string]usablePolicy // by service
	files     map[string][]byte       // of the generation, for the services

	crowdedBefore  map[string]bool
	policiesBefore map[string]usablePolicy
}

// routedIndex returns the index in routed of a service, once all of them are there.
func (b *builder) routedIndex(service string) (n int, found bool) {
	if b.routedAt == nil {
		b.routedAt = make(map[string]int, len(b.routed))
		for n, r := range b.routed {
			b.routedAt[r.service] = n
		}
	}
	n, found = b.routedAt[service]
	return n, found
}

// routed is a service with routes. Its fields decide its hosts and locations.
type routed struct {
	service  string
	spec     endpoints.Spec
	upstream string // empty: it has no instance that gets traffic
	tlsFiles TLSFiles
	// mirrors has where copies of its requests go, by service.
	mirrors map[string]string
	health  bool // it is no service: lbctl answers with the health of all
}

func sameRouted(a, b routed) bool {
	return a.service == b.service && a.upstream == b.upstream && a.tlsFiles == b.tlsFiles && maps.Equal(a.mirrors, b.mirrors) && a.spec.Equal(b.spec)
}

// sameEntrances reports whether both have the same listeners, with the same demands on clients.
func (b *builder) sameEntrances(o *builder) bool {
	return reflect.DeepEqual(b.open, o.open) && reflect.DeepEqual(b.settings.Certificates.Clients, o.settings.Certificates.Clients)
}

// claim is a port that only one service can have, or a host on a port that services share.
type claim struct {
	port int
	host string
}

func (b *builder) problem(service, format string, args ...any) {
	b.problems = append(b.problems, Problem{Subject: ServiceSubject(service), Message: fmt.Sprintf(format, args...)})
}

// take gives a service a port that it claims, unless another service has it. The
// endpoints.Table has already resolved conflicts; take checks again, because nginx would
// refuse a configuration with a conflict.
func (b *builder) take(service string, c claim, what string) bool {
	owner, taken := b.claims[c]
	if taken && owner != service {
		b.conflict = true
		b.problem(service, "%s belongs to service %q", what, owner)
		return false
	}
	b.claims[c] = service
	return !taken
}

// route adds a service that has routes, with its upstream.
func (b *builder) route(e endpoints.Entry) {
	if len(e.Routes) == 0 && !e.Default {
		return
	}
	if e.Policy.General().Outlier.On() && b.settings.AccessLogDir == "" {
		b.policyProblem(e.Name, e.Policy, "", []string{"outlier.consecutive-errors", "outlier.error-rate"}, "its circuit breaker (outlier.consecutive-errors, outlier.error-rate) does nothing, because nginx has no access log: "+
			"give lbctl a directory on a tmpfs with --access-log-dir")
	}
	p := routed{service: e.Name, spec: e.Spec, tlsFiles: b.tlsFiles(e)}
	if u, ok := b.upstream(e); ok {
		p.upstream = u.Name
	}
	b.routed = append(b.routed, p)
}

// upstream makes the upstream of a service; it returns false if that would be empty.
func (b *builder) upstream(e endpoints.Entry) (Upstream, bool) {
	u := b.servers(e)
	u.ZoneKiB = 64 * (1 + len(u.servers)/32)
	if b.settings.Resolver != "" {
		why := b.byReloadReason(e, u)
		u.Resolve = why == ""
		if !u.Resolve {
			b.byReload[e.Name] = why
		}
	}
	switch {
	case u.Resolve:
		u.ZoneKiB = resolveZoneKiB(e.Peak, e.Protocol)
		u.IPv6 = slices.ContainsFunc(u.servers, func(s Server) bool { return strings.HasPrefix(s.Address, "[") })
		if len(e.Instances) > 0 {
			u.MaxConns = e.Policy.MaxConnsOf(e.Instances[0].MaxConns) // all instances have the same
		}
	case len(u.servers) == 0:
		return Upstream{}, false
	}
	u.Name = UpstreamName(e.Protocol, e.Name)
	b.upstreams[e.Name] = u
	return u, true
}

// has reports whether the builder has an upstream with the instances that are in rotation
// now, and all their addresses are IP addresses.
func (b *builder) has(e endpoints.Entry) bool {
	u, ok := b.upstreams[e.Name]
	return ok && u.isOf(e)
}

// isOf reports whether the servers were made from this revision of the entry, without
// looking up host names.
func (u Upstream) isOf(e endpoints.Entry) bool {
	return u.plain && e.Revision != 0 && u.revision == e.Revision
}

// servers returns the start of an upstream: its service and its servers.
func (b *builder) servers(e endpoints.Entry) Upstream {
	in := e.Rotation()
	u := Upstream{Service: e.Name, Spec: e.Spec, Policy: e.Policy.General(), revision: e.Revision, plain: true, reads: b.reads}
	if old, ok := b.before[e.Name]; ok && old.isOf(e) && old.Spec.Policy.Equal(e.Policy) {
		u.servers, u.targets, u.answerSize = old.servers, old.targets, old.answerSize
		return u
	}
	waiting := false
	for _, i := range in {
		found, known := b.resolve(i.Address)
		if !known {
			waiting, u.plain = true, false
			continue
		}
		servers, why := b.serversOf(e, i, found)
		u.servers = append(u.servers, servers...)
		if len(servers) == 0 {
			b.unusable[e.Name] = append(b.unusable[e.Name], endpoints.Unusable{Node: i.Node, ID: i.ID, Reason: why})
		}
		u.plain = u.plain && len(servers) == 1 && found[0] == i.Address
	}
	if waiting && len(u.servers) == 0 {
		// The names are being looked up: keep the earlier servers until they are known.
		u.servers = slices.Clone(b.earlier[e.Name].servers)
	}
	// An address that is registered twice becomes one server.
	slices.SortStableFunc(u.servers, func(x, y Server) int { return strings.Compare(x.Address, y.Address) })
	u.servers = slices.CompactFunc(u.servers, func(x, y Server) bool { return x.Address == y.Address })
	if u.Hash() != "" {
		ringWeights(u.servers)
	}
	u.targets = targets(u.servers)
	u.answerSize = resolver.Size(u.targets)
	return u
}

// serversOf returns an instance's servers, one for each address that was found for its own.
// If there is none, it says why.
func (b *builder) serversOf(e endpoints.Entry, i endpoints.Instance, found []string) (servers []Server, why string) {
	if len(found) == 0 {
		b.problem(e.Name, "instance %q: address %q can't be resolved: it gets no traffic", printable.Shorten(i.ID), i.Address)
		return nil, fmt.Sprintf("its address %q can't be resolved", i.Address)
	}
	at := i
	for _, address := range found {
		if refused := b.refuse(address, i.Port); refused != "" {
			if why = refused; address != i.Address {
				why = fmt.Sprintf("its address %q resolves to %s, and %s", i.Address, address, refused)
			}
			b.problem(e.Name, "%s", refusedInstance(i, address, refused))
			continue
		}
		at.Address = address
		servers = append(servers, Server{Address: at.HostPort(), Weight: i.Weight, MaxConns: e.Policy.MaxConnsOf(i.MaxConns)})
	}
	return servers, why
}

// refuse says why nginx must not send traffic to an address, "" if it may. Package
// metadata has checked the registered addresses; this also covers the addresses of host
// names, the ports of TCP services, and instances from a snapshot.
func (b *builder) refuse(address string, port int) string {
	parsed, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	return b.reserved.Refuse(netip.AddrPortFrom(parsed, uint16(port)))
}

func refusedInstance(i endpoints.Instance, address, why string) string {
	if address == i.Address {
		return metadata.RefusedInstance(i, why)
	}
	return metadata.RefusedInstance(i, fmt.Sprintf("it resolves to %s, and %s", address, why))
}

func (b *builder) frontend(family string) Frontend {
	f := Frontend{Hosts: b.hosts[family]}
	for _, p := range b.routed {
		if p.spec.Protocol.Family() != family {
			continue
		}
		if u, ok := b.upstreams[p.service]; ok {
			f.Upstreams = append(f.Upstreams, u)
		}
	}
	return f
}
