package routing

import (
	"iter"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// Place is one of nginx's locations: a whole path, or all paths with a prefix.
type Place struct {
	Path  string // "/api" if Exact, "/api/" for all paths below it
	Exact bool
}

// Places returns the places of a route: together they match the paths that the route matches.
// family is that of its service.
//
// A path prefix ends at a "/", so it is two places, itself and what is below. Calls of gRPC are
// all of the form /package.Service/Method, so there one is enough.
func Places(family string, r endpoints.Route) []Place {
	path := strings.TrimSuffix(r.Path, "/")
	segments := strings.Count(path, "/")
	isPackage := strings.HasSuffix(path, ".*")
	switch {
	case r.Exact:
		return []Place{{r.Path, true}}
	case isPackage:
		return []Place{{strings.TrimSuffix(path, "*"), false}}
	case path == "":
		return []Place{{"/", false}}
	case family != "grpc":
		return []Place{{path, true}, {path + "/", false}}
	case segments == 1:
		return []Place{{path + "/", false}}
	default:
		return []Place{{path, true}}
	}
}

// PolicyPlaces returns the places of a path with a policy of its own.
func PolicyPlaces(family string, path policy.Path) []Place {
	if bare, exact := path.Exact(); exact {
		return []Place{{bare, true}}
	}
	return Places(family, endpoints.Route{Path: string(path)})
}

// Matches reports whether a path is in the place.
func (p Place) Matches(path string) bool {
	return p.Path == path || !p.Exact && strings.HasPrefix(path, p.Path)
}

// Around returns the places of routes that contain all paths of p: p itself, then the prefixes
// of its path, the longest first.
func (p Place) Around() iter.Seq[Place] {
	return func(yield func(Place) bool) {
		if p.Exact && !yield(p) {
			return
		}
		for n := len(p.Path); n > 0; n-- {
			// A prefix ends at a "/", or at the "." of a gRPC package.
			if end := p.Path[n-1]; (end == '/' || end == '.') && !yield(Place{Path: p.Path[:n]}) {
				return
			}
		}
	}
}
