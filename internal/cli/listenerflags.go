package cli

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"lbctl/internal/daemon"
	"lbctl/internal/render"
	"lbctl/internal/spelling"
)

// listenerFlags defines the flags about listeners and TLS, except for --grpc-listen and
// --http-listen.
func listenerFlags(flags *flags, n *daemon.NginxConfig) {
	define(flags, (*listenerList)(&n.Listeners), "listener", "LBCTL_LISTENER", "NAME=PROTOCOL://ADDRESS:PORT",
		"a further listener, or another address of grpcs or https; may be repeated, see docs/listeners.md", nil, parseListeners())
	define(flags, (*networkList)(&n.TrustedProxies), "trusted-proxies", "LBCTL_TRUSTED_PROXIES", "NETWORK,...",
		"networks of proxies in front of nginx, whose word about a client's address counts", nil, parseNetworks)
	define(flags, &n.Certificates, "certificates", "LBCTL_CERTIFICATES", kindDir,
		"directory with certificates for TLS: NAME.crt with NAME.key, or NAME.pem with both", "", parseCertificates)
	flags.check(func(mistake func(format string, args ...any)) { checkListeners(flags, n, mistake) })
}

// checkListeners finds the mistakes in the flags together.
func checkListeners(flags *flags, n *daemon.NginxConfig, mistake func(format string, args ...any)) {
	all := n.AllListeners()
	source := flags.source("listener")
	var usual []string
	for _, l := range append(render.PlainListeners(nil, nil), render.TLSListeners()...) {
		usual = append(usual, l.Name)
	}
	for at, l := range n.Listeners {
		if slices.ContainsFunc(n.Listeners[:at], func(before render.Listener) bool { return before.Name == l.Name }) {
			mistake("%s %q: listener %q is given twice, want one of them", source, l, l.Name)
		}
		if l.Protocol == "" && !slices.Contains(usual, l.Name) {
			hint := "there are " + strings.Join(usual, ", ")
			if nearest := spelling.Nearest(l.Name, usual); nearest != "" {
				hint = "did you mean " + nearest + "?"
			}
			mistake("%s %q: there is no listener %q to turn off, %s", source, l, l.Name, hint)
		}
		if l.Protocol.TLS() && n.Certificates == "" {
			mistake("%s %q: a listener for %s needs certificates, want --certificates DIR", source, l, l.Protocol)
		}
		if named := map[string]string{render.ListenerGRPC: "grpc-listen", render.ListenerHTTP: "http-listen"}[l.Name]; named != "" && flags.given(named) {
			mistake("%s %q: %s sets the same listener, want one of them", source, l, flags.source(named))
		}
	}
	if len(all) == 0 {
		mistake("%s: all listeners are turned off, want one or more", source)
	}
	for _, err := range render.CheckListeners(all, n.TrustedProxies) {
		mistake("%w", err)
	}
}

// listenerList is the value of --listener.
type listenerList []render.Listener

func (l listenerList) String() string {
	words := make([]string, len(l))
	for n := range l {
		words[n] = l[n].String()
	}
	return strings.Join(words, " ")
}

// parseListeners returns a parser that collects the listeners of all its calls. A variable has
// several, separated by white space.
func parseListeners() func(string) (listenerList, error) {
	var all listenerList
	return func(given string) (listenerList, error) {
		for word := range strings.FieldsSeq(given) {
			l, err := render.ParseListener(word)
			if err != nil {
				return nil, err
			}
			all = append(all, l)
		}
		return all, nil
	}
}

// networkList is the value of --trusted-proxies.
type networkList []string

func (l networkList) String() string { return strings.Join(l, ",") }

func parseNetworks(given string) (networkList, error) {
	var all networkList
	for word := range strings.SplitSeq(given, ",") {
		word = strings.TrimSpace(word)
		network, err := netip.ParsePrefix(word)
		if address, addressErr := netip.ParseAddr(word); addressErr == nil && address.Zone() == "" {
			network, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q: want networks like 10.0.0.0/8 or fd00::/8, separated by commas", word)
		}
		if network != network.Masked() {
			return nil, fmt.Errorf("%q: want the first address of the network, %s", word, network.Masked())
		}
		all = append(all, network.String())
	}
	return all, nil
}

func parseCertificates(given string) (string, error) {
	path, err := parseDirectory(given)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return "", fmt.Errorf("want an existing directory with certificates, which are pairs of files like example.com.crt and example.com.key")
	}
	return path, nil
}
