package integration

import (
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"
)

// A file of tls.* that nginx can't load costs its own service its newest change, and no other.
func TestABadFileOfUpstreamTLSCostsItsServiceTheNewestChangeOnly(t *testing.T) {
	s, _, _ := startInACrowd(t)
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "secure", Name: "secure", Address: "127.0.0.1", Port: 7001,
		Meta: map[string]string{"lb-protocol": "https", "lb-path": "/secure", "lb-check": "none"},
	}))
	s.servesPolicies(s.policy(t, "service/secure", `{"tls.server-name": "good.internal"}`))
	s.wrote("http.conf", "proxy_ssl_name good.internal;")

	s.policy(t, "service/secure", `{"tls.server-name": "bad.internal", "tls.verify": true, "tls.ca": "/nowhere/ca.pem"}`)
	s.problem("service secure", "/nowhere/ca.pem")
	s.policy(t, "service/"+other(1), `{"timeout.read": "79s"}`)
	s.wrote("grpc.conf", "grpc_read_timeout 79s;")
	s.wrote("http.conf", "proxy_ssl_name good.internal;")

	s.servesPolicies(s.policy(t, "service/secure", `{"tls.server-name": "better.internal"}`))
	s.wrote("http.conf", "proxy_ssl_name better.internal;")
	s.withoutProblems()
}
