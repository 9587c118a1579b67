package endpoints

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestValidate(t *testing.T) {
	good := Instance{ID: "a", Node: "n", Address: "10.0.0.1", Port: 7777, Weight: 1, Status: Passing}
	for _, address := range []string{"10.0.0.1", "::1", "server-1", "server_1.example.com", "example.com."} {
		i := good
		i.Address = address
		assert.NoError(t, i.Validate(), address)
	}
	for _, address := range []string{"", "10.0.0.1:80", "a b", "a;b", "a}", "fe80::1%eth0", "-a", "a..b", "ä", "$host", "unix:/x", "."} {
		i := good
		i.Address = address
		assert.ErrorContains(t, i.Validate(), "want an IP address or a host name", address)
	}
	err := Instance{ID: "x", Address: "a", Port: 70000, Weight: -1, Status: "odd"}.Validate()
	assert.EqualError(t, err, `instance "x": port "70000", want 1 to 65535`+"\n"+
		`instance "x": weight "-1", want 0 to 65535`+"\n"+
		`instance "x": status "odd", want "passing", "warning", "critical" or "maintenance"`)
}

func TestHostPort(t *testing.T) {
	assert.Equal(t, "[::1]:7777", Instance{Address: "::1", Port: 7777}.HostPort())
	assert.Equal(t, "server:7777", Instance{Address: "server", Port: 7777}.HostPort())
}

func TestProtocolFamily(t *testing.T) {
	for p, want := range map[Protocol]string{GRPC: "grpc", GRPCS: "grpc", HTTP: "http", HTTPS: "http", TCP: "tcp"} {
		assert.Equal(t, want, p.Family())
	}
}
