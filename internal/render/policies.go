package render

import (
	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/policy"
)

// usablePolicy is the policy of a service without what nginx or its protocol can't have.
type usablePolicy struct {
	said     policy.Settings
	family   string
	usable   policy.Settings
	problems []string
}

// policy returns the usable policy of a service, and reports what is left out.
func (b *builder) policy(e endpoints.Entry) policy.Settings {
	if e.Policy.IsZero() {
		return e.Policy
	}
	family := e.Protocol.Family()
	u, ok := b.policiesBefore[e.Name]
	if !ok || u.family != family || !u.said.Equal(e.Policy) {
		u = usablePolicy{said: e.Policy, family: family}
		u.usable, u.problems = e.Policy.For(family, b.settings.NginxVersion, func(version string) bool {
			enough, err := nginx.AtLeast(b.settings.NginxVersion, version)
			return err == nil && enough
		})
	}
	b.policies[e.Name] = u
	for _, problem := range u.problems {
		b.problem(e.Name, "%s", problem)
	}
	return u.usable
}
