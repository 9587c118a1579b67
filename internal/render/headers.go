package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"lbctl/internal/nginx"
	"lbctl/internal/policy"
)

// Header is what nginx does with one header.
type Header struct {
	Name string
	// Keep is true if those with the name pass that came with the request or the answer.
	Keep   bool
	Values []string // to add, for the function quoteHeader
	// Missing has a value for answers in which an instance has no such header: see Variable.
	Missing string
}

// Variable is the end of the name of nginx's variables for the header: "x_team_id".
func (h Header) Variable() string { return strings.ToLower(strings.ReplaceAll(h.Name, "-", "_")) }

// RequestHeaders returns what the policy changes in the headers of requests.
func (l Location) RequestHeaders() []Header {
	all := append(headers(l.Policy.Headers.Request), l.forwardedPrefix()...)
	if l.Protocol.Family() == policy.GRPC { // the listener of HTTP lets no "_" in
		all = withOtherForms(all)
	}
	return all
}

// ResponseHeaders returns what the policy changes in the headers of answers.
func (l Location) ResponseHeaders() []Header {
	all := slices.DeleteFunc(headers(l.Policy.Headers.Response), func(h Header) bool {
		return l.CORS() != "" && slices.Contains(CORSHeaders, h.Name)
	})
	if l.Policy.Headers.Security != policy.On {
		return all
	}
	for _, preset := range securityHeaders {
		if !slices.ContainsFunc(all, func(h Header) bool { return h.Name == preset.Name }) {
			all = append(all, preset)
		}
	}
	return all
}

// SecurityHeaders returns the headers of headers.security, if a policy of the listener has it.
func (f Frontend) SecurityHeaders() []Header {
	if f.any(func(p *policy.Policy) bool { return p.Headers.Security == policy.On }) {
		return securityHeaders
	}
	return nil
}

// HSTS reports whether a host of the listener has it.
func (f Frontend) HSTS() bool {
	return slices.ContainsFunc(f.Hosts, func(h Host) bool { return h.HSTS })
}

var securityHeaders = []Header{
	{Name: "Content-Security-Policy", Keep: true, Missing: "frame-ancestors 'self'"},
	{Name: "Referrer-Policy", Keep: true, Missing: "strict-origin-when-cross-origin"},
	{Name: "X-Content-Type-Options", Keep: true, Missing: "nosniff"},
	{Name: "X-Frame-Options", Keep: true, Missing: "SAMEORIGIN"},
}

func headers(c policy.HeaderChanges) []Header {
	var all []Header
	at := func(name string) *Header {
		n := slices.IndexFunc(all, func(h Header) bool { return h.Name == name })
		if n < 0 {
			n = len(all)
			all = append(all, Header{Name: name, Keep: true})
		}
		return &all[n]
	}
	for _, name := range c.Remove {
		at(name).Keep = false
	}
	for _, p := range c.Set {
		h := at(p.Name)
		h.Keep, h.Values = false, []string{p.Value}
	}
	for _, p := range c.Add {
		h := at(p.Name)
		h.Values = append(h.Values, p.Value)
	}
	slices.SortFunc(all, func(a, b Header) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// any reports whether a policy of one of the locations is like that.
func (f Frontend) any(like func(*policy.Policy) bool) bool {
	found := false
	f.each(func(l Location) { found = found || like(l.Policy) })
	return found
}

// each calls visit for every location with a service.
func (f Frontend) each(visit func(Location)) {
	for _, h := range f.Hosts {
		for _, all := range [][]Location{h.Locations, h.Named} {
			for _, l := range all {
				if l.Service != "" {
					visit(l)
				}
			}
		}
	}
}

// placeholders has nginx's variables for policy.HeaderPlaceholders.
var placeholders = map[string]string{
	"{host}":           "${lb_host}",
	"{remote-address}": "${remote_addr}",
	"{request-id}":     "${lb_request_id}",
	"{scheme}":         "${lb_scheme}",
	"{service}":        "${lb_service}",
}

// quoteHeader writes the value of a header as one word of nginx's configuration, with variables
// for its placeholders.
func quoteHeader(value string) (string, error) {
	word, err := nginx.Quote(value) // it has no other variables
	if err != nil {
		return "", err
	}
	for _, placeholder := range policy.HeaderPlaceholders {
		variable, ok := placeholders[placeholder]
		if !ok {
			return "", fmt.Errorf("header %q: no variable for %s", value, placeholder)
		}
		word = strings.ReplaceAll(word, placeholder, variable)
	}
	return word, nil
}
