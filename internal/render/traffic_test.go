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
	"net/http/httptrace"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// balancer is a running nginx with a configuration that was rendered from registrations.
type balancer struct {
	grpc, http string // addresses
	errorLog   string // path
	dir        string
	settings   Settings
	process    *nginxtest.Process
}

func startBalancer(t *testing.T, binary nginxtest.Binary, change func(files map[string][]byte), registrations ...*api.ServiceEntry) balancer {
	t.Helper()
	return startBalancerWith(t, binary, func(*Settings) {}, change, registrations...)
}

func startBalancerWith(t *testing.T, binary nginxtest.Binary, set func(*Settings), change func(files map[string][]byte), registrations ...*api.ServiceEntry) balancer {
	t.Helper()
	return startBalancerOf(t, binary, func(opts *Options) { set(&opts.Settings) }, change, registrations...)
}

func startBalancerOf(t *testing.T, binary nginxtest.Binary, set func(*Options), change func(files map[string][]byte), registrations ...*api.ServiceEntry) balancer {
	t.Helper()
	return startBalancerWithServices(t, binary, set, change, parseAll(registrations...))
}

func startBalancerWithServices(t *testing.T, binary nginxtest.Binary, set func(*Options), change func(files map[string][]byte), services []endpoints.Service) balancer {
	t.Helper()
	dir := nginxtest.Dir(t)
	b := balancer{
		grpc: fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t)),
		http: fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t)),

		errorLog: filepath.Join(dir, "error.log"),
		dir:      dir,
	}
	settings := testSettings(binary.Version)
	settings.Listeners = PlainListeners(Listen{b.grpc}, Listen{b.http})
	settings.RunDir, settings.CurrentDir = dir, dir
	settings.OpenFiles = 1024
	settings.StreamModule = streamModule(t, binary)
	opts := Options{Settings: settings}
	set(&opts)
	c, err := offline(opts, services, testNames())
	require.NoError(t, err)
	if change != nil {
		change(c.Files)
	}
	b.settings = settings
	b.process = nginxtest.Start(t, binary, write(t, dir, c), dir)
	return b
}

// reload moves nginx to a configuration that is rendered from other registrations. The service
// of the last one must be an HTTP service with the path /reloaded.
func (b balancer) reload(t *testing.T, registrations ...*api.ServiceEntry) {
	t.Helper()
	c, err := offline(Options{Settings: b.settings}, parseAll(registrations...), testNames())
	require.NoError(t, err)
	write(t, b.dir, c)
	b.process.Reload()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	require.Eventually(t, func() bool {
		response, _ := get(t, client, "http://"+b.http+"/reloaded")
		return response.StatusCode == http.StatusOK
	}, 20*time.Second, 10*time.Millisecond)
}

// dial connects to the balancer with the authority.
func (b balancer) dial(t *testing.T, authority string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+b.grpc,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// call calls a method and returns the name of the instance that answered.
func call(t *testing.T, conn *grpc.ClientConn, method string, options ...grpc.CallOption) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ctx = grpcmetadata.AppendToOutgoingContext(ctx, "with_underscore", "1", "with.dot", "2")
	return callIn(ctx, conn, method, options...)
}

func callIn(ctx context.Context, conn *grpc.ClientConn, method string, options ...grpc.CallOption) (string, error) {
	var answer protos.PingMessage
	err := conn.Invoke(ctx, method, &protos.PingMessage{Greeting: "hello"}, &answer, options...)
	return answer.Greeting, err
}

// grpcServer answers every unary method with its name, and returns the request's metadata in
// the response's.
func grpcServer(t *testing.T, name string, options ...grpc.ServerOption) (port int) {
	t.Helper()
	answer := func(_ any, stream grpc.ServerStream) error {
		var in protos.PingMessage
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		got, _ := grpcmetadata.FromIncomingContext(stream.Context())
		seen := grpcmetadata.MD{}
		for _, key := range []string{":authority", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-client-cert-subject", "with_underscore", "with.dot"} {
			seen.Set("seen-"+strings.TrimPrefix(key, ":"), got.Get(key)...)
		}
		if err := stream.SendHeader(seen); err != nil {
			return err
		}
		return stream.SendMsg(&protos.PingMessage{Greeting: name})
	}
	server := grpc.NewServer(append(options, grpc.UnknownServiceHandler(answer))...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().(*net.TCPAddr).Port
}

// httpServer answers with its name and the request.
func httpServer(t *testing.T, name string, start func(http.Handler) *httptest.Server) (port int) {
	t.Helper()
	server := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			http.Error(w, name+" has no such page", http.StatusNotFound)
			return
		}
		w.Header().Set("Seen-Host", r.Host)
		w.Header().Set("Seen-Proto", r.Proto)
		for _, key := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Client-Cert-Subject", "X-Real-Ip", "Upgrade", "Connection"} {
			w.Header().Set("Seen-"+key, r.Header.Get(key))
		}
		if r.Header.Get("Upgrade") == "websocket" {
			conn, buffer, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			line, _ := buffer.ReadString('\n')
			fmt.Fprintf(conn, "%s heard %s", name, line)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %d", name, r.Method, r.URL.RequestURI(), len(body))
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}

