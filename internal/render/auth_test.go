package render

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/access"
	"lbctl/internal/endpoints"
	"lbctl/internal/kv"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policytest"
)

func init() {
	maps.Copy(fieldTests, map[string]func(*testing.T, nginxtest.Binary){
		"auth.keys":          testedIn("TestAuthentication"),
		"auth.basic":         testedIn("TestAuthentication"),
		"auth.external":      testedIn("TestExternalAuthentication"),
		"auth.external-path": testedIn("TestExternalAuthentication"),
	})
}

// operated returns the services of registrations, with documents of the operator by service.
func operated(t *testing.T, documents map[string]string, registrations ...*api.ServiceEntry) []endpoints.Service {
	t.Helper()
	services := parseAll(registrations...)
	for n := range services {
		text, ok := documents[services[n].Name]
		if !ok {
			continue
		}
		document, err := policy.ParseDocument([]byte(text))
		require.NoError(t, err)
		services[n].Policy = policy.Resolve(policy.Layer{Source: "lb/service/" + services[n].Name, Document: document})
	}
	return services
}

// answerer runs an Answerer at the socket in a run directory, until stop is called.
func answerer(t *testing.T, runDir string, keeper *access.Keeper) (stop func()) {
	t.Helper()
	listener, err := access.Listen(filepath.Join(runDir, AuthSocket), -1)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- access.NewAnswerer(keeper).Run(ctx, listener) }()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	// nginx's workers have another user if the test runs as root.
	require.NoError(t, os.Chmod(filepath.Join(runDir, AuthSocket), 0o666))
	return func() { cancel(); ended <- <-ended }
}

// echoUser is an HTTP server that answers with its name and the header X-Lb-User.
func echoUser(t *testing.T, name string) int {
	return httpServer(t, name, func(http.Handler) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s for %q", name, r.Header.Values("X-Lb-User"))
		}))
	})
}

