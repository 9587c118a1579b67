package render

import (
	"fmt"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/policy"
)

// usablePolicy is the policy of a service without what nginx or its protocol can't have.
type usablePolicy struct {
	said     policy.Settings
	protocol endpoints.Protocol
	usable   policy.Settings
	problems []policy.Problem
}

// messages returns the messages of the problems.
func (u usablePolicy) messages() (all []string) {
	for _, p := range u.problems {
		all = append(all, p.Message)
	}
	return all
}

// policy returns the usable policy of a service, and reports what is left out.
func (b *builder) policy(e endpoints.Entry) policy.Settings {
	if e.Policy.IsZero() {
		return e.Policy
	}
	family := e.Protocol.Family()
	u, ok := b.policiesBefore[e.Name]
	if !ok || u.protocol != e.Protocol || !u.said.Equal(e.Policy) {
		u = usablePolicy{said: e.Policy, protocol: e.Protocol}
		u.usable, u.problems = e.Policy.For(family, b.settings.NginxVersion, func(version string) bool {
			enough, err := nginx.AtLeast(b.settings.NginxVersion, version)
			return err == nil && enough
		})
		if family != policy.TCP && !e.Protocol.TLS() {
			usable, problems := u.usable.Without(tlsFields, fmt.Sprintf("it has no effect on a service with the protocol %s, want %ss", e.Protocol, e.Protocol))
			u.usable, u.problems = usable, append(u.problems, problems...)
		}
	}
	b.policies[e.Name] = u
	for _, p := range u.problems {
		b.problems = append(b.problems, Problem{Subject: ServiceSubject(e.Name), Message: p.Message, Sources: p.Sources})
	}
	return u.usable
}

// policyProblem reports a problem of the values that fields have for the requests of a path; ""
// is the whole service.
func (b *builder) policyProblem(service string, said policy.Settings, path policy.Path, fields []string, format string, args ...any) {
	p := Problem{Subject: ServiceSubject(service), Message: fmt.Sprintf(format, args...), Sources: said.Sources(path, fields...)}
	if len(p.Sources) > 0 {
		p.Message = p.Sources[0] + ": " + p.Message
	}
	b.problems = append(b.problems, p)
}
