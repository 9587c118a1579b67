package render

import (
	"bufio"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/internal/policy"
	"lbctl/protos"
)

func init() {
	maps.Copy(fieldTests, map[string]func(*testing.T, nginxtest.Binary){
		"retry.on":      testRetryOn,
		"retry.tries":   testRetryTries,
		"retry.timeout": testRetryTimeout,
		"retry.safe":    testRetrySafe,
	})
}

// The templates write what is built in as a literal.
func TestBuiltInRetries(t *testing.T) {
	c, err := offline(Options{Settings: testSettings("1.30.6")}, nil, testNames())
	require.NoError(t, err)
	for family, directive := range map[string]string{policy.GRPC: "grpc_next_upstream", policy.HTTP: "proxy_next_upstream"} {
		text, err := policy.Default(family, "retry.on")
		require.NoError(t, err)
		assert.Contains(t, string(c.Files[family+".conf"]), directive+" "+strings.ReplaceAll(text, ",", "")+";")
	}
}

// statuses sends n requests and counts the statuses.
func statuses(t *testing.T, n int, method, url string) map[int]int {
	t.Helper()
	counts := map[int]int{}
	for range n {
		response, body := get(t, http.DefaultClient, url, func(r *http.Request) {
			r.Method = method
			if method == http.MethodPost {
				r.Body = io.NopCloser(strings.NewReader("the body"))
			}
		})
		if response.StatusCode == http.StatusOK && method == http.MethodPost {
			assert.Equal(t, "the body", body)
		}
		counts[response.StatusCode]++
	}
	return counts
}

// echoing answers with the body of the request.
func echoing(t *testing.T) int {
	return handler(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
}

// answering answers all requests with a status.
func answering(t *testing.T, status int) int {
	return handler(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
	})
}

// both registers a service with two instances.
func both(service string, first, second int, change ...func(*api.ServiceEntry)) []*api.ServiceEntry {
	return []*api.ServiceEntry{one(service, first, change...), one(service, second, change...)}
}

// callCodes returns how many of n calls ended with each code.
func callCodes(t *testing.T, n int, conn *grpc.ClientConn, method string) map[codes.Code]int {
	t.Helper()
	counts := map[codes.Code]int{}
	for range n {
		_, err := call(t, conn, method)
		counts[grpcstatus.Code(err)]++
	}
	return counts
}

func testRetryOn(t *testing.T, binary nginxtest.Binary) {
	paths := `{"/off": {"retry.on": "off"}, "/default": {"retry.on": "default"}}`
	all := both("web", answering(t, 503), echoing(t), tags("http_server"), meta("lb-retry-on", "http_503,error", "lb-paths", paths))
	all = append(all, both("refusing", refusing(t), echoing(t), meta("lb-protocol", "http", "lb-path", "/refusing", "lb-paths", `{"/refusing/off": {"retry.on": "off"}}`))...)
	all = append(all, both("calls", refusing(t), grpcServer(t, "calls"), tags("grpc_server"), meta("lb-paths", `{"/any.Service/Once": {"retry.on": "off"}}`))...)
	b := startBalancer(t, binary, nil, all...)
	url := "http://" + b.http
	assert.Equal(t, map[int]int{200: 10}, statuses(t, 10, http.MethodGet, url))
	assert.Equal(t, map[int]int{200: 5, 503: 5}, statuses(t, 10, http.MethodPost, url), "nginx sends no body twice")
	assert.Equal(t, map[int]int{200: 5, 503: 5}, statuses(t, 10, http.MethodGet, url+"/off"))
	assert.Equal(t, map[int]int{200: 5, 503: 5}, statuses(t, 10, http.MethodGet, url+"/default"))
	assert.Equal(t, map[int]int{200: 10}, statuses(t, 10, http.MethodPost, url+"/refusing"), "nothing of the request was sent")
	assert.Equal(t, map[int]int{200: 5, 502: 5}, statuses(t, 10, http.MethodGet, url+"/refusing/off"))
	conn := b.dial(t, "localhost")
	assert.Equal(t, map[codes.Code]int{codes.OK: 10}, callCodes(t, 10, conn, "/any.Service/Method"))
	assert.Equal(t, map[codes.Code]int{codes.OK: 5, codes.Unavailable: 5}, callCodes(t, 10, conn, "/any.Service/Once"))
}

