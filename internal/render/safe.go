package render

import "lbctl/internal/policy"

// Safe returns the upstream for gRPC methods that may be sent twice. They need one of their own,
// because their connections can't serve grpc_pass. It is nil if no method needs it.
func (u Upstream) Safe() *Upstream {
	if u.Protocol.Family() != policy.GRPC {
		return nil
	}
	for _, path := range u.Spec.Policy.Paths() {
		if u.Spec.Policy.At(path).Retry.Safe == policy.On {
			u.block = safeSuffix
			return &u
		}
	}
	return nil
}

// safeSuffix can't be the end of the name of another upstream, which has no ".".
const safeSuffix = ".safe"

// Block returns the name of nginx's upstream block.
func (u Upstream) Block() string { return u.Name + u.block }

// SafeGRPC reports whether the location's calls may be sent twice. Then nginx sends them by
// proxy_pass, with another upstream.
func (l Location) SafeGRPC() bool {
	return l.Service != "" && l.Protocol.Family() == policy.GRPC && l.Policy.Retry.Safe == policy.On
}

// Pass returns the argument of the directive that sends the location's requests.
func (l Location) Pass() string {
	if !l.SafeGRPC() {
		return string(l.Protocol) + "://" + l.Upstream
	}
	if l.Protocol.TLS() {
		return "https://" + l.Upstream + safeSuffix
	}
	return "http://" + l.Upstream + safeSuffix
}
