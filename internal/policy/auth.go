package policy

import "regexp"

// Auth says which requests must prove who sends them.
type Auth struct {
	Keys         Switch
	Basic        Switch
	External     ServiceName
	ExternalPath RequestPath
}

// ServiceName is the name of a balanced service.
type ServiceName string

// RequestPath is a path in a request of nginx itself.
type RequestPath string

// Wanted reports whether requests must prove anything.
func (a Auth) Wanted() bool { return a.Keys == On || a.Basic == On || a.External != "" }

var (
	serviceNamePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	requestPathPattern = regexp.MustCompile(`^(/[A-Za-z0-9._~@:+!-]*)+$`)
)

// authFields are for the operator alone: otherwise whoever can register an instance could turn
// off what the operator demands of all services.
var authFields = []Field{
	field("auth.keys", func(p *Policy) *Switch { return &p.Auth.Keys }, switches(), "on",
		"Whether a request must have an API key of lbctl key create, as \"Authorization: Bearer KEY\" or \"X-API-Key: KEY\". "+
			"Without a good one an HTTP client gets 401 and a gRPC client UNAUTHENTICATED; with one for other services, 403 and PERMISSION_DENIED. "+
			"If auth.basic is on too, one of both suffices. The instance gets the key's name in the header X-Lb-User.",
		defaults("off"), operatorOnly, perPath),
	field("auth.basic", func(p *Policy) *Switch { return &p.Auth.Basic }, switches(), "on",
		"Whether a request must have a name and a password of lbctl key create --basic, by basic authentication. "+
			"If auth.keys is on too, one of both suffices. The instance gets the name in the header X-Lb-User.",
		defaults("off"), operatorOnly, perPath),
	field("auth.external", func(p *Policy) *ServiceName { return &p.Auth.External },
		texts[ServiceName](`the name of a service, of letters, digits, "-" and "_"`, func(text string) bool {
			return text != BuiltIn && serviceNamePattern.MatchString(text)
		}), "authz",
		"An HTTP service of one's own that decides about each request: it gets the request's headers, without its body, and answers 2xx, 401 or 403. "+
			"It must be balanced by lbctl. Its header X-Lb-User goes to the instance. If it does not answer, clients get 503 and UNAVAILABLE. auth.keys and auth.basic then have no effect.",
		operatorOnly, perPath),
	field("auth.external-path", func(p *Policy) *RequestPath { return &p.Auth.ExternalPath },
		texts[RequestPath](`a path like "/check", of letters, digits and "._~@:+!-"`, func(text string) bool {
			return len(text) <= 256 && requestPathPattern.MatchString(text) && !nowhereSegment.MatchString(text)
		}), "/check",
		"The path that the service of auth.external is asked with. It gets the request's own address in the headers X-Original-Method and X-Original-URI.",
		defaults("/auth"), operatorOnly, perPath),
}