func testRetryTries(t *testing.T, binary nginxtest.Binary) {
	var tries atomic.Int32
	closing := func() int {
		return listener(t, func(conn net.Conn) {
			tries.Add(1)
			http.ReadRequest(bufio.NewReader(conn))
		})
	}
	registrations := func(service string, change ...func(*api.ServiceEntry)) (all []*api.ServiceEntry) {
		for range 5 {
			all = append(all, one(service, closing(), change...))
		}
		return all
	}
	all := registrations("web", tags("http_server"), meta("lb-retry-tries", "2", "lb-paths", `{"/four": {"retry.tries": 4}, "/default": {"retry.tries": "default"}}`))
	port := strconv.Itoa(nginxtest.FreePort(t))
	tcp := streamModule(t, binary) != nginx.NoStream
	if tcp {
		for range 5 {
			all = append(all, one("tcp", refusing(t), meta("lb-protocol", "tcp", "lb-port", port, "lb-retry-tries", "2")))
		}
	}
	all = append(all, both("calls", refusing(t), grpcServer(t, "calls"), tags("grpc_server"), meta("lb-retry-tries", "1"))...)
	b := startBalancer(t, binary, nil, all...)
	for path, want := range map[string]int32{"/": 2, "/four": 4, "/default": 3} {
		tries.Store(0)
		response, _ := get(t, http.DefaultClient, "http://"+b.http+path)
		assert.Equal(t, http.StatusBadGateway, response.StatusCode)
		assert.Equal(t, want, tries.Load(), path)
	}
	assert.Equal(t, map[codes.Code]int{codes.OK: 5, codes.Unavailable: 5}, callCodes(t, 10, b.dial(t, "localhost"), "/any.Service/Method"))
	if tcp {
		_, err := dialTCP(t, net.JoinHostPort("127.0.0.1", port)).Read(make([]byte, 1))
		assert.Error(t, err)
		log, err := os.ReadFile(b.errorLog)
		require.NoError(t, err)
		assert.Equal(t, 2, strings.Count(string(log), "while connecting to upstream, client: 127.0.0.1, server: 127.0.0.1:"+port), "%s", log)
	}
}

func testRetryTimeout(t *testing.T, binary nginxtest.Binary) {
	pairs := []string{"lb-timeout-read", "200ms", "lb-retry-timeout", "100ms", "lb-paths", `{"/long": {"retry.timeout": "10s"}}`}
	b := startBalancer(t, binary, nil, both("web", mute(t), echoing(t), tags("http_server"), meta(pairs...))...)
	url := "http://" + b.http
	bounded(t, func() {
		assert.Equal(t, map[int]int{200: 4}, statuses(t, 4, http.MethodGet, url+"/long"))
		assert.Equal(t, map[int]int{200: 2, 504: 2}, statuses(t, 4, http.MethodGet, url))
	})
}

