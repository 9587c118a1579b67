package daemon

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNoFigures(t *testing.T) {
	assert.Empty(t, NginxConfig{AccessLog: AccessLogOn}.noFigures(true))
	assert.Empty(t, NginxConfig{}.noFigures(true))
	assert.Contains(t, NginxConfig{AccessLog: AccessLogOff}.noFigures(true), "--access-log on", "services with a circuit breaker are logged, the others are not")
	assert.Contains(t, NginxConfig{}.noFigures(false), "--access-log-dir DIR")
}
