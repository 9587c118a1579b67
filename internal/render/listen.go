package render

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Listen has the addresses of a listener of nginx: each is "ADDRESS:PORT" with an IP address.
// ":PORT" means every address of the machine, IPv4 and IPv6.
type Listen []string

// ParseListen reads addresses separated by commas.
func ParseListen(text string) (Listen, error) {
	var l Listen
	for address := range strings.SplitSeq(text, ",") {
		l = append(l, strings.TrimSpace(address))
	}
	if _, err := l.ports(); err != nil {
		return nil, errors.New("want addresses like :5000 (IPv4 and IPv6), 0.0.0.0:5000, 127.0.0.1:5000 or [::]:5000, separated by commas")
	}
	return l, nil
}

// String returns the first address, for templates of the time when there was only one.
func (l Listen) String() string {
	if len(l) == 0 {
		return ""
	}
	return l[0]
}

// Ports returns the ports of all addresses, in order; none if an address is invalid.
func (l Listen) Ports() []int {
	ports, err := l.ports()
	if err != nil {
		return nil
	}
	return ports
}

func (l Listen) ports() ([]int, error) {
	var ports []int
	for _, address := range l {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("%q, want ADDRESS:PORT like \"0.0.0.0:5000\"", address)
		}
		if host != "" && net.ParseIP(host) == nil {
			return nil, fmt.Errorf("%q has the address %q, want an IP address", address, host)
		}
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("%q has the port %q, want 1 to 65535", address, port)
		}
		ports = append(ports, n)
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}

// each replaces ":PORT" by an address for each family that the machine has, and removes
// duplicates. nginx needs an address for each family: a listener for both would show IPv4
// clients as "::ffff:192.0.2.1".
func (l Listen) each() Listen {
	var all Listen
	for _, address := range l {
		host, port, err := net.SplitHostPort(address)
		if err != nil || host != "" {
			all = append(all, address)
			continue
		}
		for _, any := range anyAddresses() {
			all = append(all, net.JoinHostPort(any, port))
		}
	}
	var once Listen
	for _, address := range all {
		if !slices.Contains(once, address) {
			once = append(once, address)
		}
	}
	return once
}

// at returns the same addresses with another port.
func (l Listen) at(port int) Listen {
	var all Listen
	for _, address := range l {
		host, _, _ := net.SplitHostPort(address)
		if address := net.JoinHostPort(host, strconv.Itoa(port)); !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	return all
}

// anyAddresses returns "0.0.0.0" if the machine has IPv4, and "::" if it has IPv6.
func anyAddresses() []string {
	var all []string
	for _, family := range []struct{ network, any string }{{"tcp4", "0.0.0.0"}, {"tcp6", "::"}} {
		listener, err := net.Listen(family.network, net.JoinHostPort(family.any, "0"))
		if err != nil {
			continue
		}
		listener.Close()
		all = append(all, family.any)
	}
	return all
}
