package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/consul"
	"lbctl/internal/endpoints"
	"lbctl/internal/render"
)

func TestStatusNamesServicesThatAreHeldBack(t *testing.T) {
	entries := func(states map[string]endpoints.State) []endpoints.Entry {
		var es []endpoints.Entry
		for _, name := range []string{"api", "shop", "web"} {
			e := entry(name, 1)
			if state, ok := states[name]; ok {
				e.State, e.Reason = state, "why "+name
			}
			es = append(es, e)
		}
		return es
	}
	service := render.Problem{Subject: "service api", Message: "quarantined: why api"}
	tests := []struct {
		name     string
		entries  []endpoints.Entry
		problems []render.Problem
		state    State
		summary  string
	}{
		{"all is well", entries(nil), nil, Serving, "nginx serves generation 1, which is what Consul says"},
		{"one is quarantined", entries(map[string]endpoints.State{"api": endpoints.Quarantined}), []render.Problem{service},
			Serving, "nginx serves generation 1; 1 service is quarantined (api: why api)"},
		{"two are held", entries(map[string]endpoints.State{"api": endpoints.Held, "web": endpoints.Held}), nil,
			Serving, "nginx serves generation 1; 2 services are held (api: why api, and 1 more)"},
		{"some of each", entries(map[string]endpoints.State{"api": endpoints.Held, "shop": endpoints.Quarantined, "web": endpoints.Held}), nil,
			Serving, "nginx serves generation 1; 1 service is quarantined (shop: why shop); 2 services are held (api: why api, and 1 more)"},
		{"one panics, one is held", entries(map[string]endpoints.State{"api": endpoints.Held, "web": endpoints.Panic}), nil,
			Serving, "nginx serves generation 1; 1 service is in panic (web: why web); 1 service is held (api: why api)"},
		{"one panics, and its check says why", []endpoints.Entry{{Service: endpoints.Service{Name: "web", CheckOutputs: []endpoints.CheckOutput{{ID: "web-1", Text: "refused"}}}, State: endpoints.Panic, Reason: "why"}}, nil,
			Serving, "nginx serves generation 1; 1 service is in panic (web: why; the check of web-1 says: refused)"},
		{"a service has an invalid value", entries(nil), []render.Problem{{Subject: "service api", Message: "lb-weight wrong"}},
			Serving, "nginx serves generation 1, which is what Consul says, with 1 problem: service api: lb-weight wrong"},
		{"new credentials can't be used", entries(nil), []render.Problem{{Subject: render.CredentialsSubject, Message: "token file empty"}},
			Serving, "nginx serves generation 1, which is what Consul says, with 1 problem: credentials: token file empty"},
		{"a template fails too", entries(map[string]endpoints.State{"api": endpoints.Quarantined}), []render.Problem{service, {Subject: "template nginx.conf.ctmpl", Message: "line 3: no"}},
			Degraded, "nginx serves generation 1, which may differ from what Consul says: template nginx.conf.ctmpl: line 3: no"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.say("a", tt.entries...)
				r.wait(time.Minute)
				r.source.tell(func(s *render.Status) { s.Entries, s.Problems = tt.entries, tt.problems })
				s := r.status()
				assert.Equal(t, tt.state, s.State)
				assert.Equal(t, tt.summary, s.Summary)
			})
		})
	}
}

func TestStatusIsStartingWhileTheAgentStartsToo(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.restart()
		away := consul.Status{LastError: "Consul at 127.0.0.1:8500 does not answer: connection refused", Since: time.Now()}
		r.source.tell(func(s *render.Status) { s.Consul = away })
		r.source.tell(func(s *render.Status) {
			s.Problems = []render.Problem{{Subject: "consul", Message: away.LastError}, {Subject: "service web", Message: "panic"}}
		})
		s := r.status()
		assert.Equal(t, Starting, s.State)
		assert.Contains(t, s.Summary, "lbctl is starting, and has no answer from Consul yet: Consul at 127.0.0.1:8500 does not answer: connection refused")

		r.source.tell(func(s *render.Status) { s.Consul.Refused = true })
		assert.Equal(t, Degraded, r.status().State, "a refused token is no matter of time")
		r.source.tell(func(s *render.Status) { s.Consul = away })
		r.source.tell(func(s *render.Status) {
			s.Problems = append(s.Problems, render.Problem{Subject: "template nginx.conf.ctmpl", Message: "line 3: no"})
		})
		assert.Equal(t, Degraded, r.status().State, "something else is wrong")
		r.source.tell(func(s *render.Status) { s.Problems = s.Problems[:2] })
		r.wait(startPatience)
		assert.Equal(t, Degraded, r.status().State, "that takes too long")

		r.source.tell(func(s *render.Status) {
			*s = render.Status{Consul: consul.Status{Reachable: true, Leader: "10.0.0.1:8300", Since: time.Now()}}
		})
		r.say("a")
		r.restart()
		r.say("a")
		r.source.tell(func(s *render.Status) { s.Consul = away })
		assert.Equal(t, Degraded, r.status().State, "Consul had answered")
	})
}
