// Package outlier is the circuit breaker: it ejects instances whose answers are errors although
// their checks and probes pass. It learns of the answers from nginx's access log.
//
// Like Envoy's outlier detection it judges each instance by itself, by errors in a row and by
// their rate, and ejects it for a time that grows with each ejection. The endpoints.Table bounds
// its ejections together with those of probes.
package outlier

import (
	"context"
	"fmt"
	"sync"
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// sweepInterval is how often the detector looks for other instances and policies, and for
// ejections that have ended.
const sweepInterval = time.Second

// Detector ejects the outliers of the services whose policy says so.
type Detector struct {
	table     *endpoints.Table
	addresses func(host string) []string

	mu       sync.Mutex
	services map[string]*service // those with a circuit breaker
}

// New makes a Detector of the table's instances. addresses returns the IP addresses that nginx
// has for a host name; the Detector needs it because nginx logs these. A table must have only one
// Detector.
func New(table *endpoints.Table, addresses func(host string) []string) *Detector {
	return &Detector{table: table, addresses: addresses, services: map[string]*service{}}
}

// service is a service with a circuit breaker.
type service struct {
	policy    policy.Outlier
	grpc      bool
	revision  uint64    // of the entry that instances were made from
	hasNames  bool      // some instances have a host name as their address
	window    time.Time // when the interval ends
	instances map[key]*instance
	at        map[string][]*instance // by the address that nginx logs
}

// key identifies an instance within its service. An instance with another address is another
// one.
type key struct{ node, id, hostPort string }

// instance has what is known of an instance that Consul has in rotation.
type instance struct {
	key
	streak       int // errors in a row
	streakCauses causes
	answers      int // within the interval
	errors       int
	causes       causes

	times int       // ejections that count for the time of the next one
	until time.Time // the end of its ejection; zero: it is not ejected
	back  time.Time // the end of its last ejection: earlier answers do not count
	fresh bool      // its ejection has ended within this interval
}

// Run ends ejections and follows the table until ctx is done, and returns ctx's error.
func (d *Detector) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		d.sweep(time.Now())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Take judges the instances that a request was sent to.
func (d *Detector) Take(r *accesslog.Record) { d.take(time.Now(), r) }

func (d *Detector) take(now time.Time, r *accesslog.Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.services[string(r.Service)]
	if s == nil {
		return
	}
	for n := range r.Tries {
		all := s.at[string(r.Tries[n].Address)]
		if len(all) == 0 {
			continue // it has left, or there was no instance
		}
		v, why := judge(r, n, s.grpc)
		for _, i := range all {
			if v != unknown && i.until.IsZero() && r.Time.After(i.back) && i.count(v, why) {
				d.judged(now, string(r.Service), s.policy, i)
			}
		}
	}
}

// count counts an answer. It reports whether it was an error.
func (i *instance) count(v verdict, why string) bool {
	i.answers++
	if v == success {
		i.streak, i.streakCauses = 0, i.streakCauses[:0]
		return false
	}
	i.streak++
	i.errors++
	i.streakCauses.add(why)
	i.causes.add(why)
	return true
}

// judged ejects an instance after an error, if it has had too many.
func (d *Detector) judged(now time.Time, service string, p policy.Outlier, i *instance) {
	reason := ""
	switch {
	case p.ConsecutiveErrors > 0 && i.streak >= p.ConsecutiveErrors:
		reason = fmt.Sprintf("%d of the last %d calls failed: %s", i.streak, i.streak, i.streakCauses)
	case p.ErrorRate > 0 && i.answers >= p.MinRequests && 100*i.errors >= p.ErrorRate*i.answers:
		reason = fmt.Sprintf("%d of the last %d calls failed: %s", i.errors, i.answers, i.causes)
	default:
		return
	}
	i.times++
	base := time.Duration(p.BaseEjectionTime)
	i.until = now.Add(min(base*time.Duration(i.times), max(base, time.Duration(p.MaxEjectionTime))))
	i.forget()
	d.table.Eject(service, i.hostPort, endpoints.Ejection{
		Node: i.node, ID: i.id, By: endpoints.ByOutlier, Reason: reason, Since: now, Until: i.until,
	})
}

// forget forgets all answers.
func (i *instance) forget() {
	i.streak, i.answers, i.errors = 0, 0, 0
	i.streakCauses, i.causes = i.streakCauses[:0], i.causes[:0]
}

// sweep follows the table, and ends ejections and intervals.
func (d *Detector) sweep(now time.Time) {
	entries := d.table.Entries()
	d.mu.Lock()
	defer d.mu.Unlock()
	on := map[string]bool{}
	for n := range entries {
		e := &entries[n]
		p := e.Policy.General().Outlier
		if !p.On() || e.Protocol == "" || e.Protocol.Family() == policy.TCP {
			continue
		}
		on[e.Name] = true
		s := d.services[e.Name]
		if s == nil {
			s = &service{instances: map[key]*instance{}}
			d.services[e.Name] = s
		}
		s.policy, s.grpc = p.WithDefaults(), e.Protocol.Family() == policy.GRPC
		if e.Revision != s.revision || e.Revision == 0 || s.hasNames {
			d.follow(s, e)
		}
		d.endEjections(now, e.Name, s)
		s.endInterval(now)
	}
	for name, s := range d.services {
		if on[name] {
			continue
		}
		for _, i := range s.instances {
			d.readmit(name, i)
		}
		delete(d.services, name)
	}
}

// follow takes over an entry's instances. Those that have left the rotation in Consul, or have
// another address, begin anew: the table drops their ejections too.
func (d *Detector) follow(s *service, e *endpoints.Entry) {
	instances := make(map[key]*instance, len(e.Instances))
	s.revision, s.hasNames, s.at = e.Revision, false, make(map[string][]*instance, len(e.Instances))
	for _, of := range e.Instances {
		if !of.InRotation() {
			continue
		}
		k := key{of.Node, of.ID, of.HostPort()}
		i := s.instances[k]
		if i == nil {
			i = &instance{key: k}
		}
		instances[k] = i
		logged, isName := of.LoggedAddresses(d.addresses)
		s.hasNames = s.hasNames || isName
		for _, address := range logged {
			s.at[address] = append(s.at[address], i)
		}
	}
	for k, i := range s.instances {
		if instances[k] == nil {
			d.readmit(e.Name, i)
		}
	}
	s.instances = instances
}

// endEjections readmits the instances whose time is over.
func (d *Detector) endEjections(now time.Time, name string, s *service) {
	for _, i := range s.instances {
		if !i.until.IsZero() && !now.Before(i.until) {
			i.back, i.fresh = now, true
			d.readmit(name, i)
		}
	}
}

func (d *Detector) readmit(name string, i *instance) {
	if i.until.IsZero() {
		return
	}
	i.until = time.Time{}
	d.table.Readmit(name, i.node, i.id, endpoints.ByOutlier)
}

// endInterval begins a new interval if it is time. An instance that was in rotation for the whole
// of the last one has shown itself good.
func (s *service) endInterval(now time.Time) {
	if now.Before(s.window) {
		return
	}
	s.window = now.Add(time.Duration(s.policy.Interval))
	for _, i := range s.instances {
		if i.times > 0 && i.until.IsZero() && !i.fresh {
			i.times--
		}
		i.answers, i.errors, i.causes, i.fresh = 0, 0, i.causes[:0], false
	}
}
