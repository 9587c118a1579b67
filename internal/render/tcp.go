package render

import (
	"fmt"
	"slices"
	"strconv"

	"lbctl/internal/endpoints"
)

// sharedPort is who has the claim of a port that services share by host.
const sharedPort = "*" // no service has this name

// tcp adds a TCP service to the catalog.
func (b *builder) tcp(e endpoints.Entry, c *Catalog) {
	if e.Port == 0 {
		return
	}
	if !b.settings.HasStream() {
		b.problem(e.Name, "it is plain TCP, and this nginx has no stream module: install it (Debian: libnginx-mod-stream)")
		return
	}
	if slices.Contains(b.reserved.Ports, e.Port) {
		b.problem(e.Name, "TCP port %d is reserved for the balancer, so the service does not get it", e.Port)
		return
	}
	if e.Terminate && b.settings.Certificates.Default == "" {
		b.problem(e.Name, "its clients speak TLS, and there is no certificate: want one in the directory of --certificates")
		return
	}
	if len(e.Routes) > 0 {
		b.sharedTCP(e, c)
		return
	}
	if !b.take(e.Name, claim{port: e.Port}, "TCP port "+strconv.Itoa(e.Port)) {
		return
	}
	if u, ok := b.upstream(e); ok {
		service := TCPService{Listen: b.settings.TCPListen(e.Port), TLS: e.Terminate, Upstream: u}
		if e.Terminate {
			service.Clients = b.clientsOf(Host{Default: true})
		}
		c.TCP = append(c.TCP, service)
	}
}

// sharedTCP adds a TCP service that shares its port with others.
func (b *builder) sharedTCP(e endpoints.Entry, c *Catalog) {
	whole := claim{port: e.Port}
	if owner, taken := b.claims[whole]; taken && owner != sharedPort {
		b.conflict = true
		b.problem(e.Name, "TCP port %d belongs to service %q", e.Port, owner)
		return
	}
	b.claims[whole] = sharedPort
	var hosts []string
	for _, r := range e.Routes {
		if !b.reserved.ReservedHost(r.Host) && b.take(e.Name, claim{port: e.Port, host: r.Host}, fmt.Sprintf("host %q on TCP port %d", r.Host, e.Port)) {
			hosts = append(hosts, r.Host)
		}
	}
	u, ok := b.upstream(e)
	if !ok || len(hosts) == 0 {
		return
	}
	p := e.Policy.General()
	if p.Timeout.Connect != 0 || p.Timeout.Read != 0 {
		b.policyProblem(e.Name, e.Policy, "", []string{"timeout.connect", "timeout.read"}, "its timeouts have no effect on a service that shares its port: the built-in ones are used")
	}
	if p.Retry.Tries != 0 || p.Retry.Timeout != 0 {
		b.policyProblem(e.Name, e.Policy, "", []string{"retry.tries", "retry.timeout"}, "its retries have no effect on a service that shares its port: the built-in ones are used")
	}
	if len(u.ConnLimits()) > 0 {
		b.policyProblem(e.Name, e.Policy, "", []string{"limit.address.conns", "limit.service.conns"}, "its limits of connections have no effect on a service that shares its port")
	}
	n := slices.IndexFunc(c.SharedTCP, func(p SharedPort) bool { return p.Port == e.Port })
	if n < 0 {
		n = len(c.SharedTCP)
		c.SharedTCP = append(c.SharedTCP, SharedPort{Port: e.Port, Listen: b.settings.TCPListen(e.Port)})
	}
	c.SharedTCP[n].Services = append(c.SharedTCP[n].Services, SharedService{Hosts: hosts, Upstream: u})
}
