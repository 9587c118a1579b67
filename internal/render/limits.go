package render

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"

	"lbctl/internal/policy"
)

// rateZoneSize is the shared memory of a RateZone, and serviceZoneSize that of one with a single
// key. nginx writes to the memory that it uses, and not to the rest.
const (
	rateZoneSize    = "1m"
	serviceZoneSize = "32k" // the minimum of nginx
)

// RateZone counts the requests of a service, or of some of its paths, by a key. nginx refuses
// another key for a zone of the same name, only when it reloads, and forgets the counts when the
// size changes. So the name depends on both; the rate may change.
type RateZone struct {
	Name string
	Key  string // of nginx's variables
	Size string // "1m"
	Rate policy.Rate
}

// RateLimit is a limit of a location.
type RateLimit struct {
	RateZone
	Burst int
}

// RateLimits returns the rate limits of the location's requests.
func (l Location) RateLimits() []RateLimit {
	return rateLimits(l.Upstream, l.Spec.Policy, l.Policy)
}

// BodyTooLarge returns a regular expression for a Content-Length above the limit of a request's
// body, of which there is one.
func (l Location) BodyTooLarge() string {
	limit := strconv.FormatInt(int64(l.Policy.Limit.Body), 10)
	parts := []string{fmt.Sprintf(`[1-9]\d{%d,}`, len(limit))} // more digits
	for n, digit := range limit {
		if digit < '9' { // equal up to a higher digit
			parts = append(parts, fmt.Sprintf(`%s[%c-9]\d{%d}`, limit[:n], digit+1, len(limit)-n-1))
		}
	}
	return "0*(?:" + strings.Join(parts, "|") + ")"
}

// RateZones returns the zones of the rate limits of all locations of the upstream.
func (u Upstream) RateZones() []RateZone {
	var zones []RateZone
	seen := map[string]bool{}
	add := func(p *policy.Policy) {
		for _, l := range rateLimits(u.Name, u.Spec.Policy, p) {
			if !seen[l.Name] {
				seen[l.Name] = true
				zones = append(zones, l.RateZone)
			}
		}
	}
	add(u.Spec.Policy.General())
	for _, path := range u.Spec.Policy.Paths() {
		add(u.Spec.Policy.At(path))
	}
	return zones
}

func rateLimits(upstream string, s policy.Settings, p *policy.Policy) []RateLimit {
	var all []RateLimit
	add := func(kind, key, size, field string, rate policy.Rate, burst int) {
		if rate == "" {
			return
		}
		name := strings.Join([]string{"rate", kind, size, upstream}, ".") // no upstream's name has a "."
		if of := s.Owner(p, field); of != "" {
			sum := sha256.Sum256([]byte(of)) // a path may have ":", which ends the name of a zone
			name += "." + strings.ToLower(nameHash.EncodeToString(sum[:10]))
		}
		all = append(all, RateLimit{RateZone{name, key, size, rate}, cmp.Or(burst, rate.Second())})
	}
	limit := p.Limit
	add("address", "$binary_remote_addr", rateZoneSize, "limit.address.rate", limit.Address.Rate, limit.Address.Burst)
	for _, header := range limit.Header.Rate {
		key := "$http_" + strings.ReplaceAll(header.Name, "-", "_")
		add("header-"+header.Name, key, rateZoneSize, "limit.header.rate", policy.Rate(header.Value), limit.Header.Burst)
	}
	add("service", "$lb_service", serviceZoneSize, "limit.service.rate", limit.Service.Rate, limit.Service.Burst)
	return all
}

// RetryAfter returns the seconds after which a request that was refused because of a rate limit
// may come again; 0 if it is one, which is the default.
func (l Location) RetryAfter() int {
	wait := 1
	for _, limit := range l.RateLimits() {
		wait = max(wait, limit.Rate.Wait())
	}
	if wait == 1 {
		return 0
	}
	return wait
}

// ConnLimit bounds the requests, calls or TCP connections at a time of all those that set the
// same Scope.
type ConnLimit struct {
	Zone     string
	Variable string // of the zone's key, without "$"
	Scope    string // its value: stands for the service, with the path for which the limit was set
	Conns    int
}

// ConnLimits returns the limits of the location's requests at a time.
func (l Location) ConnLimits() []ConnLimit { return connLimits(l.Service, "", l.Spec.Policy, l.Policy) }

// ConnLimits returns the limits of the connections of a TCP service.
func (u Upstream) ConnLimits() []ConnLimit {
	return connLimits(u.Service, "_tcp", u.Spec.Policy, u.Policy)
}

func connLimits(service, suffix string, s policy.Settings, p *policy.Policy) []ConnLimit {
	var all []ConnLimit
	add := func(kind string, conns int) {
		if conns > 0 {
			scope := connScope(service, s.Owner(p, "limit."+kind+".conns"))
			all = append(all, ConnLimit{"lb_conns_" + kind + suffix, "lb_conns_" + kind, scope, conns})
		}
	}
	add("address", p.Limit.Address.Conns)
	add("service", p.Limit.Service.Conns)
	return all
}

// maxConnScope leaves room for the client's address: nginx does not count a request whose key is
// longer than 255 bytes.
const maxConnScope = 200

// connScope names a service, with a path that may be empty. If that is too long, a hash stands for
// it, behind a word that is no path.
func connScope(service string, path policy.Path) string {
	scope := strings.TrimSuffix(service+" "+string(path), " ")
	if len(scope) <= maxConnScope {
		return scope
	}
	sum := sha256.Sum256([]byte(scope))
	return "long " + strings.ToLower(nameHash.EncodeToString(sum[:20]))
}
