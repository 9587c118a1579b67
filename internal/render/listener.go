package render

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/spelling"
)

// The names of the listeners that exist without a flag. Those with TLS need a certificate.
const (
	ListenerGRPC  = "grpc"
	ListenerHTTP  = "http"
	ListenerGRPCS = "grpcs"
	ListenerHTTPS = "https"
)

// The default addresses of nginx's listeners: every address of the machine.
var (
	DefaultGRPCListen  = Listen{":5000"}
	DefaultHTTPListen  = Listen{":8080"}
	DefaultGRPCSListen = Listen{":5443"}
	DefaultHTTPSListen = Listen{":8443"}
)

// Listener is an entry point: where nginx accepts the connections of clients in one protocol.
// Listeners of the same family (gRPC, HTTP) lead to the same services, except for those that
// name their listeners.
type Listener struct {
	Name     string             // 1 to 32 lower-case letters, digits, "-" and "_"
	Protocol endpoints.Protocol // what clients speak: grpc, grpcs, http or https
	Listen   Listen             // the addresses
	// ProxyProtocol: each connection begins with a PROXY protocol header, which has the address
	// of the client. nginx believes it from Settings.TrustedProxies only.
	ProxyProtocol bool
	// Redirect is the port of HTTPS that every request is redirected to; 0: no redirect. Only
	// listeners for http have one.
	Redirect int
	// HSTS is for how many seconds a browser shall use HTTPS only; 0: no such header. Only
	// listeners for https have one.
	HSTS int
}

// PlainListeners returns the listeners grpc and http, at the given addresses.
func PlainListeners(grpc, http Listen) []Listener {
	return []Listener{
		{Name: ListenerGRPC, Protocol: endpoints.GRPC, Listen: grpc},
		{Name: ListenerHTTP, Protocol: endpoints.HTTP, Listen: http},
	}
}

// TLSListeners returns the listeners grpcs and https, at their default addresses.
func TLSListeners() []Listener {
	return []Listener{
		{Name: ListenerGRPCS, Protocol: endpoints.GRPCS, Listen: DefaultGRPCSListen},
		{Name: ListenerHTTPS, Protocol: endpoints.HTTPS, Listen: DefaultHTTPSListen},
	}
}

// The options of a listener.
const (
	optionProxyProtocol = "proxy-protocol"
	optionRedirect      = "redirect"
	optionHSTS          = "hsts"
)

var listenerOptions = []string{optionProxyProtocol, optionRedirect, optionHSTS}

// Off is the value that ParseListener takes for a listener that shall not exist.
const Off = "off"

var listenerName = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)

// ParseListener reads NAME=PROTOCOL://ADDRESS:PORT,...?OPTION=VALUE&..., such as
// "internal=http://10.0.0.1:8081?proxy-protocol=on". NAME=off gives a Listener without a
// Protocol. The error tells all mistakes.
func ParseListener(text string) (Listener, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok || strings.Contains(name, "/") {
		return Listener{}, errors.New("want NAME=PROTOCOL://ADDRESS:PORT, such as internal=http://10.0.0.1:8081, or NAME=off")
	}
	l := Listener{Name: name}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !listenerName.MatchString(name) {
		bad(`name %q, want 1 to 32 lower-case letters, digits, "-" or "_"`, name)
	}
	if value == Off {
		return l, errors.Join(errs...)
	}
	protocol, rest, ok := strings.Cut(value, "://")
	if !ok {
		bad("%q has no protocol, want PROTOCOL://ADDRESS:PORT, such as http://10.0.0.1:8081, or off", value)
		return l, joinMistakes(errs)
	}
	l.Protocol = endpoints.Protocol(protocol)
	if err := l.checkProtocol(); err != nil {
		errs = append(errs, err)
	}
	addresses, options, _ := strings.Cut(rest, "?")
	var err error
	if l.Listen, err = ParseListen(addresses); err != nil {
		bad("addresses %q: %w", addresses, err)
	}
	errs = append(errs, l.parseOptions(options)...)
	if len(errs) == 0 {
		errs = append(errs, l.checkOptions()...)
	}
	return l, joinMistakes(errs)
}

// parseOptions reads OPTION=VALUE&OPTION=VALUE.
func (l *Listener) parseOptions(text string) (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	values, err := url.ParseQuery(text)
	if err != nil {
		bad("options %q: %w", text, err)
	}
	for option, given := range values {
		if !slices.Contains(listenerOptions, option) {
			meant := ""
			if nearest := spelling.Nearest(option, listenerOptions); nearest != "" {
				meant = fmt.Sprintf(", did you mean %s?", nearest)
			}
			bad("unknown option %q%s (options are %s)", option, meant, strings.Join(listenerOptions, ", "))
			continue
		}
		if len(given) > 1 {
			bad("option %s is given %d times, want it once", option, len(given))
			continue
		}
		value := given[0]
		switch option {
		case optionProxyProtocol:
			if value != "on" && value != "off" {
				bad("%s %q, want on or off", option, value)
			}
			l.ProxyProtocol = value == "on"
		case optionRedirect:
			if l.Redirect, err = strconv.Atoi(value); err != nil || l.Redirect < 1 || l.Redirect > 65535 {
				bad("%s %q, want the port of HTTPS as clients see it, such as 443", option, value)
			}
		case optionHSTS:
			if l.HSTS, err = strconv.Atoi(value); err != nil || l.HSTS < 1 || l.HSTS > maxHSTS {
				bad("%s %q, want a number of seconds, such as 31536000", option, value)
			}
		}
	}
	return errs
}

