package render

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPolicyProblems(t *testing.T) {
	of := func(service, message string, sources ...string) Problem {
		return Problem{Subject: "service " + service, Message: message, Sources: sources}
	}
	problems := []Problem{
		of("cart", "lb/default: check tcp: it has no effect", "lb/default"),
		of("cart", "lb/service/cart: limit: it has no effect", "lb/service/cart"),
		of("stock", "lb/default: check tcp: it has no effect", "lb/default"),
		of("cart", "quarantined: nginx refuses it"),
		of("web", "lb/default: check tcp: it has no effect", "lb/default"),
		of("cart", "metadata: a: it has no effect with b of lb/service/cart", "metadata", "lb/service/cart"),
	}
	assert.Equal(t, []string{"check tcp: it has no effect (service cart and 2 more)"}, PolicyProblems(problems, "lb/default"))
	assert.Equal(t, []string{"limit: it has no effect", "metadata: a: it has no effect with b of lb/service/cart"},
		PolicyProblems(problems, "lb/service/cart"), "both layers have a part in it")
	assert.Empty(t, PolicyProblems(problems, "lb/service/car"))
}

// TestProblemsNameTheirLayer: each problem of a policy's value says who says the value, so that
// policy list, doctor and policy --wait can show it with that policy.
func TestProblemsNameTheirLayer(t *testing.T) {
	c, err := offline(Options{Settings: testSettings("1.30.6")}, byOperator(map[string][]string{
		"web": {"outlier.error-rate", "50", "mirror.service", "nobody", "cors.allow-origins", "*", "tls.verify", "on"},
	},
		one("web", 80, meta("lb-protocol", "http", "lb-cors-allow-credentials", "on", "lb-tls-server-name", "a")),
	), testNames())
	assert.NoError(t, err)
	sources := map[string][]string{}
	for _, p := range c.Problems {
		sources[p.Message] = p.Sources
	}
	assert.Equal(t, map[string][]string{
		"lb/service/web: its circuit breaker (outlier.consecutive-errors, outlier.error-rate) does nothing, because nginx has no access log: give lbctl a directory on a tmpfs with --access-log-dir": {"lb/service/web"},
		`lb/service/web: mirror.service "nobody": there is no HTTP or gRPC service of that name with a route`:                                                                                         {"lb/service/web"},
		`metadata: cors.allow-credentials on: it has no effect with cors.allow-origins ["*"] of lb/service/web, want the origins by name`:                                                             {"metadata", "lb/service/web"},
		"lb/service/web: tls.verify on: it has no effect without tls.ca, the file of the authorities":                                                                                                 {"lb/service/web"},
		"metadata: tls.server-name a: it has no effect on a service with the protocol http, want https":                                                                                               {"metadata"},
		"lb/service/web: tls.verify on: it has no effect on a service with the protocol http, want https":                                                                                             {"lb/service/web"},
	}, sources)
}
