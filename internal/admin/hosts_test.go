package admin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHosts has the host names that the API accepts over TCP. It refuses a web page whose own
// name resolves to this machine.
func TestHosts(t *testing.T) {
	server := newServer(&fake{current: 3})
	server.AllowedHosts = []string{"lb.example.com", "*.Example.org"}
	unix, tcp := serveServer(t, server)
	own, err := os.Hostname()
	require.NoError(t, err)
	for host, want := range map[string]int{
		"localhost":             200,
		"LOCALHOST:9119":        200,
		"lbctl.localhost:9119":  200,
		"127.0.0.1:9119":        200,
		"127.9.9.9":             200,
		"[::1]:9119":            200,
		"[::1]":                 200,
		"[fe80::1%25eth0]:9119": 200,
		"192.168.157.5:9119":    200, // a container doesn't know its published address
		own:                     200,
		own + ".:9119":          200,
		"lb.example.com":        200,
		"lb.example.com.":       200,
		"a.b.example.org:80":    200,
		"":                      200, // HTTP/1.0

		"evil.example":                421,
		"evil.example:9119":           421,
		"example.org":                 421,
		"notexample.org":              421,
		"lb.example.com.evil.com":     421,
		"127.0.0.1.evil.com:9119":     421,
		"localhost.evil.com":          421,
		"notlocalhost":                421,
		"evil.example:9119@127.0.0.1": 400,
	} {
		for _, path := range []string{"/v1/status", "/readyz", "/healthz"} {
			status, body := askAs(t, tcp, host, path)
			if want != 400 {
				assert.Equal(t, want, status, "%q %s", host, path)
			} else {
				assert.Contains(t, []int{400, 421}, status)
			}
			if status == 421 {
				assert.Contains(t, body, "--admin-allowed-hosts")
			}
		}
	}
	client, err := NewClient("unix://" + unix)
	require.NoError(t, err)
	_, err = client.Status(t.Context())
	assert.NoError(t, err, "the unix socket accepts every name")
}

func TestAnyHost(t *testing.T) {
	server := newServer(&fake{current: 3})
	server.AllowedHosts = []string{"*"}
	_, tcp := serveServer(t, server)
	status, _ := askAs(t, tcp, "evil.example", "/readyz")
	assert.Equal(t, 200, status)
}

func TestCheckAllowedHost(t *testing.T) {
	for _, good := range []string{"*", "lb", "lb.example.com", "*.example.org", "load_balancer", "10.0.0.1"} {
		assert.NoError(t, CheckAllowedHost(good), good)
	}
	for _, bad := range []string{"", "lb:9119", "http://lb", "a.*.b", "*lb", "**", "lb.", "a b", "-a"} {
		assert.ErrorContains(t, CheckAllowedHost(bad), "*.example.org", bad)
	}
}

// askAs sends a request with a Host header that an http.Client might not send.
func askAs(t *testing.T, address, host, path string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	request := "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"
	if host == "" {
		request = "GET " + path + " HTTP/1.0\r\n\r\n"
	}
	_, err = io.Copy(conn, strings.NewReader(request))
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}
