package doctor

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/daemon"
	"lbctl/internal/render"
)

func TestHealth(t *testing.T) {
	b := startBalancer(t)
	s := b.subject(t)
	examine := func(path string) Report {
		s.Config.Nginx.HealthPath = path
		return Examine(t.Context(), s)
	}
	fine(t, examine(daemon.HealthNone), "health")
	fine(t, examine(daemon.HealthAuto), "health")
	assert.Contains(t, findings(examine(daemon.HealthAuto), "health")[0].Found, "the health of 0 services at http://"+b.HTTP+"/health")
	fires(t, examine("/elsewhere"), "health", Warning, "/elsewhere gives 404, and not from lbctl")

	socket := filepath.Join(b.StateDir, "run", render.HealthSocket)
	require.NoError(t, os.Rename(socket, socket+".away"))
	fires(t, examine(daemon.HealthAuto), "health", Failed, "does not answer")

	s.Config.Nginx.HTTPListen = render.Listen{freeAddress(t)}
	fires(t, examine(daemon.HealthAuto), "health", Failed, "connection refused")
	s.Config.Nginx.Listeners = []render.Listener{{Name: render.ListenerHTTP}}
	notExamined(t, examine(daemon.HealthAuto), "health", "no listener takes plain HTTP")
	s.Daemon = Daemon{Err: fmt.Errorf("no daemon answered")}
	notExamined(t, examine(daemon.HealthAuto), "health", "no daemon runs")
}

// TestHealthOfOthers has other programs and policies answer.
func TestHealthOfOthers(t *testing.T) {
	b := startBalancer(t)
	s := b.subject(t)
	for _, c := range []struct {
		status     int
		kind, body string
		auto, path State
	}{
		{200, "text/plain", "fine", OK, Warning},
		{200, "application/json", `{"status":"UP"}`, OK, Warning},
		{404, "text/plain", "no service is routed for this host and path\n", Warning, Warning},
		{403, "text/plain", "not allowed\n", OK, OK},
		{404, "application/json", `{"error":"no service is told of"}`, OK, OK},
		{503, "application/json", `{"a":{"state":"panic","serving":false}}`, OK, OK},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		}))
		s.Config.Nginx.HTTPListen = render.Listen{server.Listener.Addr().(*net.TCPAddr).String()}
		for path, want := range map[string]State{daemon.HealthAuto: c.auto, "/own": c.path} {
			s.Config.Nginx.HealthPath = path
			found := findings(Examine(t.Context(), s), "health")
			require.Len(t, found, 1)
			assert.Equal(t, want, found[0].State, "%s, %s: %+v", path, c.body, found[0])
		}
		server.Close()
	}
}
