package render

import (
	"slices"
	"strings"
	"time"

	"lbctl/internal/access"
	"lbctl/internal/consul"
	"lbctl/internal/kv"
)

// The files with the denied networks, which lbctl adds to those of the templates. They are
// files of their own because there may be a hundred thousand networks.
const (
	networksGeo = "networks.geo"      // for the block geo, HTTP and gRPC
	networksTCP = "networks-tcp.conf" // for TCP services without rules of their own
)

// NetworksGeo returns the name of the file for nginx's block geo: see access.Networks.Geo.
func (c Catalog) NetworksGeo() string { return networksGeo }

// NetworksTCP returns the name of the file with the directives allow and deny for all TCP services.
func (c Catalog) NetworksTCP() string { return networksTCP }

// Networks returns the name of the file with the directives allow and deny for a TCP service that
// has rules of its own; "" if it has none.
func (t TCPService) Networks(networks *access.Networks) string {
	if networks.Own(t.Upstream.Service) {
		return "networks-" + t.Upstream.Name + ".conf"
	}
	return ""
}

// numbered is a service of a shared port that has rules of its own.
type numbered struct {
	Number   int // of the service in the block geo
	Upstream string
}

// Networks returns the services of the port that have rules of their own.
func (p SharedPort) Networks(networks *access.Networks) (own []numbered) {
	for _, s := range p.Services {
		if k := networks.Number(s.Upstream.Service); k > 0 {
			own = append(own, numbered{k, s.Upstream.Name})
		}
	}
	return own
}

// NetworksShared reports whether any service of a shared port has rules of its own.
func (c Catalog) NetworksShared() bool {
	return slices.ContainsFunc(c.SharedTCP, func(p SharedPort) bool { return len(p.Networks(c.networks)) > 0 })
}

// networksUnused is the problem of denied networks that the operator's own templates ignore.
var networksUnused = Problem{
	Subject: "access",
	Message: "the denied networks are not in force: no template uses catalog.Networks, see \"Templates of your own\" in docs/access.md",
}

// addNetworks adds the files with the denied networks.
func addNetworks(files map[string][]byte, c Catalog) {
	if c.networks == nil {
		return
	}
	files[networksGeo] = c.networks.Geo()
	if len(c.TCP) == 0 && len(c.SharedTCP) == 0 {
		return
	}
	files[networksTCP] = c.networks.Lines("")
	for _, tcp := range c.TCP {
		if name := tcp.Networks(c.networks); name != "" {
			files[name] = c.networks.Lines(tcp.Upstream.Service)
		}
	}
}

// prefixes returns the prefixes of the keys in Consul that are followed.
func (s *Source) prefixes() []string {
	if s.opts.AccessKeys == "" {
		return nil
	}
	return []string{s.opts.AccessKeys}
}

// followAccess passes the documents about access to their keeper.
func (s *Source) followAccess() {
	if s.opts.AccessKeys == "" {
		return
	}
	documents, known, _ := s.consul.Documents(s.opts.AccessKeys)
	if !known {
		return
	}
	// Only after their keeper has the documents.
	defer s.setAccessIndex(s.consul.DocumentsIndex(s.opts.AccessKeys))
	if sameDocuments(documents, s.accessDocuments) {
		return
	}
	s.accessDocuments = documents
	named := make([]kv.Document, len(documents))
	for n, d := range documents {
		named[n] = kv.Document{Name: kv.AccessNames + strings.TrimPrefix(d.Key, s.opts.AccessKeys), Value: d.Value, Index: d.Index}
	}
	s.access.Observe(named)
	var problems []Problem
	for _, p := range s.access.Problems() {
		problems = append(problems, Problem{Subject: "access", Message: "key " + s.opts.AccessKeys + strings.TrimPrefix(p.Document, kv.AccessNames) + " in Consul: " + p.Message})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logNew("document about access can't be used", s.documents.set(time.Now(), problems))
}

func (s *Source) setAccessIndex(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accessIndex = index
}

// sameDocuments reports whether both are the same answer of Consul.
func sameDocuments(a, b []consul.Document) bool {
	return len(a) == len(b) && a != nil && b != nil && (len(a) == 0 || &a[0] == &b[0])
}

// accessKnown reports whether the rules about networks are known, so that there can be a
// configuration. Without a snapshot it waits for Consul, but not for ever: a token that may
// not read the documents is an operator's mistake, and no reason to serve nobody.
func (s *Source) accessKnown() bool {
	if s.opts.AccessKeys == "" || s.access.Known() {
		return true
	}
	_, _, refused := s.consul.Documents(s.opts.AccessKeys)
	return refused != nil || time.Since(s.started) >= firstAnswers
}
