// Package endpoints knows which instances serve which service.
//
// A [Table] takes complete observations of Consul's catalog and answers with what is to
// be served. It doesn't believe everything: a service goes on being served when Consul
// says nothing, when its data can't be understood any more, when nginx refuses it, and
// when many instances vanish from the catalog at once, as they do for a token that has
// become too weak. An instance that fails lbctl's own probe is ejected, and if no instance
// passes, all of them are tried. The table remembers across restarts through a snapshot on
// disk.
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

// Protocol is what a service speaks, as in its lb-protocol metadata.
type Protocol string

// The protocols that are balanced.
const (
	GRPC  Protocol = "grpc"
	GRPCS Protocol = "grpcs"
	HTTP  Protocol = "http"
	HTTPS Protocol = "https"
	TCP   Protocol = "tcp"
)

// Protocols are all known protocols.
var Protocols = []Protocol{GRPC, GRPCS, HTTP, HTTPS, TCP}

// Family is the listener of the protocol's traffic: "grpc", "http" or "tcp". Two services
// can have the same route only in different families.
func (p Protocol) Family() string { return strings.TrimSuffix(string(p), "s") }

// TLS reports whether the protocol has TLS below it.
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
	ID      string `json:"id"` // Consul's service id, unique on its node
	Node    string `json:"node"`
	Address string `json:"address"` // IP address or host name
	Port    int    `json:"port"`
	// Weight is its share of the traffic, 0 to 65535, from Consul's weight for the status.
	// With 0 it gets traffic only when no instance with a weight can serve.
	Weight  int    `json:"weight"`
	Status  Status `json:"status"`
	Version string `json:"version,omitempty"` // lb-version
	// MaxConns is how many connections nginx may have to it at a time, from
	// lb-max-conns; 0 is no limit.
	MaxConns int `json:"max_conns,omitempty"`
}

// InRotation reports whether Consul has the instance in rotation: passing and warning ones
// are. Entry.Rotation says which of them get traffic.
func (i Instance) InRotation() bool { return i.Status == Passing || i.Status == Warning }

// HostPort is the address to dial, with brackets around an IPv6 address.
func (i Instance) HostPort() string { return net.JoinHostPort(i.Address, strconv.Itoa(i.Port)) }

// Validate returns an error that names all values with which the instance can't be served.
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

// Route is one way to a service; an empty field is "any".
type Route struct {
	Host string `json:"host,omitempty"` // lower case, "*.example.com" allowed
	Path string `json:"path,omitempty"` // a prefix, starting with "/"
}

// String is the route for people: "example.com/api", or "*" for any host.
func (r Route) String() string {
	host := r.Host
	if host == "" {
		host = "*"
	}
	return host + r.Path
}

// Service is one service of the catalog with its place on the balancer.
type Service struct {
	Name string `json:"name"`
	// Spec has no Protocol when the service is not, or no longer, to be
	// balanced (OK is then true) or could not be understood (OK is false).
	Spec
	Instances []Instance `json:"instances"` // every registered one, sorted by Node and ID
	// Problems is what was wrong with the service's data, a readable line
	// each.
	Problems []string `json:"problems,omitempty"`
	// OK is false when no instance's metadata could be understood: the Table
	// then keeps the last good Spec.
	OK bool `json:"ok"`
	// Revision stands for the content: a Service with the same name and Revision as an
	// earlier one has the same content. It spares comparing thousands of instances; 0
	// means that the content has no known revision.
	//
	// In an Entry the Table sets it, and it stands for the instances, held ones
	// included, and for the rotation.
	Revision uint64 `json:"-"`
}

// unbalanced reports whether the service is registered, but not to be balanced.
func (s Service) unbalanced() bool { return s.OK && s.Protocol == "" }

// Rotation is the registered instances that Consul has in rotation: passing and
// warning.
func (s Service) Rotation() []Instance {
	var in []Instance
	for _, i := range s.Instances {
		if i.InRotation() {
			in = append(in, i)
		}
	}
	return in
}

// InRotation is how many instances Rotation gives.
func (s Service) InRotation() int {
	n := 0
	for _, i := range s.Instances {
		if i.InRotation() {
			n++
		}
	}
	return n
}

// State is how much an Entry can be trusted.
type State string

// The states of an Entry.
const (
	Fresh         State = "fresh"           // what Consul says
	Stale         State = "stale"           // what Consul last said; it says nothing now; after Options.MaxStale no instance gets traffic
	LastKnownGood State = "last-known-good" // what Consul last said of this service; it answers for others; MaxStale is as for Stale
	Panic         State = "panic"           // too few instances are in rotation: all that are not in maintenance get traffic
	Held          State = "held"            // instances vanished and are kept in rotation
	Quarantined   State = "quarantined"     // its data can't be understood or is refused; the last good state, if any, is kept
)

// Entry is a service as it is to be served.
type Entry struct {
	Service
	State  State     `json:"state"`
	Reason string    `json:"reason,omitempty"` // why it isn't fresh, for people
	Since  time.Time `json:"since"`            // when it came into this state
	// Held are instances that vanished from the catalog and are kept in
	// rotation. They are not among Instances.
	Held []Instance `json:"held,omitempty"`
	// Refused: nginx or a template refuses the service as it is now, and the entry is
	// what nginx accepted last, with those of its instances that are still registered.
	Refused bool `json:"refused,omitempty"`
	// Peak is how many instances there were at most, in rotation or not.
	Peak int `json:"peak"`
	// Panicking: whatever their checks say, all registered instances that are
	// not in maintenance get traffic.
	Panicking bool `json:"panicking,omitempty"`
	// Expired: Consul has not confirmed the service for so long that no instance gets
	// traffic.
	Expired bool `json:"expired,omitempty"`
	// Ejections are instances that Consul has in rotation and that lbctl ejected, sorted by
	// Node and ID.
	Ejections []Ejection `json:"ejections,omitempty"`
	// Ramps are instances that were out and get a part of their weight only, sorted by
	// Node and ID.
	Ramps []Ramp `json:"returns,omitempty"`

	rotation []Instance // what Rotation returns, once the Table has settled it
}

// Rotation is the instances that get traffic, held ones included, sorted by
// Node and ID, with the weights that they have among each other now, 1 to 65535. They
// must not be changed.
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

// withoutWeightless leaves out the instances with a weight of 0 if another one can serve:
// one that is in rotation and that nothing is known against. If none can, they count as
// the lightest ones.
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
// port or the default place. A quarantined service without a last good state has none, and
// neither has one whose routes all belong to other services.
func (e Entry) Served() bool {
	return e.Protocol != "" && (len(e.Routes) > 0 || e.Default || e.Port != 0)
}

func compareInstances(a, b Instance) int {
	if c := strings.Compare(a.Node, b.Node); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}
