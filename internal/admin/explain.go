package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"lbctl/internal/access"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
	"lbctl/internal/routing"
)

// A Request is a request whose way is to be explained.
type Request struct {
	// URL is grpc://HOST[:PORT]/package.Service/Method, or a URL with the scheme grpcs, http or
	// https. The port is that of a listener; without one it is the first listener of the scheme.
	URL     string
	Method  string   // of HTTP; default GET, and for gRPC always POST
	Headers []string // "Name: value"; "Host: name" replaces the host of the URL
	From    string   // the address of the client; default one without rules of its own
}

func (r Request) query() url.Values {
	return url.Values{"url": {r.URL}, "method": {r.Method}, "header": r.Headers, "from": {r.From}}
}

// The results of an explanation.
const (
	ResultService    = "service"     // an instance of Service gets the request
	ResultNoInstance = "no instance" // Service has no instance that gets traffic
	ResultNoRoute    = "no route"    // the request matches no route
	ResultRefused    = "refused"     // nginx answers itself, see Decision.Refused
	ResultDenied     = "denied"      // the client's address can't use Service
	ResultHealth     = "health"      // lbctl itself answers, with the health of services
)

// An Explanation says what becomes of a request, and why.
type Explanation struct {
	Result string `json:"result"` // ResultService and so on
	// Answer is what the client gets from nginx itself; empty with ResultService and ResultHealth.
	Answer string `json:"answer,omitempty"`
	Denied string `json:"denied,omitempty"` // why the client's address can't use Service
	// Denials is how many rules deny networks the use of Service, if the request names no client.
	Denials  int    `json:"denials,omitempty"`
	Method   string `json:"method"`
	Listener struct {
		Name      string             `json:"name"`
		Protocol  endpoints.Protocol `json:"protocol"`
		Addresses []string           `json:"addresses"`
	} `json:"listener"`
	routing.Decision
	// Key is the name of the key or password with which the request passes; empty if it needs none,
	// and if lbctl does not know.
	Key string `json:"key,omitempty"`
	// Service, Upstream, Policy and Instances are those of the way that the request takes. They
	// are empty if it takes none.
	Service  string             `json:"service,omitempty"`
	Upstream string             `json:"upstream,omitempty"`
	Policy   []policy.Explained `json:"policy"` // what nginx applies
	// LeftOut says what the policy says besides, and why nginx can't apply it.
	LeftOut []string `json:"left_out"`
	// Instances are all of the service; those in rotation may get the request.
	Instances []Instance `json:"instances"`
	// Note says why nginx may decide otherwise; empty if it does not.
	Note string `json:"note,omitempty"`
}

// errNoListener says that the URL is fine, but nginx has nothing that takes it.
var errNoListener = errors.New("there is no listener")

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	e, err := s.explanation(r.Context(), Request{URL: query.Get("url"), Method: query.Get("method"), Headers: query["header"], From: query.Get("from")})
	switch {
	case errors.Is(err, errNoListener):
		writeError(w, http.StatusNotFound, err)
	case err != nil:
		writeError(w, http.StatusBadRequest, err)
	default:
		writeJSON(w, e)
	}
}