// TestAuthentication sends requests with good, bad and without keys, by HTTP and gRPC; then it ends
// the answerer, and starts it again.
func TestAuthentication(t *testing.T) {
	shop := access.Key{Name: "shop", Kind: access.APIKey}
	other := access.Key{Name: "other", Kind: access.APIKey, Services: []string{"elsewhere"}}
	alice := access.Key{Name: "alice", Kind: access.Basic}
	secrets := map[string]string{}
	var documents []kv.Document
	for n, k := range []*access.Key{&shop, &other, &alice} {
		secrets[k.Name] = access.NewSecret()
		k.SetSecret(secrets[k.Name])
		value, err := k.Document()
		require.NoError(t, err)
		documents = append(documents, kv.Document{Name: access.KeyName(k.Name), Value: value, Index: uint64(n + 1)})
	}
	keeper, err := access.Open("")
	require.NoError(t, err)
	keeper.Observe(documents)

	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		var runDir string
		seen := make(chan []string, 1)
		withUser := grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			md, _ := grpcmetadata.FromIncomingContext(stream.Context())
			select {
			case seen <- md.Get("x-lb-user"):
			default:
			}
			return handler(srv, stream)
		})
		b := startBalancerWithServices(t, binary, func(opts *Options) { runDir = opts.Settings.RunDir }, nil, operated(t,
			map[string]string{
				"keys":      `{"auth.keys": true}`,
				"both":      `{"auth.keys": true, "auth.basic": true}`,
				"paths":     `{"paths": {"/paths/private": {"auth.keys": true}}}`,
				"keys-grpc": `{"auth.keys": true, "paths": {"=/pkg.Keys/Safe": {"retry.safe": true}}}`,
			},
			registration("open", "open-1", "127.0.0.1", echoUser(t, "open"), tags("http_server")),
			registration("keys", "keys-1", "127.0.0.1", echoUser(t, "keys"), meta("lb-protocol", "http", "lb-path", "/keys")),
			registration("both", "both-1", "127.0.0.1", echoUser(t, "both"), meta("lb-protocol", "http", "lb-path", "/both")),
			registration("paths", "paths-1", "127.0.0.1", echoUser(t, "paths"), meta("lb-protocol", "http", "lb-path", "/paths")),
			registration("open-grpc", "open-grpc-1", "127.0.0.1", grpcServer(t, "open-grpc"), tags("grpc_server")),
			registration("keys-grpc", "keys-grpc-1", "127.0.0.1", grpcServer(t, "keys-grpc", withUser), meta("lb-protocol", "grpc", "lb-path", "/pkg.Keys")),
		))
		stop := answerer(t, runDir, keeper)
		bearer := func(name string) func(*http.Request) {
			return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secrets[name]) }
		}
		forged := func(r *http.Request) { r.Header.Set("X-Lb-User", "root"); r.Header.Set("X-Lb-Auth", "key basic") }
		conn := b.dial(t, "localhost")
		rpc := func(method string, pairs ...string) (string, error) {
			ctx, cancel := context.WithTimeout(grpcmetadata.AppendToOutgoingContext(t.Context(), pairs...), 20*time.Second)
			defer cancel()
			return callIn(ctx, conn, method)
		}
		for _, tt := range []struct {
			name, path string
			change     func(*http.Request)
			code       int
			body       string
		}{
			{"no authentication is wanted", "/", nil, 200, `open for []`},
			{"a client can't set the header", "/", forged, 200, `open for []`},
			{"without a key", "/keys", nil, 401, "not authenticated\n"},
			{"with forged headers", "/keys", forged, 401, "not authenticated\n"},
			{"with a key", "/keys", bearer("shop"), 200, `keys for ["shop"]`},
			{"with a key and a forged name", "/keys", func(r *http.Request) { forged(r); bearer("shop")(r) }, 200, `keys for ["shop"]`},
			{"with a key in X-API-Key", "/keys", func(r *http.Request) { r.Header.Set("X-API-Key", secrets["shop"]) }, 200, `keys for ["shop"]`},
			{"with a key for another service", "/keys", bearer("other"), 403, "not allowed\n"},
			{"a password where only keys count", "/keys", func(r *http.Request) { r.SetBasicAuth("alice", secrets["alice"]) }, 401, "not authenticated\n"},
			{"with a password", "/both", func(r *http.Request) { r.SetBasicAuth("alice", secrets["alice"]) }, 200, `both for ["alice"]`},
			{"with a wrong password", "/both", func(r *http.Request) { r.SetBasicAuth("alice", "x") }, 401, "not authenticated\n"},
			{"a path without authentication", "/paths/x", nil, 200, `paths for []`},
			{"a path with authentication", "/paths/private/x", nil, 401, "not authenticated\n"},
			{"a path with authentication and a key", "/paths/private/x", bearer("shop"), 200, `paths for ["shop"]`},
		} {
			t.Run(tt.name, func(t *testing.T) {
				response, body := get(t, http.DefaultClient, "http://"+b.http+tt.path, func(r *http.Request) {
					if tt.change != nil {
						tt.change(r)
					}
				})
				assert.Equal(t, tt.code, response.StatusCode)
				assert.Equal(t, tt.body, body)
				if tt.code == 401 {
					assert.NotEmpty(t, response.Header.Get("WWW-Authenticate"))
				}
			})
		}
		t.Run("a body passes", func(t *testing.T) {
			request, err := http.NewRequest(http.MethodPost, "http://"+b.http+"/keys", http.NoBody)
			require.NoError(t, err)
			bearer("shop")(request)
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			response.Body.Close()
			assert.Equal(t, 200, response.StatusCode)
		})
		t.Run("gRPC", func(t *testing.T) {
			answer, err := rpc("/any.Service/Method")
			require.NoError(t, err)
			assert.Equal(t, "open-grpc", answer)
			_, err = rpc("/pkg.Keys/Method")
			assert.Equal(t, codes.Unauthenticated, grpcstatus.Code(err), "%v", err)
			assert.Equal(t, "lbctl: not authenticated", grpcstatus.Convert(err).Message())
			_, err = rpc("/pkg.Keys/Method", "authorization", "Bearer "+secrets["other"])
			assert.Equal(t, codes.PermissionDenied, grpcstatus.Code(err), "%v", err)
			answer, err = rpc("/pkg.Keys/Method", "x-api-key", secrets["shop"], "x-lb-user", "root")
			require.NoError(t, err)
			assert.Equal(t, "keys-grpc", answer)
			assert.Equal(t, []string{"shop"}, <-seen)
			if safe, err := nginx.AtLeast(binary.Version, "1.29.4"); assert.NoError(t, err) && safe { // by proxy_pass
				_, err = rpc("/pkg.Keys/Safe", "x-lb-user", "root")
				assert.Equal(t, codes.Unauthenticated, grpcstatus.Code(err), "%v", err)
				_, err = rpc("/pkg.Keys/Safe", "x-api-key", secrets["shop"], "x-lb-user", "root")
				require.NoError(t, err)
				assert.Equal(t, []string{"shop"}, <-seen)
			}
		})

		stop()
		t.Run("without an answerer nobody passes, and others are untouched", func(t *testing.T) {
			response, body := get(t, http.DefaultClient, "http://"+b.http+"/keys", bearer("shop"))
			assert.Equal(t, 503, response.StatusCode)
			assert.Equal(t, "the load balancer could not check who sends the request\n", body)
			_, err := rpc("/pkg.Keys/Method", "x-api-key", secrets["shop"])
			assert.Equal(t, codes.Unavailable, grpcstatus.Code(err), "%v", err)
			assert.Equal(t, "lbctl: the load balancer could not check who sends the request", grpcstatus.Convert(err).Message())
			response, _ = get(t, http.DefaultClient, "http://"+b.http+"/")
			assert.Equal(t, 200, response.StatusCode)
			_, err = rpc("/any.Service/Method")
			assert.NoError(t, err)
		})
		answerer(t, runDir, keeper)
		t.Run("a new answerer is used at once", func(t *testing.T) {
			response, _ := get(t, http.DefaultClient, "http://"+b.http+"/keys", bearer("shop"))
			assert.Equal(t, 200, response.StatusCode)
		})
	})
}

