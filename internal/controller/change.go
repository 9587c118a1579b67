package controller

import (
	"fmt"
	"slices"
	"strings"

	"lbctl/internal/endpoints"
)

// changesListed is how many services a change names.
const changesListed = 4

// noChange is when entries don't differ, but templates or settings do, or what no
// entry tells.
const noChange = "structure"

// changes says in a few words what differs between two sets of entries, as far
// as traffic is concerned: "hello_server +4, api -1, new service web +2".
func changes(before, after []endpoints.Entry) string {
	was, is := served(before), served(after)
	var words []string
	for _, name := range names(was, is) {
		old, had := was[name]
		now, has := is[name]
		var parts []string
		switch {
		case !had:
			parts = append(parts, "new service "+name)
		case !has:
			parts = append(parts, "service "+name+" gone")
		default:
			parts = append(parts, name)
		}
		parts = append(parts, instances(old.Rotation(), now.Rotation())...)
		if had && has && structure(old) != structure(now) {
			parts = append(parts, "routes")
		}
		if len(parts) > 1 || had != has {
			words = append(words, strings.Join(parts, " "))
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

// A told is what was found out about entries last, which is asked for with every
// turn of the loop, and takes a while with a thousand services.
type told struct {
	counted             []endpoints.Entry
	services, instances int
	before, after       []endpoints.Entry
	text                string
}

func (t *told) count(entries []endpoints.Entry) (services, instances int) {
	if !identical(t.counted, entries) {
		t.counted = entries
		t.services, t.instances = count(entries)
	}
	return t.services, t.instances
}

func (t *told) changes(before, after []endpoints.Entry) string {
	if t.text == "" || !identical(t.before, before) || !identical(t.after, after) {
		t.before, t.after, t.text = before, after, changes(before, after)
	}
	return t.text
}

// identical reports whether two slices are one and the same.
func identical(a, b []endpoints.Entry) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// instances is "+2", "-1" and "1 changed", as far as they are not nothing.
func instances(before, after []endpoints.Instance) []string {
	type key struct{ node, id string }
	was := map[key]endpoints.Instance{}
	for _, i := range before {
		was[key{i.Node, i.ID}] = i
	}
	plus, changed := 0, 0
	for _, i := range after {
		k := key{i.Node, i.ID}
		switch old, ok := was[k]; {
		case !ok:
			plus++
		case old.HostPort() != i.HostPort() || old.Weight != i.Weight || old.Version != i.Version:
			changed++
		}
		delete(was, k)
	}
	var parts []string
	if plus > 0 {
		parts = append(parts, fmt.Sprintf("+%d", plus))
	}
	if len(was) > 0 {
		parts = append(parts, fmt.Sprintf("-%d", len(was)))
	}
	if changed > 0 {
		parts = append(parts, fmt.Sprintf("%d changed", changed))
	}
	return parts
}

// structure is what of an entry makes the way to it.
func structure(e endpoints.Entry) string {
	return fmt.Sprint(e.Protocol, e.Routes, e.Port, e.Default)
}

func served(entries []endpoints.Entry) map[string]endpoints.Entry {
	m := map[string]endpoints.Entry{}
	for _, e := range entries {
		if e.Served() {
			m[e.Name] = e
		}
	}
	return m
}

func names(a, b map[string]endpoints.Entry) []string {
	var all []string
	for name := range a {
		all = append(all, name)
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// count is how many services are served, and by how many instances.
func count(entries []endpoints.Entry) (services, instances int) {
	for _, e := range served(entries) {
		services++
		instances += len(e.Rotation())
	}
	return services, instances
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// are is "1 service is" or "2 services are".
func are(n int, what string) string {
	if n == 1 {
		return plural(n, what) + " is"
	}
	return plural(n, what) + " are"
}