// refusing returns a port that nobody listens on.
func refusing(t *testing.T) int { return nginxtest.FreePort(t) }

// silent returns a port that does not answer connections, because its queue is full.
func silent(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	t.Cleanup(func() { syscall.Close(fd) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	address, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	port := address.(*syscall.SockaddrInet4).Port
	for range 8 {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), 200*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the kernel accepts more connections than the queue has room for")
	return 0
}

// mute returns a port that accepts connections and sends nothing.
func mute(t *testing.T) int {
	t.Helper()
	ended := make(chan bool)
	t.Cleanup(func() { close(ended) })
	return listener(t, func(net.Conn) { <-ended })
}

func TestGRPCTraffic(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		secure := httptest.NewUnstartedServer(nil)
		secure.StartTLS()
		t.Cleanup(secure.Close)
		certificate := secure.TLS.Certificates[0]
		tlsCredentials := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})

		server := func(service string, port int, change ...func(*api.ServiceEntry)) *api.ServiceEntry {
			return registration(service, fmt.Sprintf("%s-%d", service, port), "127.0.0.1", port, change...)
		}
		b := startBalancer(t, binary, nil,
			server("default", grpcServer(t, "default"), tags("grpc_server")),
			server("hosted", grpcServer(t, "hosted"), meta("lb-protocol", "grpc", "lb-host", "hosted.example.com")),
			server("wild", grpcServer(t, "wild"), meta("lb-protocol", "grpc", "lb-host", "*.example.com")),
			server("strict", grpcServer(t, "strict"), meta("lb-protocol", "grpc", "lb-host", "strict.test", "lb-path", "/only.This")),
			server("path", grpcServer(t, "path"), meta("lb-protocol", "grpc", "lb-path", "/pkg.Path")),
			server("method", grpcServer(t, "method"), meta("lb-protocol", "grpc", "lb-path", "/pkg.Path/Method")),
			server("secure", grpcServer(t, "secure", grpc.Creds(tlsCredentials)), meta("lb-protocol", "grpcs", "lb-path", "/pkg.Secure")),
			server("nobody", 1, meta("lb-protocol", "grpc", "lb-path", "/pkg.Nobody"), status("maintenance")),
			server("refusing", refusing(t), meta("lb-protocol", "grpc", "lb-path", "/pkg.Refusing")),
			server("refusing", refusing(t), meta("lb-protocol", "grpc", "lb-path", "/pkg.Refusing")),
			server("silent", silent(t), meta("lb-protocol", "grpc", "lb-path", "/pkg.Silent")),
			server("half", grpcServer(t, "half"), meta("lb-protocol", "grpc", "lb-path", "/pkg.Half")),
			server("half", refusing(t), meta("lb-protocol", "grpc", "lb-path", "/pkg.Half")),
			server("web", httpServer(t, "web", httptest.NewServer), meta("lb-protocol", "grpc", "lb-path", "/pkg.Web")),
		)

		for _, c := range []struct {
			name, authority, method string
			want                    string
		}{
			{"the default service gets calls without a route", "localhost:5000", "/any.Service/Method", "default"},
			{"a host route, with a port in the authority", "hosted.example.com:5000", "/any.Service/Method", "hosted"},
			{"the case of a host does not matter", "Hosted.Example.COM", "/any.Service/Method", "hosted"},
			{"a wildcard host", "other.example.com", "/any.Service/Method", "wild"},
			{"a wildcard host does not match its own domain", "example.com", "/any.Service/Method", "default"},
			{"the host goes before the path", "hosted.example.com", "/pkg.Path/Other", "hosted"},
			{"a host with a path serves the path", "strict.test", "/only.This/Method", "strict"},
			{"routes of any host get other paths of a host with a path", "strict.test", "/pkg.Path/Other", "path"},
			{"the default service gets the rest of a host with a path", "strict.test", "/any.Service/Method", "default"},
			{"a path route", "localhost", "/pkg.Path/Other", "path"},
			{"a path ends at a slash", "localhost", "/pkg.PathFinder/Method", "default"},
			{"a method route wins over its service's", "localhost", "/pkg.Path/Method", "method"},
			{"a method route needs the full name", "localhost", "/pkg.Path/MethodTwo", "path"},
			{"an instance with TLS and a self-signed certificate", "localhost", "/pkg.Secure/Method", "secure"},
		} {
			t.Run(c.name, func(t *testing.T) {
				got, err := call(t, b.dial(t, c.authority), c.method)
				require.NoError(t, err)
				assert.Equal(t, c.want, got)
			})
		}

		for _, c := range []struct {
			name, method string
			code         codes.Code
			message      string
		}{
			{"no healthy instance", "/pkg.Nobody/Method", codes.Unavailable, "lbctl: no instance of nobody is in rotation"},
			{"all instances refuse", "/pkg.Refusing/Method", codes.Unavailable, "lbctl: no instance of refusing could be reached, or it failed"},
			{"no instance answers the connection", "/pkg.Silent/Method", codes.Unavailable, "lbctl: no instance of silent could be reached in time"},
			{"the instance does not speak gRPC", "/pkg.Web/Method", codes.Unavailable, "lbctl: no instance of web could be reached, or it failed"},
		} {
			t.Run(c.name, func(t *testing.T) {
				_, err := call(t, b.dial(t, "localhost"), c.method)
				assert.Equal(t, c.code, grpcstatus.Code(err), "%v", err)
				assert.Equal(t, c.message, grpcstatus.Convert(err).Message())
			})
		}

		t.Run("an instance that refuses connections fails no call", func(t *testing.T) {
			conn := b.dial(t, "localhost")
			for range 50 {
				got, err := call(t, conn, "/pkg.Half/Method")
				require.NoError(t, err)
				require.Equal(t, "half", got)
			}
		})

		t.Run("metadata passes, with the client's address", func(t *testing.T) {
			var header grpcmetadata.MD
			_, err := call(t, b.dial(t, "localhost:5000"), "/any.Service/Method", grpc.Header(&header))
			require.NoError(t, err)
			for key, want := range map[string]string{
				"seen-authority":         "localhost:5000",
				"seen-x-forwarded-for":   "127.0.0.1",
				"seen-x-forwarded-host":  "localhost:5000",
				"seen-x-forwarded-proto": "http",
				"seen-with_underscore":   "1",
				"seen-with.dot":          "2",
			} {
				assert.Equal(t, []string{want}, header.Get(key), key)
			}
		})

		t.Run("streams get errors too", func(t *testing.T) {
			stream, err := b.dial(t, "localhost").NewStream(t.Context(),
				&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/pkg.Nobody/Method")
			require.NoError(t, err)
			var answer protos.PingMessage
			err = stream.RecvMsg(&answer)
			assert.Equal(t, codes.Unavailable, grpcstatus.Code(err), "%v", err)
		})
	})
}

