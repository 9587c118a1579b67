package metadata

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
	"lbctl/internal/printable"
)

// metadata has the settings of a service that one instance names.
type metadata struct {
	instance string
	balanced bool // it has any setting or tag
	protocol endpoints.Protocol
	routes   []endpoints.Route // none: the default place of the protocol
	// offers has a route for each gRPC service that the server offers, if there are no routes.
	offers   []endpoints.Route
	port     int
	version  string
	maxConns int
	policy   policy.Document

	listeners []string // sorted; none: all of the protocol's family
	tls       string   // of KeyTLS
}

// valid reports whether the metadata is valid.
func (m metadata) valid() bool { return m.protocol != "" }

// reader reads one instance's tags and metadata.
type reader struct {
	tags     []string
	meta     map[string]string
	reserved Reserved

	metadata metadata
	errs     []error
}

// parseInstance reads one instance's metadata and tags. A single error makes all of the
// metadata invalid, because a part of it may mean something else than all of it.
func parseInstance(service *api.AgentService, reserved Reserved) (metadata, error) {
	r := &reader{tags: service.Tags, meta: service.Meta, reserved: reserved}
	r.metadata.instance = printable.Shorten(service.ID)
	if !r.balanced() {
		return r.metadata, nil
	}
	r.metadata.balanced = true
	r.mistakes()
	p := r.protocol()
	routes := r.routes(p)
	offers := r.offers(p)
	r.port(p)
	r.listeners(p)
	r.tls(p)
	r.settings()
	if len(r.errs) > 0 {
		return metadata{instance: r.metadata.instance, balanced: true}, fmt.Errorf("instance %q: %w", r.metadata.instance, joinLines(r.errs))
	}
	r.metadata.protocol, r.metadata.routes, r.metadata.offers = p, routes, offers
	return r.metadata, nil
}

// balanced reports whether the instance asks to be balanced, by any tag or key. A mistyped key
// counts too, so that it is reported.
func (r *reader) balanced() bool {
	if HasTag(r.tags) || slices.ContainsFunc(r.tags, isPair) {
		return true
	}
	for key := range r.meta {
		if slices.Contains(keys, key) || mistyped(key) != "" {
			return true
		}
	}
	return false
}

// mistakes refuses unknown keys: without the setting that was meant, the service could get the
// traffic of others.
func (r *reader) mistakes() {
	for _, mistake := range Mistakes(r.tags, r.meta) {
		r.errs = append(r.errs, errors.New(mistake))
	}
}

func (r *reader) value(key string) string { return strings.TrimSpace(r.meta[key]) }

func (r *reader) bad(key, found, want string) {
	r.errs = append(r.errs, fmt.Errorf("%s %q, want %s", key, printable.Shorten(found), want))
}

func (r *reader) protocol() endpoints.Protocol {
	said := r.value(KeyProtocol)
	isGRPC, isHTTP := slices.Contains(r.tags, TagGRPC), slices.Contains(r.tags, TagHTTP)
	switch {
	case said != "":
		p := endpoints.Protocol(strings.ToLower(said))
		if !slices.Contains(endpoints.Protocols, p) {
			r.bad(KeyProtocol, said, fmt.Sprintf("one of %q", endpoints.Protocols))
		}
		return p
	case isGRPC && isHTTP:
		r.errs = append(r.errs, fmt.Errorf("it has both tags, %q and %q, want one of them or %s", TagGRPC, TagHTTP, KeyProtocol))
	case isGRPC:
		return endpoints.GRPC
	case isHTTP:
		return endpoints.HTTP
	case r.value(KeyGRPC) != "":
		return endpoints.GRPC
	case r.value(KeyPort) != "":
		return endpoints.TCP
	case len(r.errs) > 0: // the mistyped key or tag may name the protocol
	default:
		hint := ""
		if tag, meant := MistypedTag(r.tags); tag != "" {
			hint = fmt.Sprintf(" (it has the tag %q: did you mean %q?)", printable.Shorten(tag), meant)
		}
		r.errs = append(r.errs, fmt.Errorf("its protocol is not known, want %s or one of the tags %q and %q%s",
			KeyProtocol, TagGRPC, TagHTTP, hint))
	}
	return ""
}

// port reads the port that a TCP service listens on.
func (r *reader) port(p endpoints.Protocol) {
	port := r.value(KeyPort)
	switch {
	case p == endpoints.TCP && r.unroutableTCP() == "":
		n, err := strconv.Atoi(port)
		if err != nil || n < 1024 || n > 65535 || slices.Contains(r.reserved.Ports, n) {
			r.bad(KeyPort, port, fmt.Sprintf("a port of 1024 to 65535 other than %s, which are taken", listOf(r.reserved.Ports)))
		}
		r.metadata.port = n
	case p == endpoints.TCP: // an error has been reported already
	case port != "":
		r.bad(KeyPort, port, fmt.Sprintf("none, because only %s %q has one", KeyProtocol, endpoints.TCP))
	}
}

// listeners reads the names of the listeners where the service is served.
func (r *reader) listeners(p endpoints.Protocol) {
	said := r.value(KeyListen)
	if said == "" {
		return
	}
	if p == endpoints.TCP {
		r.bad(KeyListen, said, fmt.Sprintf("none, because %s %q has a port of its own, %s", KeyProtocol, p, KeyPort))
		return
	}
	names, err := splitList(said, func(name string) (string, error) { return name, r.reserved.checkListener(name, p) })
	if err != nil {
		r.bad(KeyListen, said, err.Error())
		return
	}
	slices.Sort(names)
	r.metadata.listeners = names
}

// settings reads all settings except routes.
func (r *reader) settings() {
	m := &r.metadata
	if m.version = r.value(KeyVersion); m.version != "" && !versionLabel.MatchString(m.version) {
		r.bad(KeyVersion, m.version, `1 to 64 letters, digits, ".", "_" or "-"`)
	}
	r.policy()
	m.maxConns, _ = strconv.Atoi(r.value(KeyMaxConns)) // policy has checked it
}

// policy reads the fields of the policy.
func (r *reader) policy() {
	for _, f := range policy.Fields() {
		key := f.Key()
		if text := r.value(key); key != "" && text != "" {
			if r.metadata.policy.Set(f.Name, text) != nil {
				r.errs = append(r.errs, f.Bad(key, text))
			}
		}
	}
	if text := r.value(KeyPaths); text != "" {
		if err := r.metadata.policy.SetPaths(text); err != nil {
			r.errs = append(r.errs, fmt.Errorf("%s: %w", KeyPaths, err))
		}
	}
}
