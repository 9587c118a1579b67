package consulclient

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		given, scheme   string
		url, shown, err string
		user, password  string
	}{
		{given: "127.0.0.1:8500", scheme: "http", url: "http://127.0.0.1:8500", shown: "127.0.0.1:8500"},
		{given: "127.0.0.1:8500/", scheme: "http", url: "http://127.0.0.1:8500", shown: "127.0.0.1:8500"},
		{given: "http://[::1]:8500//", scheme: "http", url: "http://[::1]:8500", shown: "http://[::1]:8500"},
		{given: "consul.example:8501", scheme: "https", url: "https://consul.example:8501", shown: "consul.example:8501"},
		{given: "http://consul.example:8501", scheme: "https", url: "https://consul.example:8501", shown: "http://consul.example:8501"},
		{given: "https://proxy.example/consul/", scheme: "http", url: "https://proxy.example/consul", shown: "https://proxy.example/consul"},
		{given: "unix:///run/consul.sock", scheme: "http", url: "unix:///run/consul.sock", shown: "unix:///run/consul.sock"},
		{given: "http://me:secret@consul:8500/", scheme: "http", url: "http://consul:8500", shown: "http://consul:8500", user: "me", password: "secret"},
		{given: "me:sec%40ret/s@consul:8500", scheme: "http", url: "http://consul:8500", shown: "consul:8500", user: "me", password: "sec@ret/s"},
		{given: "http://secret:se%cret@consul:8500", scheme: "http", err: `"%" that begins no percent-encoded character`},
		{given: "http://me:secret@con sul:8500", scheme: "http", err: `"http://con sul:8500", want HOST:PORT`},
		{given: "ftp://me:secret@consul", scheme: "http", err: `it has the scheme "ftp", want HOST:PORT`},
		{given: "http://consul:8500?token=x", scheme: "http", err: "has a query or a fragment"},
		{given: "http://", scheme: "http", err: "want HOST:PORT"},
	} {
		t.Run(tt.given, func(t *testing.T) {
			a, err := parseAddress(tt.given, tt.scheme)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				assert.NotContains(t, err.Error(), "secret")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.url, a.url)
			assert.Equal(t, tt.shown, a.shown)
			var auth api.HttpBasicAuth
			if a.auth != nil {
				auth = *a.auth
			}
			assert.Equal(t, api.HttpBasicAuth{Username: tt.user, Password: tt.password}, auth)
		})
	}
}

func TestUserAndPasswordOfAnAddressAreUsedAndNotShown(t *testing.T) {
	var user, password string
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ = r.BasicAuth()
		http.Error(w, "no", http.StatusUnauthorized)
	}))
	defer agent.Close()
	host := strings.TrimPrefix(agent.URL, "http://")
	c, err := New(&api.Config{Address: "http://me:secret@" + host + "/"})
	require.NoError(t, err)
	_, err = c.API().Status().Leader()
	assert.Equal(t, []string{"me", "secret"}, []string{user, password})
	assert.Equal(t, "Consul at http://"+host+" refuses the user and password: no", c.Explain(err))
	agent.Close()
	_, err = c.API().Status().Leader()
	require.Error(t, err)
	assert.NotContains(t, c.Explain(err), "secret")
}
