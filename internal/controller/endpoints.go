package controller

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"lbctl/internal/render"
)

// EndpointsStatus says how changes of servers reach nginx.
type EndpointsStatus struct {
	// By is "dns" if nginx asks for the servers of its upstreams, so that it gets new
	// ones without a reload; otherwise it is "reload".
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"` // why By is "reload"
	// Upstreams is how many upstreams nginx asks for. Unfetched are those whose newest
	// servers it has not fetched yet, or has fetched without showing that it uses them.
	Upstreams int      `json:"upstreams"`
	Unfetched []string `json:"untaken,omitempty"`
	// ByReload has the services that nginx doesn't ask for, although it asks for others.
	ByReload []ByReload `json:"by_reload,omitempty"`
}

// ByReload is a service whose servers are written into nginx's files.
type ByReload struct {
	Service string `json:"service"`
	Reason  string `json:"reason"`
}

func (v view) endpoints(unfetched map[string]time.Time, note string) EndpointsStatus {
	if v.asked == nil {
		return EndpointsStatus{By: "reload", Reason: note}
	}
	s := EndpointsStatus{By: "dns", Upstreams: len(v.asked), Unfetched: slices.Sorted(maps.Keys(unfetched))}
	for _, service := range slices.Sorted(maps.Keys(v.byReload)) {
		s.ByReload = append(s.ByReload, ByReload{service, v.byReload[service]})
	}
	return s
}

// unfetchedProblem returns a problem if nginx has not fetched new servers within askPatience.
func unfetchedProblem(unfetched map[string]time.Time, now time.Time) *render.Problem {
	var late []string
	var since time.Time
	for name, at := range unfetched {
		if now.Sub(at) < askPatience {
			continue
		}
		late = append(late, name)
		if since.IsZero() || at.Before(since) {
			since = at
		}
	}
	if len(late) == 0 {
		return nil
	}
	slices.Sort(late)
	return &render.Problem{
		Subject: "nginx",
		Message: fmt.Sprintf("it has not fetched the newest servers of %s, among them %q: do its templates name the resolver that lbctl answers at?", plural(len(late), "upstream"), late[0]),
		Since:   since,
	}
}
