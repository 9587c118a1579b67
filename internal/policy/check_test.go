package policy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestValidChecks(t *testing.T) {
	for _, c := range []Check{"", "tcp", "none", "http:/", "http://host/", "http:/health?full=1", "grpc", "grpc:pkg.Service", "grpc:pkg_1.Service-2/x"} {
		assert.True(t, c.Valid(), c)
	}
	for _, c := range []Check{"TCP", "http", "http:", "http:health", "http:/a b", "http:/%zz", "http:/\r\nHost: x", "grpc:", "grpc:a b",
		"protocol", "https:/", "http:/" + Check(strings.Repeat("x", 300))} {
		assert.False(t, c.Valid(), c)
	}
}
