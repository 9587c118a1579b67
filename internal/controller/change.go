package controller

import (
	"fmt"
	"iter"
	"strings"
	"time"

	"lbctl/internal/access"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// changesListed is how many services the text of a change names.
const changesListed = 4

// noChange is the text of a change that the entries don't show, such as one of templates,
// settings or the addresses of host names.
const noChange = "nginx's configuration"

// changes describes the differences between two lists of entries that affect traffic:
// "hello_server +4, api -1, new service web +2". Weights of slow starts don't count. Both
// lists are sorted by name.
func changes(before, after []endpoints.Entry) string {
	var words []string
	for len(before) > 0 || len(after) > 0 {
		var old, now *endpoints.Entry
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].Name < after[0].Name:
			old, before = &before[0], before[1:]
		case len(before) == 0 || before[0].Name > after[0].Name:
			now, after = &after[0], after[1:]
		default:
			old, now = &before[0], &after[0]
			before, after = before[1:], after[1:]
		}
		if word := changeOf(old, now); word != "" {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return noChange
	}
	if more := len(words) - changesListed; more > 0 {
		words = append(words[:changesListed], fmt.Sprintf("and %s more", plural(more, "service")))
	}
	return strings.Join(words, ", ")
}

// withFormer returns the entries of after, each with the one of the same name in before; nil if
// there is none. Both lists are sorted by name.
func withFormer(before, after []endpoints.Entry) iter.Seq2[*endpoints.Entry, *endpoints.Entry] {
	return func(yield func(former, e *endpoints.Entry) bool) {
		rest := before
		for n := range after {
			e := &after[n]
			for len(rest) > 0 && rest[0].Name < e.Name {
				rest = rest[1:]
			}
			var former *endpoints.Entry
			if len(rest) > 0 && rest[0].Name == e.Name {
				former = &rest[0]
			}
			if !yield(former, e) {
				return
			}
		}
	}
}

// changeOf describes the change of one service, "" if it has none. old is nil for a new
// service, now for one that is gone.
func changeOf(old, now *endpoints.Entry) string {
	had, has := old != nil && old.Served(), now != nil && now.Served()
	switch {
	case had && has:
		parts := instances(fullWeights(old), fullWeights(now))
		switch {
		case !old.SameRouting(now.Spec):
			parts = append(parts, "routes")
		case !old.Spec.Equal(now.Spec):
			parts = append(parts, policyChange(old.Policy, now.Policy))
		}
		if len(parts) == 0 {
			return ""
		}
		return now.Name + " " + strings.Join(parts, ", ")
	case has:
		return strings.Join(append([]string{"new service " + now.Name}, instances(nil, fullWeights(now))...), " ")
	case had:
		return strings.Join(append([]string{"service " + old.Name + " gone"}, instances(fullWeights(old), nil)...), " ")
	default:
		return ""
	}
}

// policyChange names the fields that a change of a policy is about: "policy timeout.read".
func policyChange(old, now policy.Settings) string {
	fields := old.Changes(now)
	if more := len(fields) - changesListed; more > 0 {
		fields = append(fields[:changesListed:changesListed], fmt.Sprintf("and %s more", plural(more, "field")))
	}
	return strings.TrimSpace("policy " + strings.Join(fields, ", "))
}

// summaryCache keeps the last results of count and changes. The loop needs them in every
// iteration, and with a thousand services they take long to compute.
type summaryCache struct {
	counted                 []endpoints.Entry
	services, instances     int
	before, after           []endpoints.Entry
	text                    string
	rulesBefore, rulesAfter *access.Networks
	ruleText                string
}

func (c *summaryCache) count(entries []endpoints.Entry) (services, instances int) {
	if !identical(c.counted, entries) {
		c.counted = entries
		c.services, c.instances = count(entries)
	}
	return c.services, c.instances
}

func (c *summaryCache) changes(before, after []endpoints.Entry) string {
	if c.text == "" || !identical(c.before, before) || !identical(c.after, after) {
		c.before, c.after, c.text = before, after, changes(before, after)
	}
	return c.text
}

// rules describes how the rules about networks differ, "" if they don't.
func (c *summaryCache) rules(before, after *access.Networks) string {
	if c.rulesBefore != before || c.rulesAfter != after {
		c.rulesBefore, c.rulesAfter, c.ruleText = before, after, after.Differences(before, time.Now())
	}
	return c.ruleText
}

// identical reports whether two slices share the same memory.
func identical(a, b []endpoints.Entry) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// instances returns "+2 -1", "1 at a new address", "1 with a new weight" and "1 with a new
// version", leaving out numbers that are 0.
func instances(before, after []endpoints.Instance) []string {
	if len(before) == len(after) && (len(before) == 0 || &before[0] == &after[0]) {
		return nil
	}
	type key struct{ node, id string }
	was := map[key]endpoints.Instance{}
	for _, i := range before {
		was[key{i.Node, i.ID}] = i
	}
	plus, address, weight, version := 0, 0, 0, 0
	for _, i := range after {
		k := key{i.Node, i.ID}
		old, ok := was[k]
		if !ok {
			plus++
			continue
		}
		delete(was, k)
		if old.HostPort() != i.HostPort() {
			address++
		}
		if old.Weight != i.Weight {
			weight++
		}
		if old.Version != i.Version {
			version++
		}
	}
	var numbers, parts []string
	if plus > 0 {
		numbers = append(numbers, fmt.Sprintf("+%d", plus))
	}
	if len(was) > 0 {
		numbers = append(numbers, fmt.Sprintf("-%d", len(was)))
	}
	if len(numbers) > 0 {
		parts = append(parts, strings.Join(numbers, " "))
	}
	if address > 0 {
		parts = append(parts, fmt.Sprintf("%d at a new address", address))
	}
	if weight > 0 {
		parts = append(parts, fmt.Sprintf("%d with a new weight", weight))
	}
	if version > 0 {
		parts = append(parts, fmt.Sprintf("%d with a new version", version))
	}
	return parts
}

// count returns how many services are served, and by how many instances.
// servedNames returns the names of the services that nginx serves with these entries, sorted. It
// is not nil.
func servedNames(entries []endpoints.Entry) []string {
	names := []string{}
	for _, e := range entries {
		if e.Served() {
			names = append(names, e.Name)
		}
	}
	return names
}

func count(entries []endpoints.Entry) (services, instances int) {
	for _, e := range entries {
		if e.Served() {
			services++
			instances += len(e.Usable())
		}
	}
	return services, instances
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// are returns "1 service is" or "2 services are".
func are(n int, what string) string {
	if n == 1 {
		return plural(n, what) + " is"
	}
	return plural(n, what) + " are"
}
