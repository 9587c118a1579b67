package statuspage

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"lbctl/internal/admin"
	"lbctl/internal/certificates"
	"lbctl/internal/consul"
	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/policy"
	"lbctl/internal/render"
	"lbctl/internal/traffic"
)

// A demo is a source with made-up facts, for what takes too long, or too many services, to have for
// real. The same demo has the same facts at the same time.
type demo struct {
	mu        sync.Mutex
	now       func() time.Time
	status    controller.Status
	services  []admin.Service
	events    []history.Event
	weights   map[string]float64 // requests a second by service
	failing   map[string]float64 // share of errors by service
	inFlight  map[string]int64   // requests by service; nil: not counted
	slow      map[string]float64 // p99 in seconds by service
	noFigures string
	looks     int // how often the status was asked for
}

func newDemo(now time.Time) *demo {
	return &demo{
		now: time.Now,
		status: controller.Status{
			State: controller.Serving, Summary: "nginx serves generation 42, which is what Consul says",
			Version: "1.4.0", Started: now.Add(-52 * time.Hour),
			Nginx:     controller.Nginx{Version: "1.30.6", Running: true, PID: 16, Generation: 42, Since: now.Add(-4 * time.Minute), Workers: 2},
			Consul:    consul.Status{Address: "127.0.0.1:8500", Reachable: true, Leader: "10.0.0.2:8300", Since: now.Add(-52 * time.Hour)},
			Endpoints: controller.EndpointsStatus{By: "dns"},
		},
		weights: map[string]float64{}, failing: map[string]float64{}, slow: map[string]float64{},
	}
}

func (d *demo) source() Source {
	recent := d.recent
	if d.noFigures != "" {
		recent = nil
	}
	return Source{
		Status: func(context.Context) controller.Status {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.looks++
			s := d.status
			s.Services = len(d.services)
			s.Endpoints.Upstreams = len(d.services)
			for _, service := range d.services {
				s.Instances += service.InRotation
			}
			return s
		},
		Services: func() []admin.Service {
			d.mu.Lock()
			defer d.mu.Unlock()
			return slices.Clone(d.services)
		},
		History: func() []history.Event {
			d.mu.Lock()
			defer d.mu.Unlock()
			return slices.Clone(d.events)
		},
		Connections: func(context.Context) (nginx.Connections, error) {
			return nginx.Connections{Active: 412, Reading: 1, Writing: 38, Waiting: 375}, nil
		},
		Recent: recent,
		InFlight: func() map[string]int64 {
			d.mu.Lock()
			defer d.mu.Unlock()
			return maps.Clone(d.inFlight)
		},
		LastErrors: func(service string) map[string]LastError {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.failing[service] == 0 {
				return nil
			}
			first := d.find(service).Instances[0]
			return map[string]LastError{first.HostPort(): {What: "UNAVAILABLE", At: d.now().Add(-7 * time.Second)}}
		},
		NoFigures: d.noFigures,
	}
}

func (d *demo) find(name string) *admin.Service {
	for n := range d.services {
		if d.services[n].Name == name {
			return &d.services[n]
		}
	}
	return nil
}

// add adds a service with n instances, all in rotation.
func (d *demo) add(name string, protocol endpoints.Protocol, path string, n int, rate float64) *admin.Service {
	s := admin.Service{
		Name: name, Protocol: protocol, Routes: []endpoints.Route{{Path: path}}, State: endpoints.Fresh,
		Since: d.status.Started, InRotation: n, Registered: n, Problems: []string{}, Instances: []admin.Instance{},
	}
	if protocol == endpoints.HTTP {
		s.Routes[0].Host = "shop.example.com"
	}
	seed := len(d.services)
	for i := range n {
		s.Instances = append(s.Instances, admin.Instance{InRotation: true, Instance: endpoints.Instance{
			ID: fmt.Sprintf("%s-%d", name, i+1), Node: fmt.Sprintf("node-%d", (seed+i)%6+1), Address: fmt.Sprintf("10.0.%d.%d", seed%250, 11+i),
			Port: 7000 + seed%100, Weight: 1, Status: endpoints.Passing, Version: []string{"1.4.2", "1.5.0"}[(seed+i)%5/4],
		}})
	}
	d.services = append(d.services, s)
	d.weights[name] = rate
	slices.SortFunc(d.services, func(a, b admin.Service) int { return strings.Compare(a.Name, b.Name) })
	return d.find(name)
}

