package registration

import (
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

// Consul accepts a weight of 0 for the status warning, but not for passing. The registrar has
// the same limits.
func TestWeightsThatConsulTakes(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	run(t, config(t, agent, "--weight=10/0"))
	got := awaitStatus(t, agent, "web", api.HealthPassing)
	assert.Equal(t, api.AgentWeights{Passing: 10, Warning: 0}, got.Service.Weights)

	for _, test := range []struct {
		weights api.AgentWeights
		taken   bool
	}{
		{api.AgentWeights{Passing: 65535, Warning: 65535}, true},
		{api.AgentWeights{Passing: 0, Warning: 1}, false},
		{api.AgentWeights{Passing: 65536, Warning: 1}, false},
		{api.AgentWeights{Passing: 1, Warning: -1}, false},
	} {
		err := agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "other", Name: "other", Weights: &test.weights})
		assert.Equal(t, test.taken, err == nil, "%+v: %v", test.weights, err)
	}
	for _, value := range []string{"0", "0/1", "65536", "1/-1"} {
		var c Config
		require.Error(t, setWeight(&c, []string{value}), value)
	}
}
