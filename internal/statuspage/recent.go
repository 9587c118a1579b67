package statuspage

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"lbctl/internal/admin"
	"lbctl/internal/endpoints"
	"lbctl/internal/traffic"
)

// Recent is the answer of GET /v1/recent: a service, and what its instances did in the last minute.
type Recent struct {
	Now     int64         `json:"now"` // in milliseconds of Unix time
	Service admin.Service `json:"service"`
	// Figures are those of the service's instances, in their order; nil without figures.
	Figures []InstanceFigures `json:"figures"`
	// InFlight are the service's requests that have begun and not ended; nil: they are not counted, or it has sessions.
	InFlight *int64 `json:"in_flight,omitempty"`
}

// InstanceFigures are the figures of one instance over the last minute.
type InstanceFigures struct {
	Requests  float64    `json:"requests"` // a second
	Errors    float64    `json:"errors"`   // a second
	Share     float64    `json:"share"`    // of the service's tries, 0 to 1
	P99       float64    `json:"p99"`      // in milliseconds; -1 without requests
	LastError *LastError `json:"last_error,omitempty"`
}

// recent serves one service with its instances. While somebody watches, the answer is that of the
// newest look, so that it costs no more when many ask.
func (p *Page) recent(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("service")
	answer, known := p.feed.detail(name)
	if !known {
		l := lookAt(r.Context(), p.opts)
		answer = l.detail(name)
	}
	if answer == nil {
		writeError(w, http.StatusNotFound, fmt.Sprintf("no service %q is balanced, see /v1/services", name))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // an error means that the client has disconnected
}

// detail returns the Recent of a service by the newest look, nil if there is no such service. known
// is false while nobody watches.
func (f *feed) detail(name string) (answer []byte, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil {
		return nil, false
	}
	if answer, made := f.details[name]; made {
		return answer, true
	}
	answer = f.known.detail(name)
	if answer != nil {
		f.details[name] = answer
	}
	return answer, true
}

func (l *look) detail(name string) []byte {
	n, found := slices.BinarySearchFunc(l.services, name, func(s admin.Service, name string) int { return strings.Compare(s.Name, name) })
	if !found {
		return nil
	}
	answer := Recent{Now: l.now.UnixMilli(), Service: l.services[n]}
	if l.inFlight != nil && answer.Service.Protocol != endpoints.TCP {
		answer.InFlight = new(l.inFlight[name])
	}
	if l.figures.End.IsZero() {
		return encode(answer)
	}
	of := map[string]traffic.RecentInstance{}
	n, found = slices.BinarySearchFunc(l.figures.Services, name, func(r traffic.Recent, name string) int { return strings.Compare(r.Service, name) })
	if found {
		for _, i := range l.figures.Services[n].Instances {
			of[i.Endpoint] = i
		}
	}
	var failed map[string]LastError
	if l.errors != nil {
		failed = l.errors(name)
	}
	answer.Figures = []InstanceFigures{}
	for _, i := range answer.Service.Instances {
		figures := InstanceFigures{P99: -1}
		if r, ok := of[i.HostPort()]; ok {
			figures = InstanceFigures{Requests: r.Requests, Errors: r.Errors, Share: r.Share, P99: milliseconds(r.P99)}
		}
		if e, ok := failed[i.HostPort()]; ok {
			figures.LastError = &e
		}
		answer.Figures = append(answer.Figures, figures)
	}
	return encode(answer)
}
