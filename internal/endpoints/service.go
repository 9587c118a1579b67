// Package endpoints decides which instances serve which service.
//
// A [Table] takes complete observations of Consul's catalog and returns the services to
// be served. It keeps serving a service when Consul gives no answer, when the service's
// data becomes invalid, when nginx refuses it, and when many instances vanish from the
// catalog at once, as they do when a token loses its rights. It ejects an instance that
// fails lbctl's own probe. If no instance passes, it tries all of them. A snapshot on
// disk carries its state across restarts.
package endpoints

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Protocol is a service's protocol, from its lb-protocol metadata.
type Protocol string

// The protocols that lbctl balances.
const (
	GRPC  Protocol = "grpc"
	GRPCS Protocol = "grpcs"
	HTTP  Protocol = "http"
	HTTPS Protocol = "https"
	TCP   Protocol = "tcp"
)

// Protocols are all known protocols.
var Protocols = []Protocol{GRPC, GRPCS, HTTP, HTTPS, TCP}

// Family returns the listener of the protocol's traffic: "grpc", "http" or "tcp". Two
// services can have the same route only in different families.
func (p Protocol) Family() string { return strings.TrimSuffix(string(p), "s") }

// TLS reports whether the protocol uses TLS.
func (p Protocol) TLS() bool { return p == GRPCS || p == HTTPS }

// Status is an instance's aggregated check status, in Consul's words.
type Status string

// Consul's statuses.
const (
	Passing     Status = "passing"
	Warning     Status = "warning"
	Critical    Status = "critical"
	Maintenance Status = "maintenance"
)

// Instance is one server of a service, as registered in Consul.
type Instance struct {
	ID      string `json:"id" printable:"name"` // Consul's service id, unique on its node
	Node    string `json:"node" printable:"name"`
	Address string `json:"address"` // IP address or host name
	Port    int    `json:"port"`
	// Weight is its share of the traffic, 0 to 65535: Consul's weight for its status. With
	// 0 it gets traffic only when no instance with a weight can serve.
	Weight  int    `json:"weight"`
	Status  Status `json:"status"`
	Version string `json:"version,omitempty" printable:"name"` // lb-version
	// MaxConns is how many connections nginx may have to it at a time, from lb-max-conns;
	// 0 means no limit.
	MaxConns int `json:"max_conns,omitempty"`
}

// InRotation reports whether Consul has the instance in rotation: its status is passing
// or warning. Entry.Rotation returns the instances that get traffic.
func (i Instance) InRotation() bool { return i.Status == Passing || i.Status == Warning }

// HostPort returns the address to dial, with brackets around an IPv6 address.
func (i Instance) HostPort() string { return net.JoinHostPort(i.Address, strconv.Itoa(i.Port)) }

// LoggedAddresses returns the instance's addresses and ports as nginx logs them. If its address is
// a host name, which isName says, they are those of the IP addresses that resolve returns for it,
// and can change.
func (i Instance) LoggedAddresses(resolve func(host string) []string) (all []string, isName bool) {
	port := strconv.Itoa(i.Port)
	if ip, err := netip.ParseAddr(i.Address); err == nil {
		return []string{net.JoinHostPort(ip.String(), port)}, false
	}
	for _, found := range resolve(i.Address) {
		if ip, err := netip.ParseAddr(found); err == nil {
			all = append(all, net.JoinHostPort(ip.String(), port))
		}
	}
	return all, true
}

// Validate returns an error that names all invalid values of the instance.
func (i Instance) Validate() error {
	var errs []error
	bad := func(what string, found any, want string) {
		errs = append(errs, fmt.Errorf("instance %q: %s %q, want %s", i.ID, what, fmt.Sprint(found), want))
	}
	if !validAddress(i.Address) {
		bad("address", i.Address, "an IP address or a host name")
	}
	if i.Port < 1 || i.Port > 65535 {
		bad("port", i.Port, "1 to 65535")
	}
	if i.Weight < 0 || i.Weight > maxWeight {
		bad("weight", i.Weight, "0 to 65535")
	}
	if !slices.Contains([]Status{Passing, Warning, Critical, Maintenance}, i.Status) {
		bad("status", i.Status, `"passing", "warning", "critical" or "maintenance"`)
	}
	return errors.Join(errs...)
}

func validAddress(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Zone() == ""
	}
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// Service is one service of the catalog, with its settings and instances.
type Service struct {
	Name string `json:"name"`
	// Spec has no Protocol if the service is not to be balanced (OK is then true) or its
	// metadata is invalid (OK is false).
	Spec
	Instances []Instance `json:"instances"` // all registered ones, sorted by Node and ID
	// Problems has a readable line for each mistake in the service's data.
	Problems []string `json:"problems,omitempty"`
	// CheckOutputs has what failing checks say, and why instances are in maintenance, in the
	// order of the instances. It changes nothing of what is served, and is not stored.
	CheckOutputs []CheckOutput `json:"-"`
	// OK is false if no instance has valid metadata: the Table then keeps the last good
	// Spec.
	OK bool `json:"ok"`
	// Revision identifies the content: two Services with the same name and Revision have
	// the same content. So thousands of instances need no comparison. 0 means that the
	// revision is unknown.
	//
	// In an Entry the Table sets it. There it covers the instances, held ones included,
	// and the rotation.
	Revision uint64 `json:"-"`
}

