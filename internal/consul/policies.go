package consul

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/policy"
)

// policies adds the operator's documents in the KV store to what services say. Each document
// counts as in its last good version.
type policies struct {
	prefix string // of the keys: "lb/"; empty: there are no documents
	table  *endpoints.Table

	answered  bool
	index     uint64                      // Consul's, of the answer
	documents map[string]operatorDocument // by key
	problems  []Problem
	refused   []Problem // that nginx refuses the document for all services; at most one
	// all has the settings of a service that says nothing and has no document.
	all policy.Settings
}

// operatorDocument is a document in the KV store.
type operatorDocument struct {
	index   uint64          // Consul's ModifyIndex of the newest version
	newest  policy.Document // that version, if it can be read
	layer   policy.Layer    // with the version that counts
	problem string          // why the newest version can't be read; empty if it can
}

// defaultKey has the document for all services, and serviceKeys begins the keys of the
// documents for one.
const (
	defaultKey  = "default"
	serviceKeys = "service/"
)

// layerOf returns the empty layer of a document; false if lbctl knows no such key.
func (p *policies) layerOf(key string) (layer policy.Layer, service string, ok bool) {
	name, ok := strings.CutPrefix(key, p.prefix)
	if !ok {
		return policy.Layer{}, "", false
	}
	if name == defaultKey {
		return policy.Layer{Level: policy.LevelDefault, Source: key}, "", true
	}
	service, ok = strings.CutPrefix(name, serviceKeys)
	return policy.Layer{Level: policy.LevelService, Source: key}, service, ok && metadata.ValidName(service)
}

// update takes Consul's answer. It returns the services whose settings it may change; all is
// true if it may change those of all.
func (p *policies) update(found documents) (changed map[string]bool, all bool) {
	before := p.documents
	all = !p.answered
	p.answered, p.index, p.problems = true, found.index, nil
	p.documents = make(map[string]operatorDocument, len(found.all))
	changed = map[string]bool{}
	note := func(key string) {
		if _, service, _ := p.layerOf(key); service != "" {
			changed[service] = true
		} else {
			all = true
		}
	}
	for _, d := range found.all {
		layer, service, ok := p.layerOf(d.Key)
		if !ok {
			if !strings.HasSuffix(d.Key, "/") { // Consul's UI makes such keys as folders
				p.problems = append(p.problems, Problem{Key: d.Key, Message: fmt.Sprintf("unknown key, want %s%s or %s%sNAME; 'consul kv delete %s' removes it", p.prefix, defaultKey, p.prefix, serviceKeys, d.Key)})
			}
			continue
		}
		known, ok := before[d.Key]
		if !ok || known.index != d.Index {
			known = p.parse(d, layer, service, known)
			note(d.Key)
		}
		p.documents[d.Key] = known
		if known.problem != "" {
			p.problems = append(p.problems, Problem{Service: service, Key: d.Key, Message: known.problem})
		}
	}
	for key := range before {
		if _, ok := p.documents[key]; !ok {
			note(key)
		}
	}
	p.all = policy.Resolve(p.documents[p.defaultKey()].layer)
	p.reconsiderDefault(time.Now())
	return changed, all
}

// defaultKey returns the key of the document for all services.
func (p *policies) defaultKey() string { return p.prefix + defaultKey }

// parse reads a document. If it is invalid, the last good version counts: the one before, or
// the one that the table remembers.
func (p *policies) parse(d Document, layer policy.Layer, service string, before operatorDocument) operatorDocument {
	document, err := policy.ParseDocument(d.Value)
	if err == nil {
		layer.Document = document
		return operatorDocument{index: d.Index, newest: document, layer: layer}
	}
	if before.index == 0 {
		layer.Document = p.remembered(layer.Level, service)
	} else {
		layer.Document = before.layer.Document
	}
	problem := fmt.Sprintf("%s: %s; %s", d.Key, strings.ReplaceAll(err.Error(), "\n", "; "), kept(layer.Document))
	return operatorDocument{index: d.Index, layer: layer, problem: problem}
}

// kept says what counts instead of a document's newest version.
func kept(document policy.Document) string {
	if document.IsZero() {
		return "it is left out, because there is no earlier good version"
	}
	return "its last good version is kept"
}

// remembered returns the document of a level that the table knows: from the snapshot, before
// Consul has answered.
func (p *policies) remembered(level policy.Level, service string) policy.Document {
	if service != "" {
		known, _ := p.table.Remembered(service)
		return known.Policy.Layer(level)
	}
	for _, e := range p.table.Entries() {
		if d := e.Policy.Layer(level); !d.IsZero() {
			return d
		}
	}
	return policy.Document{}
}

// of returns the settings of a service. Until Consul has answered, the operator's documents are
// those that the table remembers.
func (p *policies) of(s endpoints.Service) policy.Settings {
	if p.prefix == "" || s.OK && s.Protocol == "" {
		return s.Policy
	}
	said := policy.Metadata(s.Policy.Layer(policy.LevelMetadata))
	if !p.answered {
		known, _ := p.table.Remembered(s.Name)
		return known.Policy.Replace(said)
	}
	own := p.documents[p.prefix+serviceKeys+s.Name].layer
	switch {
	case said.Document.IsZero() && own.Document.IsZero():
		return p.all
	case p.all.IsZero() && own.Document.IsZero():
		if len(s.Policy.Layers()) == 1 {
			return s.Policy // says nothing else
		}
		return policy.Resolve(said) // without the operator's documents that there were before
	}
	return policy.Resolve(p.documents[p.defaultKey()].layer, said, own)
}

// takePolicies takes Consul's answer about the operator's documents.
func (f *Follower) takePolicies(found documents) {
	changed, all := f.policies.update(found)
	f.setPolicies(func(service string) bool { return all || changed[service] })
}

// setPolicies gives the services of Consul's answers their settings, where they may have changed.
func (f *Follower) setPolicies(mayChange func(service string) bool) {
	for n := range f.services {
		if s := &f.services[n]; s.answered && mayChange(s.name) {
			f.setPolicy(s)
		}
	}
}

// setPolicy gives a service its settings, and a new revision if they are others.
func (f *Follower) setPolicy(s *followed) {
	settings := f.policies.of(s.service)
	if settings.Equal(s.service.Policy) {
		return
	}
	f.revision++
	s.service.Policy, s.service.Revision = settings, f.revision
}

// PoliciesKnown reports whether the operator's documents are known, or waiting for them is
// pointless because the token may not read them.
func (f *Follower) PoliciesKnown() bool {
	if f.policies.prefix == "" || f.policies.answered {
		return true
	}
	_, _, refused := f.Documents(f.policies.prefix)
	return refused != nil
}

// PolicyProblems returns the problems of the operator's documents.
func (f *Follower) PolicyProblems() []Problem {
	return slices.Concat(f.policies.problems, f.policies.refused)
}

// PolicyIndex returns Consul's index of the newest answer about the operator's documents: every
// write with a lower or the same index is in it. It is 0 before there is an answer.
func (f *Follower) PolicyIndex() uint64 { return f.policies.index }