func (s *Server) explanation(ctx context.Context, r Request) (Explanation, error) {
	target, err := parseTarget(r.URL)
	if err != nil {
		return Explanation{}, err
	}
	request, err := target.request(r)
	if err != nil {
		return Explanation{}, err
	}
	from, err := netip.ParseAddr(r.From)
	if err != nil && r.From != "" {
		return Explanation{}, fmt.Errorf("address %q of the client: want an IP address", r.From)
	}
	now := s.Controller.Routing()
	listener, err := target.listener(now.Listeners)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Method: request.Method, Policy: []policy.Explained{}, LeftOut: []string{}, Instances: []Instance{}, Note: note(now)}
	e.Listener.Name, e.Listener.Protocol, e.Listener.Addresses = listener.Name, listener.Protocol, listener.Addresses
	e.Decision = listener.Decide(request, now.Reading)
	family := listener.Protocol.Family()
	if e.Taken == nil {
		e.Result, e.Answer = ResultNoRoute, answers[family].noRoute
		if e.Refused != nil {
			e.Result, e.Answer = ResultRefused, refusal(family, *e.Refused)
		}
		return e, nil
	}
	if e.Taken.Health {
		s.explainHealth(&e, from)
		return e, nil
	}
	e.Service, e.Upstream = e.Taken.Service, e.Taken.Upstream
	e.Policy = listener.Explain(*e.Taken, e.Path)
	e.LeftOut = append(e.LeftOut, e.Taken.LeftOut...)
	inRotation := 0
	entries := s.Services.Entries()
	if n := indexOf(entries, e.Service); n >= 0 { // otherwise it has left Consul
		service := serviceOf(entries[n], s.Controller.Pinned())
		e.Instances, inRotation = service.Instances, service.InRotation
	}
	if decides := string(listener.PolicyAt(*e.Taken, e.Path).Auth.External); decides != "" && e.Refused == nil && inRotation > 0 {
		if n := indexOf(entries, decides); n < 0 || serviceOf(entries[n], s.Controller.Pinned()).InRotation == 0 {
			e.Refused = &routing.Refusal{Status: http.StatusServiceUnavailable, Reason: "nobody can let the request pass, because the service " + decides + " of auth.external has no instance in rotation"}
		}
	}
	if e.Refused == nil && e.Upstream != "" {
		s.authenticate(ctx, &e, listener, request, now.Reading)
	}
	if s.Denies != nil {
		e.Denied = s.Denies(from.Unmap(), e.Service)
	}
	if s.Denials != nil && r.From == "" && e.Denied == "" {
		e.Denials = s.Denials(e.Service)
	}
	switch {
	case e.Denied != "":
		e.Result, e.Answer, e.Refused = ResultDenied, answers[family].denied, nil
	case e.Refused != nil:
		e.Result, e.Answer = ResultRefused, refusal(family, *e.Refused)
	case inRotation == 0:
		e.Result, e.Answer = ResultNoInstance, answers[family].noInstance
	default:
		e.Result = ResultService
		return e, nil
	}
	e.Wanted, e.Key = "", ""
	return e, nil
}

// explainHealth explains a request that lbctl itself answers.
func (s *Server) explainHealth(e *Explanation, from netip.Addr) {
	if s.Denies != nil {
		e.Denied = s.Denies(from.Unmap(), "")
	}
	if e.Denied == "" && from.IsValid() && len(e.Taken.Networks) > 0 && !slices.ContainsFunc(e.Taken.Networks, func(network string) bool {
		prefix, err := netip.ParsePrefix(network)
		return err == nil && prefix.Contains(from.Unmap())
	}) {
		e.Denied = fmt.Sprintf("only %s may ask for it (--health-networks)", strings.Join(e.Taken.Networks, ", "))
	}
	family := e.Listener.Protocol.Family()
	switch {
	case e.Denied != "":
		e.Result, e.Answer, e.Refused = ResultDenied, answers[family].denied, nil
	case e.Refused != nil:
		e.Result, e.Answer = ResultRefused, refusal(family, *e.Refused)
	default:
		e.Result = ResultHealth
	}
}