// recent makes curves that move on with the time.
func (d *demo) recent() traffic.Overview {
	d.mu.Lock()
	defer d.mu.Unlock()
	end := d.now().Truncate(traffic.StepDuration)
	o := traffic.Overview{End: end, All: traffic.Recent{Points: make([]traffic.Point, 60)}}
	for n, s := range d.services {
		r := traffic.Recent{Service: s.Name, Points: make([]traffic.Point, 60)}
		var requests, failed float64
		for i := range r.Points {
			slot := end.Unix()/5 - int64(59-i)
			random := rand.New(rand.NewPCG(uint64(slot), uint64(n)))
			noise := func(by float64) float64 { return 1 + by*(random.Float64()-.5) }
			wave := 1 + .25*math.Sin(float64(slot)/9+float64(n))
			p := traffic.Point{P50: -1, P99: -1}
			p.Requests = math.Round(d.weights[s.Name]*wave*noise(.3)*5) / 5
			share := d.failing[s.Name]
			if share > 0 {
				share *= math.Min(1, float64(i)/40) * noise(.6)
			}
			p.Errors = math.Round(p.Requests*share*5) / 5
			if p.Requests > 0 {
				p99 := .012 + .02*math.Abs(math.Sin(float64(n)*1.7))
				if slow := d.slow[s.Name]; slow > 0 {
					p99 = slow
				}
				p.P99 = p99 * noise(.5) * wave
				p.P50 = p99 / 6 * noise(.2)
			}
			r.Points[i] = p
			all := &o.All.Points[i]
			all.Requests += p.Requests
			all.Errors += p.Errors
			all.P99, all.P50 = .034*noise(.3), .0042*noise(.2)
			if i >= 48 {
				requests += p.Requests
				failed += p.Errors
			}
		}
		r.P50, r.P99 = -1, -1
		if requests > 0 {
			r.P50, r.P99 = r.Points[59].P50, r.Points[59].P99
		}
		for _, i := range s.Instances {
			if i.InRotation {
				r.Instances = append(r.Instances, traffic.RecentInstance{Endpoint: i.HostPort(), Requests: requests / 12 / float64(s.InRotation),
					Errors: failed / 12 / float64(s.InRotation), Share: 1 / float64(s.InRotation), P99: r.P99})
			}
		}
		o.Services = append(o.Services, r)
	}
	o.All.P50, o.All.P99 = .0042, .034
	return o
}

// many makes n services of five instances.
func (d *demo) many(n int) {
	for i := range n {
		d.add(fmt.Sprintf("service-%04d", i), endpoints.GRPC, fmt.Sprintf("/shop.v1.Service%d/", i), 5, float64(1+i%40))
	}
}

