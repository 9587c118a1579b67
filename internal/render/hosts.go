package render

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
	"lbctl/internal/routing"
)

// way is a route with the service that it leads to.
type way struct {
	route  endpoints.Route
	places []routing.Place // of the route
	to     routed
}

// ways has the routes of one listener, by host.
type ways map[string]*hostWays

// hostWays has the routes of one host.
type hostWays struct {
	all     []*way
	byPlace map[routing.Place][]*way // in order
	paths   bool                     // a service has policies of paths
	health  *healthWay               // only of "", any host
}

func (w ways) add(family string, r endpoints.Route, to routed) {
	if w[r.Host] == nil {
		w[r.Host] = &hostWays{}
	}
	h := w[r.Host]
	h.all = append(h.all, &way{r, routing.Places(family, r), to})
	h.paths = h.paths || len(to.spec.Policy.Paths()) > 0
}

// sort puts the routes in order.
func (h *hostWays) sort() {
	slices.SortFunc(h.all, func(x, y *way) int { return routing.Compare(x.route, y.route) })
	h.byPlace = make(map[routing.Place][]*way, 2*len(h.all))
	for _, way := range h.all {
		for _, place := range way.places {
			h.byPlace[place] = append(h.byPlace[place], way)
		}
	}
}

// takes reports whether routes of the host take all requests of a place.
func (h *hostWays) takes(p routing.Place) bool {
	for around := range p.Around() {
		if own := h.byPlace[around]; len(own) > 0 && !own[len(own)-1].route.Conditional() {
			return true
		}
	}
	return false
}

// hosts returns the virtual hosts, the default host first.
func (w ways) hosts() []Host {
	if w[""] == nil {
		w[""] = &hostWays{}
	}
	for _, own := range w {
		own.sort()
	}
	var hosts []Host
	for name := range w {
		h := Host{Name: name}
		h.Locations, h.Named = w.locations(name)
		if name == "" {
			h.Name, h.Default = "_", true
		}
		hosts = append(hosts, h)
	}
	slices.SortFunc(hosts, func(x, y Host) int {
		if x.Default != y.Default {
			if x.Default {
				return -1
			}
			return 1
		}
		return strings.Compare(x.Name, y.Name)
	})
	return hosts
}

// locations returns the locations of a host. nginx looks for a location in a single virtual host,
// and takes the one with the longest path, so each host needs the places of all routes that match
// it, also those for wildcards and for any host; and each place needs all routes that match it,
// until one that every request matches.
//
// A limit of the body is for named locations only. nginx compares Content-Length as soon as it has
// found the location, before it knows which choice and so which service the request is for.
func (w ways) locations(host string) (all, ofChoices []Location) {
	wider := routing.Hosts(host)
	named := namedLocations{names: map[choiceKey]string{}}
	for _, place := range w.places(wider) {
		l := Location{Path: place.Path, Exact: place.Exact}
		for _, way := range w.at(wider, place) {
			if way.route.Conditional() {
				l.Choices = append(l.Choices, named.choice(way, place))
				continue
			}
			l.lead(way, place)
			if l.Policy.Limit.Body > 0 {
				l.Choices = append(l.Choices, named.choice(way, place))
			}
			break
		}
		all = append(all, l)
	}
	return all, named.locations
}

