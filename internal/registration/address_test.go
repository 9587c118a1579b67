package registration

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

func TestConsulAddr(t *testing.T) {
	auth := &api.HttpBasicAuth{Username: "lb", Password: "s3cret"}
	tests := []struct {
		value, address string
		auth           *api.HttpBasicAuth
	}{
		{"127.0.0.1:8500", "127.0.0.1:8500", nil},
		{"consul", "consul", nil},
		{"[::1]:8500", "[::1]:8500", nil},
		{"consul:8500/", "consul:8500", nil},
		{"http://consul:8500/", "http://consul:8500", nil},
		{"https://consul:8501//", "https://consul:8501", nil},
		{"https://proxy/consul/", "https://proxy/consul", nil},
		{"unix:///run/consul.sock", "unix:///run/consul.sock", nil},
		{"http://lb:s3cret@consul:8500/", "http://consul:8500", auth},
		{"lb:s3cret@consul:8500", "consul:8500", auth},
		{"http://lb:s3%63ret@consul:8500", "http://consul:8500", auth},
	}
	for _, test := range tests {
		t.Run(test.value, func(t *testing.T) {
			address, got, err := parseConsulAddr(test.value)
			require.NoError(t, err)
			assert.Equal(t, test.address, address)
			assert.Equal(t, test.auth, got)
		})
	}
}

func TestConsulAddrMistakes(t *testing.T) {
	for value, want := range map[string]string{
		"ftp://lb:s3cret@consul:21":        `"ftp://...@consul:21" is not the address of an agent: scheme "ftp" unknown; want `,
		"http://lb:s3cret@consul:8500/?dc": `"http://...@consul:8500/?dc" is not the address of an agent: it has a query or a fragment; want `,
		"http://lb:s3cret@consul:x":        `"http://...@consul:x" is not the address of an agent: it can't be read as a URL; want `,
		"lb:s3cr\x7f@consul:8500":          `"...@consul:8500" is not the address of an agent: it can't be read as a URL; want `,
		"http://lb:s3cret@:8500":           `"http://...@:8500" is not the address of an agent: there is no host; want `,
		"consul:8500/prefix":               `"consul:8500/prefix" is not the address of an agent: it has the path "/prefix" and no scheme; want `,
		"unix://run/consul.sock":           `"unix://run/consul.sock" is not the address of an agent: the path of the socket does not begin with /; want `,
	} {
		var c Config
		err := setConsulAddr(&c, []string{value})
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "s3cr")
	}
}

// An agent behind a proxy that wants a password: it works, and the password is in
// no message, not even when nothing works.
func TestPasswordOfTheAgent(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	target, err := url.Parse("http://" + agent.Addr)
	require.NoError(t, err)
	forward := httputil.NewSingleHostReverseProxy(target)
	guard := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if user, password, _ := request.BasicAuth(); user != "lb" || password != "s3cret" {
			http.Error(w, "no such user", http.StatusUnauthorized)
			return
		}
		if strings.Contains(request.URL.Path, "//") {
			http.Error(w, "an odd path", http.StatusBadRequest)
			return
		}
		forward.ServeHTTP(w, request)
	}))
	t.Cleanup(guard.Close)
	address := "http://lb:s3cret@" + guard.Listener.Addr().String() + "/"

	r := run(t, config(t, agent, "--consul-addr="+address))
	r.awaitLog("msg=registered")
	awaitStatus(t, agent, "web", api.HealthPassing)
	guard.CloseClientConnections()
	guard.Listener.Close()
	r.awaitLog("Consul agent refuses or does not answer")
	require.NoError(t, r.stop())
	assert.NotContains(t, r.log(), "s3cret")
}
