package access

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lbctl/internal/kv"
)

// NetworksNames begins the names of the documents with rules, for kv.Store.List. There are many, so
// that each is small: a change writes one of them, and Consul's limit for a value is 512 KiB. A
// network's document is chosen by its hash.
const NetworksNames = "access/networks/"

const shards = 256 // never to be changed: the documents in Consul depend on it

// shardOf returns the name of the document that has the rules for a network.
func shardOf(p netip.Prefix) string {
	h := fnv.New32a()
	h.Write([]byte(p.String()))
	return fmt.Sprintf("%s%02x", NetworksNames, h.Sum32()%shards)
}

// storedRules is a document with rules. A command writes many networks, so what it said is
// there once.
type storedRules struct {
	Writes []storedWrite `json:"writes"`
	// Networks has the places in Writes, one for each service, by network.
	Networks map[string][]int `json:"networks"`
}

type storedWrite struct {
	Service string    `json:"service,omitempty"`
	Allow   bool      `json:"allow,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Why     string    `json:"why,omitempty"`
}

// parseRules reads the document with a name, strictly. A document with a mistake has no rules.
func parseRules(name string, value []byte) ([]Rule, error) {
	var s storedRules
	if err := kv.Decode(value, &s); err != nil {
		return nil, err
	}
	writes := make([]*Write, len(s.Writes))
	for n, w := range s.Writes {
		if w.Service != "" {
			if err := CheckService(w.Service); err != nil {
				return nil, fmt.Errorf("write %d: %w", n, err)
			}
		}
		write := Write(w)
		writes[n] = &write
	}
	rules := make([]Rule, 0, len(s.Networks))
	for text, places := range s.Networks {
		network, err := parseNetwork(text)
		if err != nil {
			return nil, err
		}
		if NetworkText(network) != text {
			return nil, fmt.Errorf("network %q: want %q", text, NetworkText(network))
		}
		if want := shardOf(network); want != name {
			return nil, fmt.Errorf("network %q is in document %q, want it in %q: write it with lbctl deny", text, name, want)
		}
		services := map[string]bool{}
		for _, n := range places {
			if n < 0 || n >= len(writes) {
				return nil, fmt.Errorf("network %q: write %d is not there, want 0 to %d", text, n, len(writes)-1)
			}
			if services[writes[n].Service] {
				return nil, fmt.Errorf("network %q has two rules for service %q, want one", text, writes[n].Service)
			}
			services[writes[n].Service] = true
			rules = append(rules, Rule{network, writes[n]})
		}
	}
	return rules, nil
}

// formatRules makes a document of rules; nil if there are none.
func formatRules(rules []Rule) ([]byte, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	s := storedRules{Networks: map[string][]int{}}
	places := map[storedWrite]int{}
	slices.SortFunc(rules, compareRules)
	for _, r := range rules {
		w := storedWrite(*r.Write)
		w.Until, w.At = w.Until.UTC().Truncate(time.Second), w.At.UTC().Truncate(time.Second)
		place, ok := places[w]
		if !ok {
			place = len(s.Writes)
			places[w] = place
			s.Writes = append(s.Writes, w)
		}
		text := NetworkText(r.Network)
		s.Networks[text] = append(s.Networks[text], place)
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(s)
	return b.Bytes(), err
}

// compareRules sorts a network before those in it, and rules for every service first.
func compareRules(a, b Rule) int {
	if c := comparePrefix(a.Network, b.Network); c != 0 {
		return c
	}
	return strings.Compare(a.Service, b.Service)
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// ReadRules returns the rules in the documents of List(ctx, "access/networks/"), sorted, without
// those that are over, and the mistakes in broken documents.
func ReadRules(documents []kv.Document, now time.Time) (all []Rule, broken []Problem) {
	for _, d := range documents {
		rules, err := parseRules(d.Name, d.Value)
		if err != nil {
			broken = append(broken, Problem{d.Name, err.Error()})
			continue
		}
		all = append(all, slices.DeleteFunc(rules, func(r Rule) bool { return r.Over(now) })...)
	}
	slices.SortFunc(all, compareRules)
	return all, broken
}

// Edits returns the edits that replace the rules in the documents by others. Documents that stay
// the same are left alone, and broken ones too: it is an error if one of the rules belongs into
// them, a Problem.
func Edits(documents []kv.Document, rules []Rule, broken []Problem) ([]kv.Edit, error) {
	wanted := map[string][]Rule{}
	for _, r := range rules {
		name := shardOf(r.Network)
		wanted[name] = append(wanted[name], r)
	}
	for _, p := range broken {
		if wanted[p.Document] != nil {
			return nil, p
		}
	}
	before := map[string]kv.Document{}
	for _, d := range documents {
		if slices.ContainsFunc(broken, func(p Problem) bool { return p.Document == d.Name }) {
			continue
		}
		before[d.Name] = d
		if wanted[d.Name] == nil {
			wanted[d.Name] = []Rule{}
		}
	}
	var edits []kv.Edit
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		value, err := formatRules(wanted[name])
		if err != nil {
			return nil, err
		}
		if len(value) > kv.MaxDocument {
			return nil, fmt.Errorf("there are too many rules: document %q would have %d bytes, want at most %d", name, len(value), kv.MaxDocument)
		}
		document := before[name]
		document.Name = name
		if !bytes.Equal(value, document.Value) {
			edits = append(edits, kv.Edit{Before: document, Value: value, Unrecorded: true})
		}
	}
	return edits, nil
}