// maxHSTS bounds Listener.HSTS: ten years.
const maxHSTS = 10 * 365 * 24 * 3600

func (l Listener) checkProtocol() error {
	if l.Protocol == endpoints.TCP || !slices.Contains(endpoints.Protocols, l.Protocol) {
		return fmt.Errorf("protocol %q, want grpc, grpcs, http or https", string(l.Protocol))
	}
	return nil
}

func (l Listener) checkOptions() (errs []error) {
	if l.Redirect != 0 && l.Protocol != endpoints.HTTP {
		errs = append(errs, fmt.Errorf("%s is for listeners of http, this one has %s", optionRedirect, l.Protocol))
	}
	if l.HSTS != 0 && l.Protocol != endpoints.HTTPS {
		errs = append(errs, fmt.Errorf("%s is for listeners of https, this one has %s", optionHSTS, l.Protocol))
	}
	return errs
}

// String returns the listener as ParseListener reads it.
func (l Listener) String() string {
	if l.Protocol == "" {
		return l.Name + "=" + Off
	}
	text := fmt.Sprintf("%s=%s://%s", l.Name, l.Protocol, strings.Join(l.Listen, ","))
	var options []string
	if l.ProxyProtocol {
		options = append(options, optionProxyProtocol+"=on")
	}
	if l.Redirect != 0 {
		options = append(options, fmt.Sprintf("%s=%d", optionRedirect, l.Redirect))
	}
	if l.HSTS != 0 {
		options = append(options, fmt.Sprintf("%s=%d", optionHSTS, l.HSTS))
	}
	if len(options) > 0 {
		text += "?" + strings.Join(options, "&")
	}
	return text
}

func joinMistakes(errs []error) error {
	words := make([]string, len(errs))
	for n, err := range errs {
		words[n] = err.Error()
	}
	if len(words) == 0 {
		return nil
	}
	slices.Sort(words)
	return errors.New(strings.Join(words, "; "))
}

// CheckListeners returns the mistakes that the listeners have each and together.
func CheckListeners(listeners []Listener, trustedProxies []string) (errs []error) {
	owners := map[int]string{}
	names := map[string]bool{}
	for _, l := range listeners {
		bad := func(err error) { errs = append(errs, fmt.Errorf("listener %q: %w", l.Name, err)) }
		if !listenerName.MatchString(l.Name) {
			bad(errors.New(`want a name of 1 to 32 lower-case letters, digits, "-" or "_"`))
		}
		if names[l.Name] {
			bad(errors.New("there are two of this name, want one"))
		}
		names[l.Name] = true
		if err := l.checkProtocol(); err != nil {
			bad(err)
		}
		for _, err := range l.checkOptions() {
			bad(err)
		}
		ports, err := l.Listen.ports()
		if err == nil && len(ports) == 0 {
			err = errors.New("it has no address, want one")
		}
		if err != nil {
			bad(fmt.Errorf("address: %w", err))
		}
		for _, port := range ports {
			if other, taken := owners[port]; taken {
				bad(fmt.Errorf("port %d belongs to listener %q, want another one", port, other))
				continue
			}
			owners[port] = l.Name
		}
		if l.ProxyProtocol && len(trustedProxies) == 0 {
			bad(fmt.Errorf("%s needs the networks of the proxies, want --trusted-proxies", optionProxyProtocol))
		}
	}
	return errs
}

// listener returns the listener with the name.
func (s Settings) listener(name string) (Listener, bool) {
	for _, l := range s.Listeners {
		if l.Name == name {
			return l, true
		}
	}
	return Listener{}, false
}

// GRPCListen returns the addresses of the listener grpc.
func (s Settings) GRPCListen() Listen {
	l, _ := s.listener(ListenerGRPC)
	return l.Listen
}

// HTTPListen returns the addresses of the listener http.
func (s Settings) HTTPListen() Listen {
	l, _ := s.listener(ListenerHTTP)
	return l.Listen
}

// known returns the listeners for package metadata.
func known(listeners []Listener) (all []metadata.Listener) {
	for _, l := range listeners {
		all = append(all, metadata.Listener{Name: l.Name, Family: l.Protocol.Family()})
	}
	return all
}