func testRetrySafe(t *testing.T, binary nginxtest.Binary) {
	abort := handler(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler) // the connection, or the HTTP/2 stream, ends without an answer
	})
	paths := `{"/safe": {"retry.safe": true}}`
	methods := `{"/any.Service/Safe": {"retry.safe": true, "retry.on": "error,timeout,invalid_header,http_503", "timeout.read": "300ms", "retry.timeout": "10s"}, "/any.Service": {"timeout.read": "300ms"}}`
	all := both("web", abort, httpServer(t, "web", httptest.NewServer), tags("http_server"), meta("lb-paths", paths))
	for service, bad := range map[string]int{"resets": abort, "hangs": mute(t), "refuses": answering(t, 503)} {
		all = append(all, both(service, bad, grpcServer(t, service), meta("lb-protocol", "grpc", "lb-host", service, "lb-paths", methods))...)
	}
	all = append(all, both("fails", abort, refusing(t), meta("lb-protocol", "grpc", "lb-host", "fails", "lb-paths", methods))...)
	all = append(all, one("said", grpcServer(t, "said", grpc.StreamInterceptor(sized)), meta("lb-protocol", "grpc", "lb-host", "said", "lb-paths", methods)))
	secure := httptest.NewUnstartedServer(nil)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	tlsCredentials := credentials.NewTLS(&tls.Config{Certificates: secure.TLS.Certificates, NextProtos: []string{"h2"}})
	all = append(all, one("tls", grpcServer(t, "tls", grpc.Creds(tlsCredentials)), meta("lb-protocol", "grpcs", "lb-host", "tls", "lb-paths", methods)))
	b := startBalancer(t, binary, nil, all...)
	assert.Equal(t, map[int]int{200: 10}, safePosts(t, b, "/safe"))
	assert.Equal(t, map[int]int{200: 5, 502: 5}, safePosts(t, b, "/other"))
	capable := atLeast(t, binary, "1.29.4")
	for _, service := range []string{"resets", "hangs", "refuses"} {
		t.Run(service, func(t *testing.T) {
			conn := b.dial(t, service)
			got := callCodes(t, 6, conn, "/any.Service/Safe")
			if capable {
				assert.Equal(t, map[codes.Code]int{codes.OK: 6}, got)
			} else {
				assert.Equal(t, 3, got[codes.OK])
				assert.Contains(t, said(t, binary, all...), "service "+service+": metadata: retry.safe on for /any.Service/Safe: it has no effect with nginx "+binary.Version+", want 1.29.4 or later")
			}
			assert.Equal(t, 3, callCodes(t, 6, conn, "/any.Service/Other")[codes.OK])
		})
	}
	assert.Equal(t, map[codes.Code]int{codes.OK: 3}, callCodes(t, 3, b.dial(t, "tls"), "/any.Service/Safe"))
	if !capable {
		return
	}
	_, err := call(t, b.dial(t, "fails"), "/any.Service/Safe")
	assert.Equal(t, codes.Unavailable, grpcstatus.Code(err), "%v", err)
	assert.Equal(t, "lbctl: no instance of fails could be reached, or it failed", grpcstatus.Convert(err).Message())

	var header grpcmetadata.MD
	conn := b.dial(t, "resets:5000")
	_, err = call(t, conn, "/any.Service/Safe", grpc.Header(&header))
	require.NoError(t, err)
	for key, want := range map[string]string{
		"seen-authority": "resets:5000", "seen-x-forwarded-for": "127.0.0.1", "seen-x-forwarded-host": "resets:5000", "seen-x-forwarded-proto": "http",
		"seen-with_underscore": "1", "seen-with.dot": "2",
	} {
		assert.Equal(t, []string{want}, header.Get(key), key)
	}
	ctx := grpcmetadata.AppendToOutgoingContext(t.Context(), "want-header", "5", "want-status", "20", "want-stream", "true")
	err = b.dial(t, "said").Invoke(ctx, "/any.Service/Safe", &protos.PingMessage{}, &protos.PingMessage{})
	assert.Equal(t, codes.Aborted, grpcstatus.Code(err), "an instance's status passes: %v", err)
	assert.Equal(t, strings.Repeat("m", 20), grpcstatus.Convert(err).Message())
}

// safePosts sends requests with bodies and counts the statuses.
func safePosts(t *testing.T, b balancer, path string) map[int]int {
	t.Helper()
	counts := map[int]int{}
	for range 10 {
		response, err := http.Post("http://"+b.http+path, "text/plain", strings.NewReader("12345"))
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		require.NoError(t, err)
		if response.StatusCode == http.StatusOK {
			assert.Equal(t, "web POST "+path+" 5", string(body))
		}
		counts[response.StatusCode]++
	}
	return counts
}