// TestExternalAuthentication has a service of one's own decide.
func TestExternalAuthentication(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		decides := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") != "" || r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusNotModified) // as for an answer of its own
				return
			}
			if r.URL.Path != "/check" || r.Method != http.MethodGet || r.Header.Get("X-Lb-User") != "" {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			switch r.Header.Get("Cookie") {
			case "session=good":
				w.Header().Set("X-Lb-User", r.Header.Get("X-Original-Method")+" "+r.Header.Get("X-Original-URI"))
			case "session=bad":
				w.WriteHeader(http.StatusForbidden)
			case "session=broken":
				w.WriteHeader(http.StatusInternalServerError)
			default:
				w.Header().Set("WWW-Authenticate", "Session")
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
		authz := httpServer(t, "authz", func(http.Handler) *httptest.Server { return httptest.NewServer(decides) })
		var sni string
		secure := httpServer(t, "secure", func(http.Handler) *httptest.Server {
			server := httptest.NewUnstartedServer(decides)
			server.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				sni = hello.ServerName
				return nil, nil
			}}
			server.StartTLS()
			return server
		})
		b := startBalancerWithServices(t, binary, func(*Options) {}, nil, operated(t,
			map[string]string{
				"web":      `{"auth.external": "authz", "auth.external-path": "/check", "auth.keys": true}`,
				"orphan":   `{"auth.external": "nobody"}`,
				"web-grpc": `{"auth.external": "authz", "auth.external-path": "/check"}`,
				"safe":     `{"auth.external": "secure", "auth.external-path": "/check"}`,
				"secure":   `{"tls.server-name": "authz.test"}`,
			},
			registration("safe", "safe-1", "127.0.0.1", echoUser(t, "safe"), meta("lb-protocol", "http", "lb-path", "/safe")),
			registration("secure", "secure-1", "127.0.0.1", secure, meta("lb-protocol", "https", "lb-host", "secure.internal")),
			registration("authz", "authz-1", "127.0.0.1", authz, meta("lb-protocol", "http", "lb-host", "authz.internal")),
			registration("web", "web-1", "127.0.0.1", echoUser(t, "web"), tags("http_server")),
			registration("orphan", "orphan-1", "127.0.0.1", echoUser(t, "orphan"), meta("lb-protocol", "http", "lb-path", "/orphan")),
			registration("web-grpc", "web-grpc-1", "127.0.0.1", grpcServer(t, "web-grpc"), tags("grpc_server")),
		))
		cookie := func(value string) func(*http.Request) {
			return func(r *http.Request) {
				r.Header.Set("Cookie", "session="+value)
				r.Header.Set("X-Lb-User", "root")
				r.Header.Set("X-Original-URI", "/forged")
				r.Header.Set("If-None-Match", `"the instance's"`)
				r.Header.Set("Range", "bytes=0-1")
			}
		}
		for value, want := range map[string]struct {
			code int
			body string
		}{
			"good":   {200, `web for ["GET /a?b=c"]`},
			"bad":    {403, "not allowed\n"},
			"none":   {401, "not authenticated\n"},
			"broken": {503, "the load balancer could not check who sends the request\n"},
		} {
			response, body := get(t, http.DefaultClient, "http://"+b.http+"/a?b=c", cookie(value))
			assert.Equal(t, want.code, response.StatusCode, value)
			assert.Equal(t, want.body, body, value)
			if want.code == 401 {
				assert.Equal(t, "Session", response.Header.Get("WWW-Authenticate"))
			}
		}
		response, body := get(t, http.DefaultClient, "http://"+b.http+"/safe", cookie("good"))
		assert.Equal(t, 200, response.StatusCode)
		assert.Equal(t, `safe for ["GET /safe"]`, body)
		assert.Equal(t, "authz.test", sni, "nginx asks by TLS, as the policy of the service says")

		response, body = get(t, http.DefaultClient, "http://"+b.http+"/orphan", cookie("good"))
		assert.Equal(t, 503, response.StatusCode)
		assert.Equal(t, "no instance of nobody is in rotation\n", body)

		conn := b.dial(t, "localhost")
		for value, code := range map[string]codes.Code{"good": codes.OK, "bad": codes.PermissionDenied, "none": codes.Unauthenticated, "broken": codes.Unavailable} {
			ctx, cancel := context.WithTimeout(grpcmetadata.AppendToOutgoingContext(t.Context(), "cookie", "session="+value), 20*time.Second)
			_, err := callIn(ctx, conn, "/any.Service/Method")
			assert.Equal(t, code, grpcstatus.Code(err), "%s: %v", value, err)
			cancel()
		}
	})
}

func TestExternalServicesThatCannotBeAsked(t *testing.T) {
	for name, want := range map[string]string{
		"nobody": `auth.external "nobody": there is no HTTP service of that name with a route, so nobody may pass`,
		"calls":  `auth.external "calls": its protocol is grpc, want http or https, so nobody may pass`,
		"authz":  "",
	} {
		said := policytest.Layer(policy.LevelService, "lb/service/web", "auth.external", name)
		require.NoError(t, said.Document.SetAt("/admin", "auth.external", name))
		services := parseAll(
			one("web", 80, tags("http_server")),
			one("calls", 80, tags("grpc_server")),
			one("authz", 80, meta("lb-protocol", "http", "lb-host", "authz.internal")),
		)
		for n := range services {
			if services[n].Name == "web" {
				services[n].Policy = policy.Resolve(said)
			}
		}
		c, err := offline(Options{Settings: testSettings("1.30.6")}, services, testNames())
		require.NoError(t, err)
		var problems []string
		for _, p := range c.Problems {
			problems = append(problems, p.Subject+": "+p.Message)
		}
		if want == "" {
			assert.Empty(t, problems, name)
		} else {
			assert.Equal(t, []string{"service web: lb/service/web: " + want}, problems, name)
		}
	}
}