// places returns the places of all routes of a host, the longest path first. It leaves out the
// places where all requests take a route of a narrower host.
func (w ways) places(wider []string) []routing.Place {
	root := routing.Place{Path: "/"}
	seen, all := map[routing.Place]bool{root: true}, []routing.Place{root}
	add := func(p routing.Place) {
		if !seen[p] {
			seen[p] = true
			all = append(all, p)
		}
	}
	for n, host := range wider {
		if w[host] == nil {
			continue
		}
		for place := range w[host].byPlace {
			hidden := slices.ContainsFunc(wider[:n], func(narrower string) bool { return w[narrower] != nil && w[narrower].takes(place) })
			if hidden {
				continue
			}
			add(place)
			if path, ok := strings.CutSuffix(place.Path, "/"); ok && place.Exact && path != "" {
				// Without this location, nginx would redirect requests for "/x" to "/x/".
				add(routing.Place{Path: path, Exact: true})
			}
		}
	}
	if health := w[""].health; health != nil && slices.Contains(w.at(wider, health.place()), &health.way) {
		add(health.place())
	}
	if slices.ContainsFunc(wider, func(host string) bool { return w[host] != nil && w[host].paths }) {
		w.addPolicyPlaces(wider, slices.Clone(all), add)
	}
	base := func(p routing.Place) string {
		if p.Exact {
			return p.Path
		}
		return strings.TrimSuffix(p.Path, "/")
	}
	slices.SortFunc(all, func(x, y routing.Place) int {
		if c := cmp.Or(cmp.Compare(len(base(y)), len(base(x))), strings.Compare(base(x), base(y))); c != 0 {
			return c
		}
		if x.Exact {
			return -1
		}
		return 1
	})
	return all
}

// at returns the routes that match all paths of a place, in order, until one that every request
// matches.
func (w ways) at(wider []string, p routing.Place) []*way {
	var found []*way
	for _, host := range wider {
		if w[host] == nil {
			continue
		}
		health := w[host].health
		for around := range p.Around() {
			if around == (routing.Place{Path: "/"}) && health.has(p) && health.beforeDefault {
				return append(found, &health.way)
			}
			for _, way := range w[host].byPlace[around] {
				found = append(found, way)
				if !way.route.Conditional() {
					return found
				}
			}
		}
		if health.has(p) {
			return append(found, &health.way)
		}
	}
	return found
}

// addPolicyPlaces adds a place for each path with a policy of its own, where the service of the
// policy has the path.
func (w ways) addPolicyPlaces(wider []string, places []routing.Place, add func(routing.Place)) {
	for _, place := range places {
		for _, way := range w.at(wider, place) {
			for _, path := range way.to.spec.Policy.Paths() {
				for _, own := range routing.PolicyPlaces(way.to.spec.Protocol.Family(), path) {
					if slices.Contains(w.at(wider, own), way) {
						add(own)
					}
				}
			}
		}
	}
}

// lead makes the location lead to the service of a route, with its policy for a place.
func (l *Location) lead(w *way, p routing.Place) {
	l.Spec, l.Service, l.Upstream = w.to.spec, w.to.service, w.to.upstream
	l.Route = w.route.String()
	l.routePath, l.policyPath = policy.Path(strings.TrimSuffix(w.route.Path, "/")), policyPath(p)
	l.Policy = l.Spec.Policy.At(l.policyPath)
	l.TLSFiles, l.mirrors, l.Health = w.to.tlsFiles, w.to.mirrors, w.to.health
}

// policyPath returns the path whose policy holds in a place.
func policyPath(p routing.Place) policy.Path {
	if p.Exact {
		return policy.Path("=" + p.Path)
	}
	return policy.Path(strings.TrimSuffix(p.Path, "/"))
}

// namedLocations has the locations that only choices lead to.
type namedLocations struct {
	locations []Location
	names     map[choiceKey]string
}

// choiceKey is what makes choices lead to the same location.
type choiceKey struct {
	route  endpoints.Route
	policy *policy.Policy // that of one service for the same path is one pointer
}

func (n *namedLocations) choice(w *way, p routing.Place) Choice {
	l := Location{Path: w.places[0].Path, Exact: w.places[0].Exact}
	l.lead(w, p)
	key := choiceKey{w.route, l.Policy}
	name, ok := n.names[key]
	if !ok {
		name = "route-" + strconv.Itoa(len(n.locations)+1)
		n.names[key] = name
		l.Name = name
		n.locations = append(n.locations, l)
	}
	c := Choice{Location: name}
	var values []string
	if w.route.Method != "" {
		c.Variables, values = append(c.Variables, "request_method"), append(values, w.route.Method)
	}
	for _, m := range w.route.HeaderMatches() {
		c.Variables, values = append(c.Variables, "http_"+strings.ReplaceAll(m.Name, "-", "_")), append(values, m.Value)
	}
	// A value has no spaces, so that the joined texts are equal only if each part is.
	c.Value = strings.Join(values, " ")
	return c
}
