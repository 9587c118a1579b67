package render

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// TestKindsOfRoutes sends real traffic to each kind of route.
func TestKindsOfRoutes(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		web := func(service string, pairs ...string) *api.ServiceEntry {
			return registration(service, service, "127.0.0.1", httpServer(t, service, httptest.NewServer), meta(append(pairs, "lb-protocol", "http")...))
		}
		rpc := func(service string, pairs ...string) *api.ServiceEntry {
			return registration(service, service, "127.0.0.1", grpcServer(t, service), tags("grpc_server"), meta(pairs...))
		}
		at := func(service, address string, port int, pairs ...string) *api.ServiceEntry {
			return registration(service, service, address, port, meta(pairs...))
		}
		b := startBalancer(t, binary, nil,
			web("site"),
			web("health", "lb-path", "=/health,=/slash/"),
			web("api", "lb-path", "/api"),
			web("writes", "lb-path", "/api", "lb-method", "POST,PUT"),
			web("v2", "lb-path", "/api", "lb-header", "X-Version=v2"),
			web("v2-eu", "lb-path", "/api", "lb-header", "x-version=v2,x-region=EU"),
			web("canary", "lb-host", "shop.test", "lb-header", "x-canary=yes"),
			at("refusing", "127.0.0.1", refusing(t), "lb-protocol", "http", "lb-path", "/refusing", "lb-method", "PUT"),
			registration("away", "away", "127.0.0.1", 1, meta("lb-protocol", "http", "lb-path", "/api", "lb-header", "x-version=v3"), status("maintenance")),

			rpc("found", "grpc-services", "found.One,found.Two"),
			rpc("found-too", "grpc-services", "found.Three"),
			rpc("shop", "lb-grpc", "shop.*"),
			rpc("cart", "lb-grpc", "shop.Cart,shop.Stock/Count"),
			rpc("cart-v2", "lb-grpc", "shop.Cart", "lb-header", "x-version=v2"),
			at("grpc-refusing", "127.0.0.1", refusing(t), "lb-grpc", "shop.Cart", "lb-header", "x-version=v3"),
		)
		client := &http.Client{}
		for _, c := range []struct{ request, want string }{
			{"GET /health", "health"},
			{"GET /health?x", "health"},
			{"GET /healthy", "site"},
			{"GET /health/", "site"},
			{"GET /slash/", "health"},
			{"GET /slash", "site"},
			{"GET /api", "api"},
			{"GET /api/x", "api"},
			{"HEAD /api/x", ""},
			{"POST /api", "writes"},
			{"PUT /api/x", "writes"},
			{"GET /api/x x-version:v2", "v2"},
			{"GET /api/x X-VERSION:v2 x-region:EU", "v2-eu"},
			{"GET /api/x x-version:v2 x-region:eu", "v2"},
			{"GET /api/x x-version:V2", "api"},
			{"POST /api/x x-version:v2", "writes"}, // the method goes before headers
			{"GET /api/x x-version:v3", "503 no instance of away is in rotation"},
			{"PUT /refusing", "502 no instance of refusing could be reached, or it failed"},
			{"GET /refusing", "site"},
			{"GET shop.test/api/x x-canary:yes", "canary"},
			{"POST shop.test/api/x x-canary:yes", "canary"},
			{"GET shop.test/api/x x-canary:no", "api"},
			{"POST shop.test/api/x", "writes"},
			{"GET shop.test/health", "health"},
		} {
			t.Run(c.request, func(t *testing.T) {
				words := strings.Fields(c.request)
				host, path, _ := strings.Cut(words[1], "/")
				response, body := get(t, client, "http://"+b.http+"/"+path, func(r *http.Request) {
					r.Method = words[0]
					if host != "" {
						r.Host = host
					}
					for _, header := range words[2:] {
						name, value, _ := strings.Cut(header, ":")
						r.Header.Set(name, value)
					}
				})
				switch {
				case c.want == "":
					assert.Equal(t, 200, response.StatusCode)
				case response.StatusCode == 200:
					assert.Equal(t, fmt.Sprintf("%s %s /%s 0", c.want, words[0], path), body)
				default:
					assert.Equal(t, c.want, fmt.Sprintf("%d %s", response.StatusCode, strings.TrimSpace(body)))
				}
			})
		}

		conn := b.dial(t, "localhost")
		for _, c := range []struct{ method, version, want string }{
			{"/found.One/Method", "", "found"},
			{"/found.Two/Method", "", "found"},
			{"/found.Three/Method", "", "found-too"},
			{"/grpc.health.v1.Health/Check", "", "found"},
			{"/shop.Other/Method", "", "shop"},
			{"/shop.sub.Service/Method", "", "shop"},
			{"/shopping.Service/Method", "", "found"},
			{"/shop.Cart/Add", "", "cart"},
			{"/shop.Stock/Count", "", "cart"},
			{"/shop.Stock/Counted", "", "shop"},
			{"/shop.Cart/Add", "v2", "cart-v2"},
			{"/shop.Stock/Count", "v2", "cart"},
		} {
			t.Run(c.method+" "+c.version, func(t *testing.T) {
				var answer protos.PingMessage
				ctx := metadata.AppendToOutgoingContext(t.Context(), "x-version", c.version)
				require.NoError(t, conn.Invoke(ctx, c.method, &protos.PingMessage{}, &answer))
				assert.Equal(t, c.want, answer.Greeting)
			})
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-version", "v3")
		err := conn.Invoke(ctx, "/shop.Cart/Add", &protos.PingMessage{}, &protos.PingMessage{})
		assert.Equal(t, codes.Unavailable, grpcstatus.Code(err))
		assert.Equal(t, "lbctl: no instance of grpc-refusing could be reached, or it failed", grpcstatus.Convert(err).Message())
	})
}

