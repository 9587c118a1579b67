package render

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPolicyProblems(t *testing.T) {
	problems := []Problem{
		{Subject: "service cart", Message: "lb/default: check tcp: it has no effect"},
		{Subject: "service cart", Message: "lb/service/cart: limit: it has no effect"},
		{Subject: "service stock", Message: "lb/default: check tcp: it has no effect"},
		{Subject: "service cart", Message: "quarantined: nginx refuses it"},
		{Subject: "service web", Message: "lb/default: check tcp: it has no effect"},
	}
	assert.Equal(t, []string{"check tcp: it has no effect (service cart and 2 more)"}, PolicyProblems(problems, "lb/default"))
	assert.Equal(t, []string{"limit: it has no effect"}, PolicyProblems(problems, "lb/service/cart"))
	assert.Empty(t, PolicyProblems(problems, "lb/service/car"))
}