func TestGRPCWithoutAnyService(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startBalancer(t, binary, nil)
		_, err := call(t, b.dial(t, "localhost"), "/any.Service/Method")
		assert.Equal(t, codes.Unimplemented, grpcstatus.Code(err), "%v", err)
		assert.Equal(t, "lbctl: no service is routed for this host and method", grpcstatus.Convert(err).Message())
	})
}

// shortTimeouts replaces timeouts that are too long for a test.
func shortTimeouts(files map[string][]byte) {
	for name, pairs := range map[string][]string{
		"grpc.conf": {"grpc_read_timeout 1h", "grpc_read_timeout 200ms"},
		"http.conf": {"proxy_read_timeout 5m", "proxy_read_timeout 200ms"},
	} {
		files[name] = []byte(strings.NewReplacer(pairs...).Replace(string(files[name])))
	}
}

func TestTimeouts(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startBalancer(t, binary, shortTimeouts,
			registration("slow", "slow-1", "127.0.0.1", mute(t), tags("grpc_server")),
			registration("slow-web", "slow-web-1", "127.0.0.1", mute(t), tags("http_server")),
		)
		_, err := call(t, b.dial(t, "localhost"), "/any.Service/Method")
		assert.Equal(t, codes.DeadlineExceeded, grpcstatus.Code(err), "%v", err)
		assert.Equal(t, "lbctl: the instance of slow did not answer in time", grpcstatus.Convert(err).Message())

		response, body := get(t, http.DefaultClient, "http://"+b.http+"/")
		assert.Equal(t, http.StatusGatewayTimeout, response.StatusCode)
		assert.Equal(t, "the instance of slow-web did not answer in time\n", body)
	})
}