func TestGRPCWebIsRefused(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startBalancer(t, binary, nil,
			registration("ping", "ping-1", "127.0.0.1", grpcServer(t, "ping"), meta("lb-grpc", "protos.Ping")),
			registration("ping-v2", "ping-v2-1", "127.0.0.1", grpcServer(t, "ping-v2"), meta("lb-grpc", "protos.Ping", "lb-header", "x-version=v2")),
			registration("web", "web-1", "127.0.0.1", httpServer(t, "web", httptest.NewServer), meta("lb-protocol", "http", "lb-path", "/web")),
		)
		const message = "gRPC-Web is not translated: call with gRPC over HTTP/2, or put a proxy that translates gRPC-Web in front, such as Envoy with its filter grpc_web"
		post := func(client *http.Client, url, kind, version string) (*http.Response, string) {
			return get(t, client, url, func(r *http.Request) {
				r.Method = http.MethodPost
				r.Header.Set("Content-Type", kind)
				r.Header.Set("X-Version", version)
			})
		}
		client := h2c() // an older nginx has no HTTP/1.1 on this port
		defer client.CloseIdleConnections()
		for _, kind := range []string{"application/grpc-web", "application/grpc-web+proto", "Application/GRPC-Web-Text"} {
			for _, version := range []string{"", "v2"} {
				response, body := post(client, "http://"+b.grpc+"/protos.Ping/SayHello", kind, version)
				assert.Equal(t, "200 12 lbctl: "+message, fmt.Sprint(response.StatusCode, " ", response.Header.Get("Grpc-Status"), " ", response.Header.Get("Grpc-Message")))
				assert.Equal(t, "application/grpc-web+proto", response.Header.Get("Content-Type"))
				assert.Empty(t, body)
			}
			response, body := post(http.DefaultClient, "http://"+b.http+"/protos.Ping/SayHello", kind, "")
			assert.Equal(t, fmt.Sprint("404 ", message, "\n"), fmt.Sprint(response.StatusCode, " ", body))
			_, body = post(http.DefaultClient, "http://"+b.http+"/web", kind, "")
			assert.Equal(t, "web POST /web 0", body, "an HTTP service may speak gRPC-Web itself")
		}
		_, body := post(http.DefaultClient, "http://"+b.http+"/other", "text/plain", "")
		assert.Equal(t, "no service is routed for this host and path\n", body)
	})
}
