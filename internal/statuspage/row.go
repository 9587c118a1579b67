package statuspage

import (
	"strings"
	"unicode/utf8"

	"lbctl/internal/admin"
	"lbctl/internal/endpoints"
)

// A row is a service in the page's list. Its figures are points, and its instances the answer of
// GET /v1/recent, so that a row changes seldom.
type row struct {
	ID       int                `json:"id"` // in this feed
	Name     string             `json:"name"`
	Protocol endpoints.Protocol `json:"protocol"`
	Routes   []string           `json:"routes"` // at most maxRoutes
	More     int                `json:"more,omitempty"`
	Default  bool               `json:"default,omitempty"`
	Port     int                `json:"port,omitempty"`
	State    endpoints.State    `json:"state"`
	Level    level              `json:"level"`
	// Why says what is wrong, empty if nothing is.
	Why        string `json:"why,omitempty"`
	Since      int64  `json:"since"` // of State, in milliseconds of Unix time
	InRotation int    `json:"in"`
	Registered int    `json:"of"`
	// Pips has a letter for each instance, at most maxPips, see pip.
	Pips string `json:"pips"`
}

const (
	maxRoutes = 3
	maxPips   = 64
	maxWhy    = 300 // bytes; the whole text is in GET /v1/recent
)

// A level says how bad something is.
type level string

const (
	fine level = ""
	info level = "info" // on purpose, or on its way
	warn level = "warn" // served, but not as it should be
	bad  level = "bad"  // clients notice, or somebody has to do something
)

func rowOf(id int, s admin.Service) row {
	r := row{
		ID: id, Name: s.Name, Protocol: s.Protocol, Default: s.Default, Port: s.Port, State: s.State,
		InRotation: s.InRotation, Registered: s.Registered, Routes: []string{},
	}
	if !s.Since.IsZero() {
		r.Since = s.Since.UnixMilli()
	}
	for _, route := range s.Routes[:min(maxRoutes, len(s.Routes))] {
		r.Routes = append(r.Routes, route.String())
	}
	r.More = len(s.Routes) - len(r.Routes)
	var pips strings.Builder
	for _, i := range s.Instances[:min(maxPips, len(s.Instances))] {
		pips.WriteByte(pip(i))
	}
	r.Pips = pips.String()
	r.Level, r.Why = judge(s)
	r.Why = shorten(r.Why, maxWhy)
	return r
}

// shorten bounds a text in bytes. The output of a check, say, can have kilobytes.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most] + "…"
}

// The letters of pips.
const (
	pipServing     = 'u' // gets traffic
	pipWeak        = 'w' // gets traffic though something is wrong, or less than its weight
	pipFailing     = 'x' // gets none: a check is critical, or lbctl has ejected it
	pipMaintenance = 'm'
	pipOut         = 'o' // gets none for another reason
)

func pip(i admin.Instance) byte {
	switch {
	case i.InRotation && i.Reason == "":
		return pipServing
	case i.InRotation:
		return pipWeak
	case i.Ejected || i.Status == endpoints.Critical:
		return pipFailing
	case i.Status == endpoints.Maintenance:
		return pipMaintenance
	default:
		return pipOut
	}
}

// judge says how bad the state of a service is, and why. The figures of its requests are not part
// of it: the page judges them.
func judge(s admin.Service) (level, string) {
	why := func(otherwise string) string {
		switch {
		case s.Reason != "":
			return s.Reason
		case len(s.Problems) > 0:
			return s.Problems[0]
		default:
			return otherwise
		}
	}
	switch {
	case s.LackingGeneration != 0:
		return bad, why("the pinned generation does not have it")
	case s.Maintenance.All():
		return info, s.Maintenance.String()
	case s.InRotation == 0 && s.Registered > 0 && allInMaintenance(s):
		return bad, why("no instance gets traffic: all are in maintenance")
	case s.InRotation == 0:
		return bad, why("no instance gets traffic")
	case s.State == endpoints.Panic || s.State == endpoints.Quarantined:
		return bad, why("")
	case s.State != endpoints.Fresh || len(s.Problems) > 0:
		return warn, why("")
	case s.Maintenance != nil:
		return info, s.Maintenance.String()
	}
	for _, i := range s.Instances {
		if p := pip(i); p == pipFailing {
			return warn, i.ID + ": " + i.Reason
		}
	}
	return fine, ""
}

func allInMaintenance(s admin.Service) bool {
	for _, i := range s.Instances {
		if i.Status != endpoints.Maintenance {
			return false
		}
	}
	return true
}
