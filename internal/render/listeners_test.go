package render

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	grpcmetadata "google.golang.org/grpc/metadata"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/endpoints"
	"lbctl/internal/nginxtest"
)

func TestListeners(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		address := func() string { return fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t)) }
		internal, proxied, grpcProxied, redirects, grpcInternal := address(), address(), address(), address(), address()
		ca := certificatestest.NewAuthority(t, "test")
		b := startSecured(t, binary, func(dir string) { ca.Issue(t, 100*days, "shop.test").Write(t, dir, "shop") }, func(s *Settings) {
			s.Listeners[3].HSTS = 3600
			s.Listeners = append(s.Listeners,
				Listener{Name: "internal", Protocol: endpoints.HTTP, Listen: Listen{internal}},
				Listener{Name: "grpc-internal", Protocol: endpoints.GRPC, Listen: Listen{grpcInternal}},
				Listener{Name: "proxied", Protocol: endpoints.HTTP, Listen: Listen{proxied}, ProxyProtocol: true},
				Listener{Name: "grpc-proxied", Protocol: endpoints.GRPC, Listen: Listen{grpcProxied}, ProxyProtocol: true},
				Listener{Name: "redirects", Protocol: endpoints.HTTP, Listen: Listen{redirects}, Redirect: 8443},
			)
			s.TrustedProxies = []string{"127.0.0.0/8"}
		},
			entry("site", httpServer(t, "site", httptest.NewServer), tags("http_server")),
			entry("cart", httpServer(t, "cart", httptest.NewServer), meta("lb-protocol", "http", "lb-path", "/cart")),
			entry("admin", httpServer(t, "admin", httptest.NewServer), meta("lb-protocol", "http", "lb-listen", "internal")),
			entry("both", httpServer(t, "both", httptest.NewServer), meta("lb-protocol", "http", "lb-path", "/both", "lb-listen", "https,internal")),
			entry("secure", httpServer(t, "secure", httptest.NewServer), meta("lb-protocol", "http", "lb-path", "/secure", "lb-redirect-scheme", "https")),
			entry("hello", grpcServer(t, "hello"), tags("grpc_server")),
			entry("inner", grpcServer(t, "inner"), meta("lb-protocol", "grpc", "lb-listen", "grpc-internal")),
		)

		t.Run("a service is on the listeners that it names", func(t *testing.T) {
			for _, c := range []struct{ address, path, want string }{
				{b.http, "/", "site GET / 0"},
				{b.http, "/cart", "cart GET /cart 0"},
				{b.http, "/both", "site GET /both 0"},
				{internal, "/", "admin GET / 0"},
				{internal, "/cart", "cart GET /cart 0"},
				{internal, "/both", "both GET /both 0"},
			} {
				_, body := get(t, b.client(t, c.address, nil), "http://shop.test"+c.path)
				assert.Equal(t, c.want, body)
			}
			client := b.client(t, b.https, &tls.Config{RootCAs: ca.Pool()})
			for path, want := range map[string]string{"/": "site GET / 0", "/both": "both GET /both 0"} {
				response, body := get(t, client, "https://shop.test"+path)
				assert.Equal(t, want, body)
				assert.Equal(t, "max-age=3600", response.Header.Get("Strict-Transport-Security"))
			}
			for at, want := range map[string]string{b.grpc: "hello", grpcInternal: "inner"} {
				got, err := call(t, balancer{grpc: at}.dial(t, "shop.test"), "/any.Service/Method")
				require.NoError(t, err)
				assert.Equal(t, want, got)
			}
		})
		t.Run("redirects to HTTPS", func(t *testing.T) {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				response, _ := get(t, b.client(t, redirects, nil), "http://shop.test/a%2Fb?c=d", func(r *http.Request) { r.Method = method })
				assert.Equal(t, http.StatusPermanentRedirect, response.StatusCode)
				assert.Equal(t, "https://shop.test:8443/a%2Fb?c=d", response.Header.Get("Location"))
				assert.Empty(t, response.Header.Get("Strict-Transport-Security"))
			}
		})
		t.Run("X-Forwarded-For of trusted proxies", func(t *testing.T) {
			for given, want := range map[string]struct{ client, forwarded string }{
				"":                                {"127.0.0.1", "127.0.0.1"},
				"203.0.113.9, 198.51.100.1":       {"198.51.100.1", "203.0.113.9, 198.51.100.1, 127.0.0.1"},
				"203.0.113.9, 127.0.0.5":          {"203.0.113.9", "203.0.113.9, 127.0.0.5, 127.0.0.1"},
				"1.1.1.1, 203.0.113.9, 127.0.0.5": {"203.0.113.9", "1.1.1.1, 203.0.113.9, 127.0.0.5, 127.0.0.1"},
			} {
				response, _ := get(t, b.client(t, b.http, nil), "http://shop.test/", func(r *http.Request) {
					if given != "" {
						r.Header.Set("X-Forwarded-For", given)
					}
				})
				assert.Equal(t, want.client, response.Header.Get("Seen-X-Real-Ip"))
				assert.Equal(t, want.forwarded, response.Header.Get("Seen-X-Forwarded-For"))
			}
		})
		t.Run("X-Forwarded-Proto of trusted proxies", func(t *testing.T) {
			proto := func(client *http.Client, url, given string) string {
				response, _ := get(t, client, url, func(r *http.Request) {
					if given != "" {
						r.Header.Set("X-Forwarded-Proto", given)
					}
				})
				return response.Header.Get("Seen-X-Forwarded-Proto")
			}
			plain, secure := b.client(t, b.http, nil), b.client(t, b.https, &tls.Config{RootCAs: ca.Pool()})
			for given, want := range map[string]string{"": "http", "https": "https", "HTTPS": "https", "http": "http", "ftp": "http", "https, http": "http"} {
				assert.Equal(t, want, proto(plain, "http://shop.test/", given), "%q", given)
			}
			assert.Equal(t, "https", proto(secure, "https://shop.test/", ""))
			assert.Equal(t, "http", proto(secure, "https://shop.test/", "http"))
			var seen grpcmetadata.MD
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := callIn(grpcmetadata.AppendToOutgoingContext(ctx, "x-forwarded-proto", "https"), b.dial(t, "shop.test"), "/any.Service/Method", grpc.Header(&seen))
			require.NoError(t, err)
			assert.Equal(t, []string{"https"}, seen.Get("seen-x-forwarded-proto"))
			// redirect.scheme does not send clients round in circles.
			response, _ := get(t, plain, "http://shop.test/secure")
			assert.Equal(t, "https://shop.test/secure", response.Header.Get("Location"))
			response, _ = get(t, plain, "http://shop.test/secure", func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") })
			assert.Equal(t, http.StatusOK, response.StatusCode)
		})
		t.Run("PROXY protocol", func(t *testing.T) {
			const header = "PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n"
			conn, err := net.Dial("tcp", proxied)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			fmt.Fprint(conn, header+"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n")
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			defer response.Body.Close()
			assert.Equal(t, "203.0.113.9", response.Header.Get("Seen-X-Real-Ip"))
			assert.Equal(t, "1.1.1.1, 203.0.113.9", response.Header.Get("Seen-X-Forwarded-For"))
			assert.Equal(t, "http", response.Header.Get("Seen-X-Forwarded-Proto"), "the client says it, not the proxy")

			plain, err := net.Dial("tcp", proxied)
			require.NoError(t, err)
			defer plain.Close()
			require.NoError(t, plain.SetDeadline(time.Now().Add(20*time.Second)))
			fmt.Fprint(plain, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
			answer, _ := io.ReadAll(plain)
			assert.Empty(t, string(answer), "a connection without the header is closed")

			proxy := func(ctx context.Context, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
				if err == nil {
					fmt.Fprint(conn, header)
				}
				return conn, err
			}
			client, err := grpc.NewClient("passthrough:///"+grpcProxied, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(proxy))
			require.NoError(t, err)
			defer client.Close()
			var seen grpcmetadata.MD
			got, err := call(t, client, "/any.Service/Method", grpc.Header(&seen))
			require.NoError(t, err)
			assert.Equal(t, "hello", got)
			assert.Equal(t, "203.0.113.9", strings.Join(seen.Get("seen-x-forwarded-for"), "; "))
		})
	})
}