// authenticate says whether the key or the password of a request lets it pass, if lbctl checks that.
func (s *Server) authenticate(ctx context.Context, e *Explanation, l routing.Listener, r routing.Request, reading routing.Reading) {
	auth := l.PolicyAt(*e.Taken, e.Path).Auth
	if s.Authenticates == nil || !auth.Wanted() || auth.External != "" {
		return
	}
	q := access.Question{Service: e.Service}
	var unknown []string
	if auth.Keys == policy.On {
		q.Kinds, unknown = append(q.Kinds, access.APIKey), append(unknown, "key")
	}
	if auth.Basic == policy.On {
		q.Kinds, unknown = append(q.Kinds, access.Basic), append(unknown, "name and password")
	}
	q.Authorization, q.APIKey = l.Credentials(r, reading)
	answer := s.Authenticates(ctx, q)
	refuse := func(format string, args ...any) {
		e.Refused = &routing.Refusal{Status: answer.Status, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case answer.Status == http.StatusNoContent:
		e.Wanted, e.Key = "", answer.Key
	case answer.Status == http.StatusForbidden:
		refuse("the key %s is not good for %s", answer.Key, e.Service)
	case answer.Status == http.StatusUnauthorized && answer.Key != "":
		refuse("the time of the key %s is over", answer.Key)
	case answer.Status == http.StatusUnauthorized:
		refuse("lbctl knows no such %s", strings.Join(unknown, ", and no such "))
	default: // Wanted says what the request needs
		e.Note = strings.TrimSpace(e.Note + " lbctl can't say now whether its key is good.")
	}
}

func indexOf(entries []endpoints.Entry, service string) int {
	return slices.IndexFunc(entries, func(e endpoints.Entry) bool { return e.Name == service })
}

// answers has nginx's own answers, by family.
var answers = map[string]struct{ noRoute, noInstance, denied string }{
	"grpc": {"UNIMPLEMENTED: no service is routed for this host and method", "UNAVAILABLE: no instance is in rotation", "PERMISSION_DENIED: not allowed"},
	"http": {"404: no service is routed for this host and path", "503: no instance is in rotation", "403: not allowed"},
}

// refusal is what a client gets of a refused request.
func refusal(family string, r routing.Refusal) string {
	code := fmt.Sprint(r.Status)
	if name, ok := map[int]string{400: "INTERNAL", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 405: "UNIMPLEMENTED", 415: "UNIMPLEMENTED", 503: "UNAVAILABLE"}[r.Status]; ok && family == "grpc" {
		code = name
	}
	return code + ": " + r.Reason
}

// target is where a URL leads.
type target struct {
	protocol  endpoints.Protocol
	authority string // as in the URL
	port      string // "" if the URL has none
	path      string // with the query, as in the URL
}

const wantURL = `want a URL like "grpc://localhost/protos.Ping/SayHello" or "http://shop.example.com/cart", with the scheme grpc, grpcs, http or https`

// parseTarget splits a URL. It keeps its path as it is, because nginx has its own rules for
// paths.
func parseTarget(text string) (target, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	t := target{protocol: endpoints.Protocol(strings.ToLower(scheme))}
	if !ok || t.protocol == endpoints.TCP || !slices.Contains(endpoints.Protocols, t.protocol) {
		return target{}, fmt.Errorf("%q: %s", text, wantURL)
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	t.authority, t.path = rest[:end], rest[end:]
	if t.authority == "" {
		return target{}, fmt.Errorf("%q has no host: %s", text, wantURL)
	}
	if t.path == "" || t.path[0] != '/' {
		t.path = "/" + t.path
	}
	if _, port, err := net.SplitHostPort(t.authority); err == nil {
		t.port = port
	}
	return t, nil
}

// request makes the request that a client sends.
func (t target) request(r Request) (routing.Request, error) {
	made := routing.Request{Method: r.Method, Target: t.path, Host: t.authority}
	grpc := t.protocol.Family() == "grpc"
	switch {
	case grpc && r.Method != "" && r.Method != http.MethodPost:
		return made, fmt.Errorf("method %q: every gRPC call is a POST", r.Method)
	case grpc:
		made.Method, made.HTTP = http.MethodPost, routing.HTTP2
	case r.Method == "":
		made.Method = http.MethodGet
	}
	for _, line := range r.Headers {
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case !ok || strings.TrimSpace(name) == "" || strings.ContainsAny(line, "\r\n"):
			return made, fmt.Errorf(`header %q: want "Name: value"`, line)
		case strings.EqualFold(name, "host"):
			made.Host = value
		default:
			made.Headers = append(made.Headers, routing.Header{Name: name, Value: value})
		}
	}
	return made, nil
}

// listener returns the listener that the URL leads to.
func (t target) listener(all []routing.Listener) (routing.Listener, error) {
	var fitting []string
	for _, l := range all {
		if l.Protocol != t.protocol {
			continue
		}
		if t.port == "" {
			return l, nil
		}
		for _, address := range l.Addresses {
			if _, port, err := net.SplitHostPort(address); err == nil && port == t.port {
				return l, nil
			}
		}
		fitting = append(fitting, fmt.Sprintf("%s at %s", l.Name, strings.Join(l.Addresses, ", ")))
	}
	switch {
	case len(all) == 0:
		return routing.Listener{}, fmt.Errorf("%w: lbctl has no configuration yet", errNoListener)
	case len(fitting) == 0:
		return routing.Listener{}, fmt.Errorf("%w for %s: 'lbctl routes' lists them", errNoListener, t.protocol)
	default:
		return routing.Listener{}, fmt.Errorf("%w for %s on port %s; there is %s", errNoListener, t.protocol, t.port, strings.Join(fitting, ", and "))
	}
}
