package access

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// expiryStep is how often rules that are over leave nginx: all at once, because each time is a
// reload. A rule counts for up to that much longer than its write says.
const expiryStep = time.Minute

// Networks are the rules that count at one time, in the form that nginx wants. nil has none.
// It must not be changed.
type Networks struct {
	rules   []Rule         // sorted
	numbers map[string]int // of the services that have rules of their own, from 1
	geo     []byte
	next    time.Time
}

// compile makes Networks of the rules that count at a time; nil if there are none.
func compile(rules []Rule, now time.Time) *Networks {
	n := &Networks{numbers: map[string]int{}}
	step := now.Truncate(expiryStep)
	var services []string
	for _, r := range rules {
		if r.Over(step) {
			continue
		}
		if end := r.Until.Add(expiryStep - 1).Truncate(expiryStep); !r.Until.IsZero() && (n.next.IsZero() || end.Before(n.next)) {
			n.next = end
		}
		if r.Service != "" {
			services = append(services, r.Service)
		}
		n.rules = append(n.rules, r)
	}
	if len(n.rules) == 0 {
		return nil
	}
	slices.SortFunc(n.rules, compareRules)
	slices.Sort(services)
	for k, service := range slices.Compact(services) {
		n.numbers[service] = k + 1
	}
	var geo bytes.Buffer
	n.walk(func(p netip.Prefix, own, around verdict) {
		if text := own.text(); text != around.text() {
			fmt.Fprintf(&geo, "%s %s;\n", p, text)
		}
	})
	n.geo = geo.Bytes()
	return n
}

// verdict is what the addresses of a network may not use.
type verdict struct {
	all      bool
	services []int // the numbers, sorted
}

// text returns the verdict as nginx's value: "all", or ",1,4,".
func (v verdict) text() string {
	switch {
	case v.all:
		return "all"
	case len(v.services) == 0:
		return `""`
	}
	b := []byte{','}
	for _, k := range v.services {
		b = append(strconv.AppendInt(b, int64(k), 10), ',')
	}
	return string(b)
}

// with returns the verdict for a network in that of v.
func (v verdict) with(service int, allow bool) verdict {
	if service == 0 {
		v.all = !allow
		return v
	}
	at, there := slices.BinarySearch(v.services, service)
	switch {
	case allow && there:
		v.services = slices.Delete(slices.Clone(v.services), at, at+1)
	case !allow && !there:
		v.services = slices.Insert(slices.Clone(v.services), at, service)
	}
	return v
}

// denies reports whether the verdict denies the service with a number; 0 has no rules.
func (v verdict) denies(service int) bool {
	_, there := slices.BinarySearch(v.services, service)
	return v.all || there
}

// walk calls visit with the verdict for each network that has rules, and with that for the
// network around it. Larger networks come first.
func (n *Networks) walk(visit func(p netip.Prefix, own, around verdict)) {
	type place struct {
		network netip.Prefix
		verdict verdict
	}
	var around []place // each in the one before
	for i := 0; i < len(n.rules); {
		p := n.rules[i].Network
		for len(around) > 0 && !within(p, around[len(around)-1].network) {
			around = around[:len(around)-1]
		}
		var outer verdict
		if len(around) > 0 {
			outer = around[len(around)-1].verdict
		}
		own := outer
		for ; i < len(n.rules) && n.rules[i].Network == p; i++ {
			own = own.with(n.numbers[n.rules[i].Service], n.rules[i].Allow)
		}
		visit(p, own, outer)
		around = append(around, place{p, own})
	}
}

// Geo returns the content of nginx's block geo: networks, each with "all", or with the numbers
// of the services that it may not use between commas: ",1,4,". nil if there are no rules.
func (n *Networks) Geo() []byte {
	if n == nil {
		return nil
	}
	return n.geo
}

// Check returns the condition in nginx under which a request for a service is denied, of the
// variable that the block geo sets; "" if none is.
func (n *Networks) Check(variable, service string) string {
	switch k := n.Number(service); {
	case n == nil:
		return ""
	case k == 0:
		return fmt.Sprintf("$%s = all", variable)
	default:
		return fmt.Sprintf(`$%s ~ "^all$|,%d,"`, variable, k)
	}
}

// Number returns the number of a service in what Geo returns; 0 if it has no rules of its own.
func (n *Networks) Number(service string) int {
	if n == nil {
		return 0
	}
	return n.numbers[service]
}

// Own reports whether a service has rules of its own.
func (n *Networks) Own(service string) bool { return n.Number(service) > 0 }

// Lines returns nginx's directives allow and deny for a service, for where geo has no effect. The
// first that fits an address counts. With the service "" they are the rules for every service.
func (n *Networks) Lines(service string) []byte {
	if n == nil {
		return nil
	}
	type line struct {
		network netip.Prefix
		deny    bool
	}
	var lines []line
	k := n.Number(service)
	n.walk(func(p netip.Prefix, own, around verdict) {
		if own.denies(k) != around.denies(k) {
			lines = append(lines, line{p, own.denies(k)})
		}
	})
	slices.SortStableFunc(lines, func(a, b line) int { return b.network.Bits() - a.network.Bits() })
	var b bytes.Buffer
	for _, l := range lines {
		word := "allow"
		if l.deny {
			word = "deny"
		}
		fmt.Fprintf(&b, "%s %s;\n", word, l.network)
	}
	return b.Bytes()
}

// Next returns when the first of the rules ends for nginx; zero if none does.
func (n *Networks) Next() time.Time {
	if n == nil {
		return time.Time{}
	}
	return n.next
}

// Count returns how many rules there are.
func (n *Networks) Count() int {
	if n == nil {
		return 0
	}
	return len(n.rules)
}

// Decide returns the rule for a request of an address to a service, see the function Decide.
func (n *Networks) Decide(address netip.Addr, service string) (r Rule, found, denied bool) {
	if n == nil {
		return Rule{}, false, false
	}
	return Decide(n.rules, address, service)
}

// DecideForAll returns the rule that denies all addresses without a rule of their own the use of
// a service; found is false if there is none.
func (n *Networks) DecideForAll(service string) (r Rule, found bool) {
	if n == nil {
		return Rule{}, false
	}
	all := slices.DeleteFunc(slices.Clone(n.rules), func(r Rule) bool { return r.Network.Bits() != 0 })
	_, _, six := Decide(all, netip.IPv6Unspecified(), service)
	four, _, denied := Decide(all, netip.IPv4Unspecified(), service)
	return four, six && denied
}

// Denials returns how many rules deny networks the use of a service.
func (n *Networks) Denials(service string) int {
	if n == nil {
		return 0
	}
	count := 0
	for _, r := range n.rules {
		if !r.Allow && (r.Service == "" || r.Service == service) {
			count++
		}
	}
	return count
}
