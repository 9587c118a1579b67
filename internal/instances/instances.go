// Package instances finds the instance that nginx means by an address in its access log.
//
// nginx logs addresses only. Which instance of which service that is, the endpoint table says
// now, and an [Index] remembers it for some minutes after the instance has left: its last
// requests end after it.
package instances

import (
	"sync"
	"sync/atomic"
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// Remembered is how long an Index knows an instance, or a service, that has left the table.
const Remembered = 5 * time.Minute

// How often an Index looks whether the table has changed: usually, and for an address that it
// does not know. A request can be logged some milliseconds after its instance was registered.
const (
	interval       = time.Second
	missedInterval = 200 * time.Millisecond
)

// Instance is an instance of the table, or one that has left it.
type Instance struct {
	Service  string // the name of its service
	Node, ID string // of its registration in Consul
	// Endpoint is the address and port of its registration, "10.0.0.1:80". For a host name it
	// differs from the address that nginx logs.
	Endpoint string
	Version  string // lb-version; "" without one
}

// Service is a service of the table, or one that has left it.
type Service struct {
	Name string
	GRPC bool // else HTTP
	// Maintenance: its policy has nginx answer all its requests, or those of some paths.
	Maintenance bool
}

// Index finds instances by address. Any goroutine may use it.
type Index struct {
	table   *endpoints.Table
	resolve func(host string) []string
	now     func() time.Time

	services atomic.Pointer[map[string]*service] // never changed, but replaced
	looked   atomic.Int64                        // when look last ran, in nanoseconds of Unix time

	mu      sync.Mutex        // held by look
	entries []endpoints.Entry // of the table, at the last change
	again   time.Time         // when look has work although the table has not changed; zero: never
}

// service is what an Index knows of a service. It is never changed.
type service struct {
	Service
	revision uint64 // of the entry that at was made from; 0 says nothing
	hasNames bool   // some instances have a host name as their address
	at       map[string]*known
	forgets  time.Time // when the next instance that has left is forgotten; zero: none has left
	left     time.Time // when it left the table; zero: it is there
}

// known is an instance at an address.
type known struct {
	Instance
	left time.Time // when it left the table; zero: it is there
}

// New makes an Index of the table's instances. resolve returns the IP addresses that nginx has
// for a host name.
func New(table *endpoints.Table, resolve func(host string) []string) *Index {
	x := &Index{table: table, resolve: resolve, now: time.Now}
	x.services.Store(&map[string]*service{})
	return x
}

// Find returns the instance of a service at an address as nginx logs it; nil if there is none.
// There is none for the name of an upstream or for the sentinel's address, which nginx logs when
// it could try no instance. It does not allocate.
func (x *Index) Find(service, address []byte) *Instance {
	found := x.find(service, address, interval)
	if found == nil {
		found = x.find(service, address, missedInterval)
	}
	if found == nil {
		return nil
	}
	return &found.Instance
}

func (x *Index) find(service, address []byte, within time.Duration) *known {
	if s := x.service(service, within); s != nil {
		return s.at[string(address)]
	}
	return nil
}

// Service returns the service with a name; nil if there is none. It does not allocate.
func (x *Index) Service(name []byte) *Service {
	if len(name) == 0 {
		return nil
	}
	s := x.service(name, interval)
	if s == nil {
		s = x.service(name, missedInterval)
	}
	if s == nil {
		return nil
	}
	return &s.Service
}

// service returns a service as it was at most within ago.
func (x *Index) service(name []byte, within time.Duration) *service {
	now := x.now()
	if age := now.UnixNano() - x.looked.Load(); age < 0 || age >= int64(within) {
		x.look(now)
	}
	return (*x.services.Load())[string(name)]
}

// look follows the table.
func (x *Index) look(now time.Time) {
	if !x.mu.TryLock() {
		return // another goroutine does it, and what is known now is recent enough
	}
	defer x.mu.Unlock()
	x.looked.Store(now.UnixNano())
	entries := x.table.Entries()
	if same(entries, x.entries) && (x.again.IsZero() || now.Before(x.again)) {
		return
	}
	x.entries, x.again = entries, time.Time{}
	before := *x.services.Load()
	services := make(map[string]*service, len(entries))
	for n := range entries {
		s := x.follow(now, before[entries[n].Name], &entries[n])
		services[s.Name] = s
	}
	for name, s := range before {
		if services[name] != nil {
			continue
		}
		gone := *s
		if _, ok := x.remember(now, &gone.left); ok {
			services[name] = &gone
		}
	}
	x.services.Store(&services)
}

// same reports whether the table has returned the same entries again: it never changes them.
func same(a, b []endpoints.Entry) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// remember notes that something has left the table now, unless it did before. It returns until
// when it is remembered, and false if that is over.
func (x *Index) remember(now time.Time, left *time.Time) (until time.Time, ok bool) {
	if left.IsZero() {
		*left = now
	}
	until = left.Add(Remembered)
	if !now.Before(until) {
		return time.Time{}, false
	}
	x.again = earlier(x.again, until)
	return until, true
}

// earlier returns the earlier of two times; zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// follow returns what is known of a service of the table. before is nil if it is new.
func (x *Index) follow(now time.Time, before *service, e *endpoints.Entry) *service {
	family := e.Protocol.Family()
	s := &service{
		Service:  Service{Name: e.Name, GRPC: family == policy.GRPC, Maintenance: e.Policy.Closure(family) != nil},
		revision: e.Revision,
	}
	if before != nil && before.left.IsZero() && e.Revision != 0 && e.Revision == before.revision && !before.hasNames &&
		(before.forgets.IsZero() || now.Before(before.forgets)) {
		s.at, s.forgets = before.at, before.forgets
		x.again = earlier(x.again, s.forgets)
		return s
	}
	s.at = make(map[string]*known, len(e.Instances)+len(e.Held))
	for _, all := range [][]endpoints.Instance{e.Held, e.Instances} {
		for _, of := range all {
			addresses, isName := of.LoggedAddresses(x.resolve)
			s.hasNames = s.hasNames || isName
			i := &known{Instance: Instance{Service: e.Name, Node: of.Node, ID: of.ID, Endpoint: of.HostPort(), Version: of.Version}}
			for _, address := range addresses {
				s.put(address, i, of.InRotation())
			}
		}
	}
	if s.hasNames {
		x.again = earlier(x.again, now.Add(interval)) // a name may get other addresses
	}
	if before == nil {
		return s
	}
	for address, i := range before.at {
		if s.at[address] != nil {
			continue
		}
		gone := *i
		if until, ok := x.remember(now, &gone.left); ok {
			s.at[address], s.forgets = &gone, earlier(s.forgets, until)
		}
	}
	return s
}

// put adds an instance. Of several with the same address the one in rotation is meant.
func (s *service) put(address string, i *known, inRotation bool) {
	if s.at[address] == nil || inRotation {
		s.at[address] = i
	}
}
