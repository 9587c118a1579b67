package registration

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

// proxy is a proxy to the real agent that loses answers or delivers requests late.
type proxy struct {
	*httptest.Server
	// loseRegistrations closes the connection after the agent has carried out a
	// registration.
	loseRegistrations atomic.Bool
	// hideRegistrations makes the next request for the entry fail after a lost registration.
	hideRegistrations atomic.Bool
	hidden            atomic.Bool // the next request for the entry fails
	// holdRegistrations closes the connection at once, and sends the registration to the
	// agent when held is closed.
	holdRegistrations atomic.Bool
	held              chan struct{} // closed to send the held registrations
	delivered         chan struct{} // gets one value for each of them
	registrations     atomic.Int32
	// cutDeregistrations is how many deregistrations still lose their connection before
	// they reach the agent.
	cutDeregistrations atomic.Int32
}

func startProxy(t *testing.T, agent *consultest.Server) *proxy {
	t.Helper()
	target, err := url.Parse("http://" + agent.Addr)
	require.NoError(t, err)
	forward := httputil.NewSingleHostReverseProxy(target)
	p := &proxy{held: make(chan struct{}), delivered: make(chan struct{}, 100)}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if strings.HasPrefix(request.URL.Path, "/v1/agent/service/deregister") && p.cutDeregistrations.Add(-1) >= 0 {
			panic(http.ErrAbortHandler)
		}
		if request.Method == http.MethodGet && strings.HasPrefix(request.URL.Path, "/v1/agent/service/") && p.hidden.Swap(false) {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if !strings.HasPrefix(request.URL.Path, "/v1/agent/service/register") {
			forward.ServeHTTP(w, request)
			return
		}
		p.registrations.Add(1)
		switch {
		case p.loseRegistrations.Load():
			forward.ServeHTTP(httptest.NewRecorder(), request)
			p.hidden.Store(p.hideRegistrations.Load())
			panic(http.ErrAbortHandler) // closes the connection without an answer
		case p.holdRegistrations.Load():
			held := hold(request)
			go func() {
				<-p.held
				forward.ServeHTTP(httptest.NewRecorder(), held)
				p.delivered <- struct{}{}
			}()
			panic(http.ErrAbortHandler)
		default:
			forward.ServeHTTP(w, request)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// address returns the proxy's address.
func (p *proxy) address() string { return "--consul-addr=" + strings.TrimPrefix(p.URL, "http://") }
