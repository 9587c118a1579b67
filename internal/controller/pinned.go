package controller

import (
	"slices"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/render"
)

// Pinned is what nginx serves while a generation is pinned. The zero value is for no pin.
type Pinned struct {
	Generation int             // 0: none is pinned
	services   map[string]bool // in the generation, by name; nil: not known
}

// Pinned returns which generation is pinned, and what it has.
func (c *Controller) Pinned() Pinned { return c.shown().pinned() }

func (v view) pinned() Pinned {
	if v.pin == nil {
		return Pinned{}
	}
	p := Pinned{Generation: v.pin.Generation}
	if v.current.Number != p.Generation || v.current.ServiceNames == nil {
		return p
	}
	p.services = make(map[string]bool, len(v.current.ServiceNames))
	for _, name := range v.current.ServiceNames {
		p.services[name] = true
	}
	return p
}

// Lacks reports whether the pinned generation doesn't have a service, so that nginx sends it
// no traffic. It is false if that is unknown, and if no generation is pinned.
func (p Pinned) Lacks(s endpoints.Service) bool {
	return p.services != nil && s.Protocol != "" && !p.services[s.Name]
}

// relevant returns the problems without those that say which instances of a service get
// traffic although the pinned generation lacks the service.
func (p Pinned) relevant(problems []render.Problem, entries []endpoints.Entry) []render.Problem {
	lacks := map[string]bool{}
	for _, e := range entries {
		if e.State == endpoints.Panic && p.Lacks(e.Service) {
			lacks["service "+e.Name] = true
		}
	}
	if len(lacks) == 0 {
		return problems
	}
	return slices.DeleteFunc(slices.Clone(problems), func(x render.Problem) bool {
		return lacks[x.Subject] && strings.HasPrefix(x.Message, string(endpoints.Panic)+": ")
	})
}
