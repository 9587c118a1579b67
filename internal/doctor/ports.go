package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/render"
)

// A port is an address on which nginx or lbctl shall listen.
type port struct {
	network string // "tcp" or "udp"
	address string
	what    string // whose: "listener grpc", or "service redis"
	nginx   bool   // nginx listens there, not lbctl
}

// ports returns the addresses of the settings, and those of TCP services.
func (e *examination) ports() []port {
	n := e.Config.Nginx
	var all []port
	add := func(what string, list render.Listen) {
		for _, address := range list {
			all = append(all, port{"tcp", address, what, true})
		}
	}
	settings := render.Settings{Listeners: n.AllListeners()}
	for _, listener := range settings.Listeners {
		add("listener "+listener.Name, listener.Listen)
	}
	for _, service := range e.Daemon.Services {
		if service.Protocol == endpoints.TCP && service.Port != 0 && len(settings.Listeners) > 0 {
			add("service "+service.Name, settings.TCPListen(service.Port))
		}
	}
	if e.Config.Admin != "" {
		all = append(all, port{"tcp", e.Config.Admin, "--admin", false})
	}
	if e.asksDNS() {
		all = append(all, port{"udp", n.DNSListen, "--dns-listen", false}, port{"tcp", n.DNSListen, "--dns-listen", false})
	}
	return all
}

// asksDNS reports whether nginx asks lbctl for servers.
func (e *examination) asksDNS() bool {
	if e.Daemon.answers() {
		return e.Daemon.Status.Endpoints.By == "dns"
	}
	settings, err := e.Config.Nginx.Settings(e.Config.StateDir, e.Config.RunDir, e.nginx.build)
	return err == nil && settings.Resolver != ""
}

// addresses returns the addresses of a port: ":5000" is two.
func (p port) addresses() (all []netip.AddrPort) {
	host, number, err := net.SplitHostPort(p.address)
	if err != nil {
		return nil
	}
	hosts := []string{host}
	if host == "" {
		hosts = []string{"0.0.0.0", "::"}
	}
	for _, host := range hosts {
		if a, err := netip.ParseAddrPort(net.JoinHostPort(host, number)); err == nil {
			all = append(all, a)
		}
	}
	return all
}

func checkPorts(_ context.Context, e *examination) []Finding {
	own := []int{e.Daemon.PID}
	nginx := []int{}
	if e.nginx.running {
		nginx = append(nginx, e.nginx.processes.Master.PID)
	}
	var findings []Finding
	names := map[string]bool{}
	for _, p := range e.ports() {
		names[p.what] = true
		expected := own
		if p.nginx {
			expected = nginx
		}
		f := e.checkPort(p, expected)
		// UDP and TCP, or both families, have the same cause.
		if f != nil && !slices.ContainsFunc(findings, func(other Finding) bool { return other.Found == f[0].Found }) {
			findings = append(findings, f...)
		}
	}
	if len(findings) > 0 {
		return findings
	}
	return ok("no other process has the ports of %s", strings.Join(sortedKeys(names), ", "))
}

// checkPort returns nil if a port is free, or taken by the expected processes.
func (e *examination) checkPort(p port, expected []int) []Finding {
	for _, address := range p.addresses() {
		taken := e.sockets.listening(p.network, address)
		for _, s := range taken {
			owners := e.sockets.owners[s.inode]
			if slices.ContainsFunc(owners, func(pid int) bool { return slices.Contains(expected, pid) }) {
				continue
			}
			if len(owners) == 0 && (p.nginx && e.nginx.running || !p.nginx && e.Daemon.answers()) {
				continue // of another user: /proc does not tell, and it may be as it should
			}
			who := "a process of another user"
			if len(owners) > 0 {
				who = processName(owners[0])
			}
			return failed(fmt.Sprintf("%s %s: %s listens on %s", p.what, p.address, who, s.address), "that the port is free for "+owner(p))
		}
		if len(taken) == 0 {
			if f := e.mayBind(p, address); f != nil {
				return f
			}
		}
	}
	return nil
}

func owner(p port) string {
	if p.nginx {
		return "nginx"
	}
	return "lbctl"
}

// mayBind finds the ports that only root may use, and addresses that the machine does not have.
func (e *examination) mayBind(p port, address netip.AddrPort) []Finding {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if least, parseErr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && parseErr == nil && os.Geteuid() != 0 && int(address.Port()) < least {
		return mend(failed(fmt.Sprintf("%s %s: only root may listen on ports below %d", p.what, p.address, least), "a port of at least "+strconv.Itoa(least)),
			"run nginx and lbctl as root, or choose another port")
	}
	if !address.Addr().IsUnspecified() && !address.Addr().IsLoopback() && !hasAddress(address.Addr()) {
		return mend(failed(fmt.Sprintf("%s %s: this machine does not have the address", p.what, p.address), "an address of this machine"),
			"use an address that 'ip address' lists, or 0.0.0.0")
	}
	return nil
}

func hasAddress(wanted netip.Addr) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return true // not known
	}
	return slices.ContainsFunc(addresses, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == wanted.WithZone("")
	})
}