// With TLS every virtual host is served without TLS too, and a thousand of them are not written
// twice.
func TestListenersWithTheSameServicesShareTheirHosts(t *testing.T) {
	var registrations []*api.ServiceEntry
	for n := range 50 {
		registrations = append(registrations,
			registration(fmt.Sprintf("web-%d", n), "web-1", "10.0.0.1", 80, meta("lb-protocol", "http", "lb-host", fmt.Sprintf("web-%d.test", n))),
			registration(fmt.Sprintf("api-%d", n), "api-1", "10.0.0.2", 80, meta("lb-protocol", "grpc", "lb-host", fmt.Sprintf("api-%d.test", n))))
	}
	servers := func(change func(*Settings)) int {
		settings := testSettings("1.30.6")
		settings.Listeners = append(settings.Listeners, TLSListeners()...)
		change(&settings)
		c, err := offline(Options{Settings: settings}, parseAll(registrations...), testNames())
		require.NoError(t, err)
		return strings.Count(string(c.Files["http.conf"])+string(c.Files["grpc.conf"]), "\nserver {")
	}
	without := servers(func(*Settings) {})
	assert.Equal(t, 102, without, "100 hosts and two default hosts")
	assert.Equal(t, without, servers(func(s *Settings) { s.Certificates.Default = "/x.pem" }))
	assert.Equal(t, without, servers(func(s *Settings) { s.Certificates.Default, s.Listeners[3].HSTS = "/x.pem", 3600 }))
}