// shop makes 50 services, some of them in trouble.
func (d *demo) shop(now time.Time) {
	words := []string{"accounts", "adverts", "basket", "billing", "cart", "catalog", "checkout", "currency", "delivery", "email", "fraud", "gateway",
		"images", "inventory", "invoices", "loyalty", "media", "notify", "offers", "orders", "payments", "pricing", "profile", "ratings",
		"recommend", "refunds", "reports", "returns", "reviews", "search", "sessions", "shipping", "sitemap", "stock", "suggest", "tax",
		"tickets", "tracking", "users", "vouchers", "warehouse", "wishlist", "auth", "audit", "config", "geo", "quota", "tokens", "translate", "webhooks"}
	for n, name := range words {
		protocol, path := endpoints.GRPC, "/"+name+".v1."+strings.ToUpper(name[:1])+name[1:]+"/"
		if n%3 == 2 {
			protocol, path = endpoints.HTTP, "/"+name
		}
		d.add(name, protocol, path, 2+n*7%5, []float64{3.4, 18, 64, 122, 240, 511, 820}[n*5%7])
	}
	d.find("gateway").Default = true
	out := func(name string, instance int, status endpoints.Status, ejected bool, reason string) {
		s := d.find(name)
		i := &s.Instances[instance]
		i.Status, i.Ejected, i.InRotation, i.Reason = status, ejected, false, reason
		s.InRotation--
	}
	problem := func(subject, message string, since time.Duration) {
		d.status.Problems = append(d.status.Problems, render.Problem{Subject: subject, Message: message, Since: now.Add(-since)})
	}
	payments := d.find("payments")
	payments.State, payments.Since = endpoints.Panic, now.Add(-3*time.Minute)
	payments.Reason = "no instance passes its checks: all 4 that are not in maintenance get traffic; connect to 10.0.20.11:7020: connection refused"
	for i := range payments.Instances {
		payments.Instances[i].Status = endpoints.Critical
		payments.Instances[i].Reason = "gets traffic though a check is critical, because too few others pass; the check says: connection refused"
	}
	problem("service payments", "panic: "+payments.Reason, 3*time.Minute)
	cart := d.find("cart")
	cart.State, cart.Since = endpoints.Quarantined, now.Add(-11*time.Minute)
	cart.Reason = `lb-path "cart": want a path that begins with /; its last good routes are kept`
	problem("service cart", "quarantined: "+cart.Reason, 11*time.Minute)
	inventory := d.find("inventory")
	inventory.State, inventory.Since = endpoints.Held, now.Add(-19*time.Second)
	inventory.Reason = "2 of 4 instances vanished from Consul without having failed a check, and still answer"
	for i := range 2 {
		inventory.Instances[i].Held, inventory.Instances[i].Reason = true, inventory.Reason
	}
	problem("service inventory", "held: "+inventory.Reason, 19*time.Second)
	out("search", 1, endpoints.Passing, true, "ejected: 61 % of its answers were errors")
	d.failing["search"], d.slow["search"] = .07, .64
	d.failing["refunds"] = .02
	out("media", 0, endpoints.Maintenance, false, "in maintenance: deploy of 1.5.0")
	out("orders", 0, endpoints.Critical, false, "a check is critical: HTTP GET http://10.0.19.11:7019/health: 503 Service Unavailable: database is read-only")
	webhooks := d.find("webhooks")
	webhooks.Maintenance = &policy.Closure{Whole: true, By: []string{"lb/service/webhooks"}}
	d.weights["sitemap"] = 0
	d.slow["reports"] = 1.9
	d.status.Summary = `nginx serves generation 42; 1 service is quarantined (cart: lb-path "cart": want a path that begins with /; its last good routes are kept); 1 service is in panic (payments: no instance passes its checks); 1 service is held (inventory: 2 kept in rotation)`
	d.status.Certificates = []certificates.Certificate{
		{Name: "shop", Hosts: []string{"shop.example.com", "www.shop.example.com"}, NotAfter: now.Add(71 * 24 * time.Hour)},
		{Name: "partners", Hosts: []string{"*.partners.example.com"}, NotAfter: now.Add(5 * 24 * time.Hour)},
	}
	d.status.Nginx.OldWorkers, d.status.Nginx.OldWorkersSince, d.status.Nginx.OldWorkersMemory = 2, now.Add(-4*time.Minute), 19<<20
	d.history(now)
}

func (d *demo) history(now time.Time) {
	event := func(ago time.Duration, kind history.Kind, generation, from int, took float64, change, reason string) {
		d.events = append(d.events, history.Event{Time: now.Add(-ago), Kind: kind, Generation: generation, From: from, TookSeconds: took, Change: change, Reason: reason})
	}
	event(19*time.Second, history.Moved, 42, 0, .021, "inventory -2, held", "")
	event(90*time.Second, history.Ejected, 42, 0, 0, "search -1", "61 % of its answers were errors")
	event(4*time.Minute, history.Applied, 42, 41, .14, "new service webhooks +3", "")
	event(9*time.Minute, history.Rejected, 41, 0, .06, "cart", `nginx refused it: unknown directive "proxy_buffer_sze" in http.d/own.conf:1`)
	event(11*time.Minute, history.Moved, 41, 0, .018, "catalog +2 -1", "")
	event(64*time.Minute, history.Applied, 41, 40, .17, "routes of orders", "")
	event(66*time.Minute, history.Resumed, 40, 0, 0, "", "generation 39 is no longer pinned")
	event(71*time.Minute, history.RolledBackByOperator, 39, 40, .15, "", "an operator asked for it")
	event(3*time.Hour, history.NginxUp, 40, 0, 1.2, "", "nginx answers again")
}
