package admin

import (
	"net/http"

	"lbctl/internal/controller"
	"lbctl/internal/routing"
)

// Routes is where nginx's requests go.
type Routes struct {
	Generation int `json:"generation"`
	// Note says why the listeners may not be those of the generation; empty if they are.
	Note      string             `json:"note,omitempty"`
	Listeners []routing.Listener `json:"listeners"`
}

func (s *Server) routes(w http.ResponseWriter, _ *http.Request) {
	routing := s.Controller.Routing()
	result := Routes{Generation: routing.Generation, Note: note(routing), Listeners: routing.Listeners}
	if result.Listeners == nil {
		result.Listeners = noListeners
	}
	writeJSON(w, result)
}

var noListeners = []routing.Listener{}

// note says why the listeners of a routing may not be those that nginx has.
func note(r controller.Routing) string {
	switch {
	case r.InForce:
		return ""
	case r.Listeners == nil:
		return "lbctl has no configuration yet"
	default:
		return "lbctl did not make the generation that nginx serves from what Consul says now: these are the newest routes, and nginx may have others"
	}
}