// The templates set no limits, but operators' own templates may.
func TestGRPCErrorsOfUsersTemplates(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		for answer, code := range map[string]codes.Code{
			"return 400;":             codes.Internal,
			"return 401;":             codes.Unauthenticated,
			"return 403;":             codes.PermissionDenied,
			"return 429;":             codes.ResourceExhausted,
			"return 500;":             codes.Internal,
			"client_max_body_size 1;": codes.ResourceExhausted,
		} {
			b := startBalancer(t, binary, func(files map[string][]byte) {
				files["grpc.conf"] = []byte(strings.Replace(string(files["grpc.conf"]), "set $lb_service", answer+" set $lb_service", 1))
			}, registration("any", "any-1", "127.0.0.1", grpcServer(t, "any"), tags("grpc_server")))
			_, err := call(t, b.dial(t, "localhost"), "/any.Service/Method")
			assert.Equal(t, code, grpcstatus.Code(err), "%s: %v", answer, err)
			assert.Contains(t, grpcstatus.Convert(err).Message(), "lbctl: ", answer)
		}
	})
}

func get(t *testing.T, client *http.Client, url string, change ...func(*http.Request)) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	for _, c := range change {
		c(request)
	}
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response, string(body)
}

func TestHTTPTraffic(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		server := func(service string, port int, change ...func(*api.ServiceEntry)) *api.ServiceEntry {
			return registration(service, fmt.Sprintf("%s-%d", service, port), "127.0.0.1", port, change...)
		}
		b := startBalancer(t, binary, nil,
			server("web", httpServer(t, "web", httptest.NewServer), meta("lb-protocol", "http", "lb-path", "/web,/missing")),
			server("api", httpServer(t, "api", httptest.NewServer), meta("lb-protocol", "http", "lb-host", "api.example.com")),
			server("secure", httpServer(t, "secure", httptest.NewTLSServer), meta("lb-protocol", "https", "lb-path", "/secure")),
			server("nobody", 1, meta("lb-protocol", "http", "lb-path", "/nobody"), status("maintenance")),
			server("refusing", refusing(t), meta("lb-protocol", "http", "lb-path", "/refusing")),
			server("silent", silent(t), meta("lb-protocol", "http", "lb-path", "/silent")),
			server("half", httpServer(t, "half", httptest.NewServer), meta("lb-protocol", "http", "lb-path", "/half")),
			server("half", refusing(t), meta("lb-protocol", "http", "lb-path", "/half")),
		)
		base := "http://" + b.http
		host := func(name string) func(*http.Request) {
			return func(r *http.Request) { r.Host = name }
		}

		for _, c := range []struct {
			name, host, path string
			code             int
			body             string
		}{
			{"a path is not changed", "", "/web?x=%2F", 200, "web GET /web?x=%2F 0"},
			{"below a path", "", "/web/a%2Fb/", 200, "web GET /web/a%2Fb/ 0"},
			{"a path ends at a slash", "", "/website", 404, "no service is routed for this host and path\n"},
			{"a host, with a port", "api.example.com:8080", "/anything", 200, "api GET /anything 0"},
			{"an instance with TLS and a self-signed certificate", "", "/secure", 200, "secure GET /secure 0"},
			{"an error of the instance passes as it is", "", "/missing", 404, "web has no such page\n"},
			{"no healthy instance", "", "/nobody", 503, "no instance of nobody is in rotation\n"},
			{"all instances refuse", "", "/refusing", 502, "no instance of refusing could be reached, or it failed\n"},
			{"no instance answers the connection", "", "/silent", 504, "no instance of silent could be reached in time\n"},
		} {
			t.Run(c.name, func(t *testing.T) {
				response, body := get(t, http.DefaultClient, base+c.path, host(c.host))
				assert.Equal(t, c.code, response.StatusCode)
				assert.Equal(t, c.body, body)
				if c.code != 200 {
					assert.Contains(t, response.Header.Get("Content-Type"), "text/plain")
				}
				assert.Equal(t, "nginx", response.Header.Get("Server"), "without the version")
			})
		}

		t.Run("the instance gets the forwarding headers", func(t *testing.T) {
			response, _ := get(t, http.DefaultClient, base+"/web", host("www.example.com:8080"))
			for key, want := range map[string]string{
				"Seen-Host":              "www.example.com:8080",
				"Seen-Proto":             "HTTP/1.1",
				"Seen-X-Forwarded-For":   "127.0.0.1",
				"Seen-X-Forwarded-Host":  "www.example.com:8080",
				"Seen-X-Forwarded-Proto": "http",
				"Seen-Upgrade":           "",
				"Seen-Connection":        "",
			} {
				assert.Equal(t, want, response.Header.Get(key), key)
			}
		})

		t.Run("an instance that refuses connections fails no request", func(t *testing.T) {
			for range 50 {
				response, err := http.Post(base+"/half", "text/plain", strings.NewReader("hello"))
				require.NoError(t, err)
				body, _ := io.ReadAll(response.Body)
				response.Body.Close()
				require.Equal(t, "half POST /half 5", string(body))
			}
		})

		t.Run("connections are kept", func(t *testing.T) {
			client := &http.Client{Transport: &http.Transport{}}
			reused := false
			for range 3 {
				get(t, client, base+"/web", func(r *http.Request) {
					*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
						GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
					}))
				})
			}
			assert.True(t, reused, "the third request uses a kept connection")
			client.CloseIdleConnections()
		})

		t.Run("HTTP/2 without TLS", func(t *testing.T) {
			if ok, err := nginx.AtLeast(binary.Version, "1.25.1"); err != nil || !ok {
				t.Skipf("nginx %s speaks either HTTP/1.1 or HTTP/2 on a port without TLS", binary.Version)
			}
			client := h2c()
			response, body := get(t, client, base+"/web")
			assert.Equal(t, 2, response.ProtoMajor)
			assert.Equal(t, "web GET /web 0", body)
			assert.Equal(t, b.http, response.Header.Get("Seen-Host"))
			client.CloseIdleConnections()
		})

		t.Run("a WebSocket", func(t *testing.T) {
			conn, response := upgrade(t, b.http, "websocket")
			require.Equal(t, http.StatusSwitchingProtocols, response.StatusCode)
			fmt.Fprint(conn, "ping\n")
			heard, err := conn.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, "web heard ping\n", heard)
		})

		t.Run("no other upgrade passes", func(t *testing.T) {
			_, response := upgrade(t, b.http, "h2c")
			assert.Equal(t, http.StatusOK, response.StatusCode)
			assert.Empty(t, response.Header.Get("Seen-Upgrade"))
		})

		t.Run("no service gets the paths of errors", func(t *testing.T) {
			response, body := get(t, http.DefaultClient, base+"/.lb/503")
			assert.Equal(t, http.StatusNotFound, response.StatusCode, body)
		})
	})
}

// wire is a connection that a test writes to and reads from.
type wire struct {
	*bufio.Reader
	io.Writer
}

func upgrade(t *testing.T, address, protocol string) (wire, *http.Response) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	fmt.Fprintf(conn, "GET /web HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	require.NoError(t, err)
	return wire{reader, conn}, response
}

func TestTCPTraffic(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		requireStream(t, binary)
		instance := listener(t, func(conn net.Conn) { io.Copy(conn, conn) })
		port := strconv.Itoa(nginxtest.FreePort(t))
		startBalancer(t, binary, nil,
			registration("echo", "echo-1", "127.0.0.1", instance, meta("lb-protocol", "tcp", "lb-port", port)),
			registration("echo", "echo-2", "127.0.0.1", refusing(t), meta("lb-protocol", "tcp", "lb-port", port)),
		)
		for range 4 {
			conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
			require.NoError(t, err)
			require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			fmt.Fprint(conn, "hello\n")
			heard, err := bufio.NewReader(conn).ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, "hello\n", heard)
			conn.Close()
		}
	})
}
