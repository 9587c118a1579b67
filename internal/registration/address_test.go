package registration

import (
	"log/slog"
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

// An error about an invalid address does not contain the password either.
func TestPasswordOfAnAddressThatIsWrong(t *testing.T) {
	for _, address := range []string{"ftp://lb:s3cret@consul:21", "http://lb:s3cret@consul:8500/?dc", "http://lb:s3cret@consul:x", "lb:s3cr%et@consul"} {
		_, err := New(Config{ConsulAddr: address}, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, "connect to the Consul agent: read Consul's address")
		assert.NotContains(t, err.Error(), "s3cr")
	}
}

// An agent behind a proxy with a password works, and no message contains the password, also
// after a failure.
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
