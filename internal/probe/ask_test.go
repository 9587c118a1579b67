package probe

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// healthServer is a gRPC server that reports pkg.Well as serving, and pkg.Ill as not serving.
func healthServer(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	server, state := grpc.NewServer(options...), health.NewServer()
	state.SetServingStatus("pkg.Well", healthpb.HealthCheckResponse_SERVING)
	state.SetServingStatus("pkg.Ill", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(server, state)
	t.Cleanup(server.Stop)
	return listen(t, func(l net.Listener) { _ = server.Serve(l) })
}

func TestChecks(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/well", func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "lbctl", r.UserAgent())
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ill", http.StatusFound) })
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Huge", strings.Repeat("x", 2*maxAnswer))
	})
	mux.HandleFunc("/ill", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer secure.Close()
	address := func(s *httptest.Server) string { return s.Listener.Addr().String() }

	grpcPlain := healthServer(t)
	grpcSecure := healthServer(t, grpc.Creds(credentials.NewServerTLSFromCert(&secure.TLS.Certificates[0])))
	bare := grpc.NewServer()
	t.Cleanup(bare.Stop)
	healthless := listen(t, func(l net.Listener) { _ = bare.Serve(l) })
	closed := closedPort(t)
	silent := listen(t, hollow(func(c net.Conn) { t.Cleanup(func() { c.Close() }) }))

	for _, tt := range []struct {
		name     string
		question question
		want     string // why it fails, "" when it passes
	}{
		{"an open port", question{endpoints.TCP, "tcp", silent}, ""},
		{"by default an open port is enough for every protocol", question{endpoints.GRPCS, "", silent}, ""},
		{"a closed port", question{endpoints.GRPC, "", closed}, "connection refused"},
		{"a closed port, for HTTP", question{endpoints.HTTP, "http:/well", closed}, "connection refused"},
		{"a closed port, for gRPC", question{endpoints.GRPC, "grpc", closed}, "connection refused"},
		{"a page", question{endpoints.HTTP, "http:/well", address(plain)}, ""},
		{"a redirect is an answer", question{endpoints.HTTP, "http:/moved", address(plain)}, ""},
		{"an error page", question{endpoints.HTTP, "http:/ill", address(plain)}, "HTTP status 503, want 200 to 399"},
		{"more headers than are read", question{endpoints.HTTP, "http:/huge", address(plain)}, "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded 16384 bytes; aborted"},
		{"no page", question{endpoints.HTTP, "http:/none", address(plain)}, "HTTP status 404, want 200 to 399"},
		{"a page over TLS", question{endpoints.HTTPS, "http:/well", address(secure)}, ""},
		{"an error page over TLS", question{endpoints.HTTPS, "http:/ill", address(secure)}, "HTTP status 503, want 200 to 399"},
		{"a server without TLS where HTTPS is wanted", question{endpoints.HTTPS, "http:/well", address(plain)}, "tls: first record does not look like a TLS handshake"},
		{"an HTTP server that stays silent", question{endpoints.HTTP, "http:/well", silent}, "no answer in time"},
		{"a gRPC server", question{endpoints.GRPC, "grpc", grpcPlain}, ""},
		{"a gRPC service", question{endpoints.GRPC, "grpc:pkg.Well", grpcPlain}, ""},
		{"a gRPC service that does not serve", question{endpoints.GRPC, "grpc:pkg.Ill", grpcPlain}, "gRPC health check: NOT_SERVING"},
		{"a gRPC service that is not there", question{endpoints.GRPC, "grpc:pkg.None", grpcPlain}, "gRPC health check: NotFound: unknown service"},
		{"a gRPC server without health service", question{endpoints.GRPC, "grpc", healthless}, "gRPC health check: Unimplemented: unknown service grpc.health.v1.Health"},
		{"a gRPC service over TLS", question{endpoints.GRPCS, "grpc:pkg.Well", grpcSecure}, ""},
		{"a gRPC service over TLS that does not serve", question{endpoints.GRPCS, "grpc:pkg.Ill", grpcSecure}, "gRPC health check: NOT_SERVING"},
		{"a gRPC server that stays silent", question{endpoints.GRPC, "grpc", silent}, "no answer in time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wait := 5 * time.Second
			if tt.want == "no answer in time" {
				wait = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			err := ask(ctx, tt.question)
			if tt.want == "" {
				assert.NoError(t, err)
				return
			}
			if assert.Error(t, err) {
				assert.Equal(t, tt.want, reason(err))
				assert.Equal(t, 2, failuresNeeded(err, 2))
			}
		})
	}
}

// TestNoAnswerEndsTheProber gives answers that are too large, and one that makes the probe
// panic.
func TestNoAnswerEndsTheProber(t *testing.T) {
	huge := listen(t, hollow(func(c net.Conn) {
		t.Cleanup(func() { c.Close() })
		_, _ = c.Write([]byte{0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0}) // a SETTINGS frame of 16 MiB
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	assert.ErrorContains(t, askProtocol(ctx, endpoints.GRPC, huge), "frame too large")

	p := New(nil, Options{})
	p.ask = func(context.Context, question) error { panic("a bug") }
	assert.EqualError(t, p.askRecovering(ctx, question{}), "its answer could not be handled: a bug")
}

func TestForbiddenAddressesAreNotProbed(t *testing.T) {
	for _, check := range []policy.Check{"tcp", "http:/latest/meta-data", checkHeld} {
		err := ask(t.Context(), question{protocol: endpoints.HTTP, check: check, address: "169.254.169.254:80"})
		assert.ErrorContains(t, err, "169.254.169.254 is not asked: it is link-local, as metadata services are")
	}
}
