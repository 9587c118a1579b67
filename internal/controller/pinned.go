package controller

import (
	"regexp"
	"slices"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/render"
)

// Pinned is what nginx serves while a generation is pinned. The zero value is for no pin.
type Pinned struct {
	Generation int // 0: none is pinned

	asked     asked
	upstreams map[string]bool // in the generation's files; nil: not known
	services  map[string]bool // named by its locations
}

// pinnedUpstream and pinnedService match the lines of the templates that name an upstream,
// and the service of a location, which has no upstream if the service had no instance.
var (
	pinnedUpstream = regexp.MustCompile(`(?m)^\s*upstream "?([\w-]+)"? \{`)
	pinnedService  = regexp.MustCompile(`(?m)^\s*set \$lb_service "?([\w-]+)"?;`)
)

// Pinned returns which generation is pinned, and what it has.
func (c *Controller) Pinned() Pinned { return c.shown().pinned() }

func (v view) pinned() Pinned {
	if v.pin == nil {
		return Pinned{}
	}
	p := Pinned{Generation: v.pin.Generation, asked: v.generation}
	if v.files == nil {
		return p
	}
	p.upstreams, p.services = map[string]bool{}, map[string]bool{}
	for _, file := range v.files {
		for _, match := range pinnedUpstream.FindAllSubmatch(file, -1) {
			p.upstreams[string(match[1])] = true
		}
		for _, match := range pinnedService.FindAllSubmatch(file, -1) {
			p.services[string(match[1])] = true
		}
	}
	return p
}

// Lacks reports whether the pinned generation doesn't have a service, so that nginx sends it
// no traffic. It is false if that is unknown, and if no generation is pinned.
func (p Pinned) Lacks(s endpoints.Service) bool {
	if p.Generation == 0 || p.upstreams == nil || s.Protocol == "" {
		return false
	}
	upstream := render.UpstreamName(s.Protocol, s.Name)
	older := !p.asked.known && p.asked.upstreams[p.asked.older.upstream(s)]
	return !p.asked.upstreams[upstream] && !p.upstreams[upstream] && !p.services[s.Name] && !older
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