// unbalanced reports whether the service is registered but not to be balanced.
func (s Service) unbalanced() bool { return s.OK && s.Protocol == "" }

// Rotation returns the registered instances that Consul has in rotation.
func (s Service) Rotation() []Instance {
	var in []Instance
	for _, i := range s.Instances {
		if i.InRotation() {
			in = append(in, i)
		}
	}
	return in
}

// InRotation returns how many instances Rotation returns.
func (s Service) InRotation() int {
	n := 0
	for _, i := range s.Instances {
		if i.InRotation() {
			n++
		}
	}
	return n
}

// State says where the content of an Entry comes from.
type State string

// The states of an Entry.
const (
	Fresh         State = "fresh"           // it is what Consul says now
	Stale         State = "stale"           // Consul gives no answer, so it is Consul's last one; after Options.MaxStale no instance gets traffic
	LastKnownGood State = "last-known-good" // Consul answers, but not for this service, so it is Consul's last answer for it; MaxStale applies as for Stale
	Panic         State = "panic"           // too few instances are in rotation: all but those in maintenance get traffic
	Held          State = "held"            // instances vanished and are kept in rotation
	Quarantined   State = "quarantined"     // its data is invalid or refused; the last good state, if any, is kept
)

// States returns all states of entries.
func States() []State { return []State{Fresh, Stale, LastKnownGood, Panic, Held, Quarantined} }

// Entry is a service as nginx is to serve it.
type Entry struct {
	Service
	State  State     `json:"state"`
	Reason string    `json:"reason,omitempty"` // why it isn't fresh, for people
	Since  time.Time `json:"since"`            // when it came into this state
	// Held are instances that vanished from the catalog and are kept in
	// rotation. They are not among Instances.
	Held []Instance `json:"held,omitempty"`
	// Refused: nginx or a template refuses the service as it is now. The entry is the
	// state that nginx accepted last, with those of its instances that are still
	// registered.
	Refused bool `json:"refused,omitempty"`
	// Peak is how many instances there were at most, in rotation or not.
	Peak int `json:"peak"`
	// Panicking: all registered instances that are not in maintenance get traffic,
	// whatever their checks say.
	Panicking bool `json:"panicking,omitempty"`
	// Expired: Consul has not confirmed the service for longer than Options.MaxStale, so no
	// instance gets traffic.
	Expired bool `json:"expired,omitempty"`
	// Ejections are instances that Consul has in rotation and that lbctl ejected, sorted by
	// Node and ID.
	Ejections []Ejection `json:"ejections,omitempty"`
	// Ramps are the instances in slow start, sorted by Node and ID.
	Ramps []Ramp `json:"returns,omitempty"`

	// Unusable are the instances in rotation that nginx can't send traffic to, see
	// Table.SetUnusable.
	Unusable []Unusable `json:"unusable,omitempty"`

	rotation []Instance // what Rotation returns, once the Table has settled it
}

// Rotation returns the instances that get traffic, held ones included, sorted by Node and
// ID. Their weights, 1 to 65535, are those that nginx is to use now. The caller must not
// change them.
func (e Entry) Rotation() []Instance {
	if e.rotation != nil {
		return e.rotation
	}
	var in []Instance
	if e.Expired {
		return in
	}
	for _, i := range e.Instances {
		if e.sendable(i) || e.Panicking && i.Status != Maintenance {
			in = append(in, i)
		}
	}
	in = append(in, e.Held...)
	in = e.withoutWeightless(in)
	slices.SortFunc(in, compareInstances)
	e.weigh(in)
	return in
}

// withoutWeightless removes the instances with a weight of 0 if another instance can
// serve, that is, if it is in rotation and not ejected. Otherwise it gives them a weight
// of 1.
func (e Entry) withoutWeightless(in []Instance) []Instance {
	weightless := func(i Instance) bool { return i.Weight == 0 }
	if !slices.ContainsFunc(in, weightless) {
		return in
	}
	if slices.ContainsFunc(in, func(i Instance) bool {
		_, ejected := e.Ejection(i)
		return !weightless(i) && i.InRotation() && !ejected
	}) {
		return slices.DeleteFunc(in, weightless)
	}
	for n := range in {
		in[n].Weight = max(1, in[n].Weight)
	}
	return in
}

// Served reports whether traffic can reach the service: it has a protocol, and a route, a
// port or the default place. That is false for a quarantined service without a last good
// state, and for a service whose routes all belong to other services.
func (e Entry) Served() bool {
	return e.Protocol != "" && (len(e.Routes) > 0 || e.Default || e.Port != 0)
}

func compareInstances(a, b Instance) int {
	if c := strings.Compare(a.Node, b.Node); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}
