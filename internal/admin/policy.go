package admin

import (
	"fmt"
	"net/http"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
	"lbctl/internal/render"
)

// A ServicePolicy is how a service is balanced, and where each setting comes from.
type ServicePolicy struct {
	Service  string             `json:"service"`
	Protocol endpoints.Protocol `json:"protocol"`
	// Path is the path that Fields hold for; empty: the whole service.
	Path   policy.Path        `json:"path,omitempty"`
	Fields []policy.Explained `json:"fields"`
	// Layers are what each source says, the weakest first.
	Layers []policy.Layer `json:"layers"`
	// Paths are the paths that have settings of their own.
	Paths []policy.Path `json:"paths"`
	// Problems says which values have no effect, and why, for the whole service and its paths.
	Problems []string `json:"problems"`
}

// policy answers with what holds for the requests of a service's path.
func (s *Server) policy(w http.ResponseWriter, r *http.Request) {
	answer := ServicePolicy{Service: r.PathValue("name")}
	if text := r.FormValue("path"); text != "" {
		path, err := policy.ParsePath(text)
		if err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
		answer.Path = path
	}
	var names []string
	for _, entry := range s.Services.Entries() {
		names = append(names, entry.Name)
		if entry.Name != answer.Service {
			continue
		}
		if entry.Protocol == "" {
			writeError(w, http.StatusNotFound, fmt.Errorf("service %q is not served, so it has no policy", entry.Name))
			return
		}
		answer.Protocol = entry.Protocol
		answer.Fields = entry.Policy.Explain(entry.Protocol.Family(), answer.Path)
		answer.Layers = append([]policy.Layer{}, entry.Policy.Layers()...)
		answer.Paths = append([]policy.Path{}, entry.Policy.Paths()...)
		answer.Problems = []string{}
		for _, p := range s.Controller.Status(r.Context()).Problems {
			if p.Subject == render.ServiceSubject(entry.Name) && len(p.Sources) > 0 {
				answer.Problems = append(answer.Problems, p.Message)
			}
		}
		writeJSON(w, answer)
		return
	}
	writeError(w, http.StatusNotFound, s.notBalanced(answer.Service, names))
}
