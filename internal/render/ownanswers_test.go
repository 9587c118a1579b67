package render

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
)

// ownAnswers reads the access log: of each request who it was for, and why nginx answered itself.
type ownAnswers struct {
	lines  chan string
	reader *accesslog.Reader
}

func readOwnAnswers(t *testing.T, dir string) ownAnswers {
	t.Helper()
	reader, err := accesslog.New(accesslog.Options{Dir: dir, Reopen: func() error { return nil }, InFlight: true, Started: nginx.ProcessStarted})
	require.NoError(t, err)
	o := ownAnswers{make(chan string, 100), reader}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		reader.Run(ctx, func(r *accesslog.Record) {
			if !r.Internal() {
				o.lines <- fmt.Sprintf("%s|%s|%s|%s", r.Method, r.Service, r.Route, r.OwnReason(string(r.Service) == "resting"))
			}
		})
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return o
}

// equal waits for as many lines, and compares them.
func (o ownAnswers) equal(t *testing.T, want []string) {
	t.Helper()
	var lines []string
	for timeout := time.After(20 * time.Second); len(lines) < len(want); {
		select {
		case line := <-o.lines:
			lines = append(lines, line)
		case <-timeout:
			assert.ElementsMatch(t, want, lines)
			return
		}
	}
	assert.ElementsMatch(t, want, lines)
	noneInFlight(t, o.reader)
}

// sendRaw sends text to an address, and returns the status of the answer; 0 if there is none.
func sendRaw(t *testing.T, address, text string) int {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// Whose each of nginx's own answers is: the method, the service and the route in the access log,
// and the reason. A service is missing where nginx answers before it has looked at the path.
func TestServicesOfOwnAnswers(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		t.Run("HTTP", func(t *testing.T) { testOwnHTTPAnswers(t, binary) })
		t.Run("gRPC", func(t *testing.T) { testOwnGRPCAnswers(t, binary) })
		t.Run("TLS", func(t *testing.T) { testOwnTLSAnswers(t, binary) })
	})
}

func testOwnHTTPAnswers(t *testing.T, binary nginxtest.Binary) {
	dir := nginxtest.MemoryDir(t)
	answers := readOwnAnswers(t, dir)
	web, dead := httpServer(t, "web", httptest.NewServer), refusing(t)
	b := startBalancerWith(t, binary, func(s *Settings) { s.AccessLogDir, s.LogRequests, s.InFlight = dir, true, true },
		func(files map[string][]byte) {
			files["http.conf"] = bytes.ReplaceAll(files["http.conf"], []byte("include http-errors.conf;"), []byte("include http-errors.conf; client_body_timeout 200ms; client_header_timeout 200ms;"))
		},
		one("web", web, meta("lb-protocol", "http", "lb-path", "/web", "lb-limit-body", "1000")),
		one("free", web, meta("lb-protocol", "http", "lb-path", "/web", "lb-header", "x-version=free")),
		one("open", web, meta("lb-protocol", "http", "lb-path", "/open")),
		one("small", web, meta("lb-protocol", "http", "lb-path", "/open", "lb-header", "x-version=small", "lb-limit-body", "1000")),
		one("slow", web, meta("lb-protocol", "http", "lb-path", "/slow", "lb-limit-address-rate", "1/m")),
		one("resting", web, meta("lb-protocol", "http", "lb-path", "/resting", "lb-maintenance-enabled", "on")),
		one("dead", dead, meta("lb-protocol", "http", "lb-path", "/dead")),
	)
	post := func(path, length string, headers ...string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: a\r\n" + strings.Join(append(headers, length, "Connection: close"), "\r\n") + "\r\n\r\n"
	}
	length := func(n int) string { return fmt.Sprintf("Content-Length: %d", n) }
	body, chunked := strings.Repeat("x", 2000), "7d0\r\n"+strings.Repeat("x", 2000)+"\r\n0\r\n\r\n"
	const chunks = "Transfer-Encoding: chunked"
	var want []string
	for _, c := range []struct {
		name, request string
		status        int
		want          string // method|service|route|reason
	}{
		// The service is known: nginx has found the location and run its "set".
		{"a large body", post("/web", length(2000)) + body, 413, "POST|web|*/web|body-too-large"},
		{"a large body that the client has not sent yet", post("/web", length(2000), "Expect: 100-continue"), 413, "POST|web|*/web|body-too-large"},
		{"a large body whose length has zeros before it", post("/web", "Content-Length: 0002000") + body, 413, "POST|web|*/web|body-too-large"},
		{"a large body in chunks", post("/web", chunks) + chunked, 413, "POST|web|*/web|body-too-large"},
		{"a large body for a service that shares the path and has no limit", post("/web", length(2000), "X-Version: free") + body, 200, "POST|free|*/web [x-version=free]|"},
		{"a large body for a service that shares the path and has a limit", post("/open", length(2000), "X-Version: small") + body, 413, "POST|small|*/open [x-version=small]|body-too-large"},
		{"the same in chunks", post("/open", chunks, "X-Version: small") + chunked, 413, "POST|small|*/open [x-version=small]|body-too-large"},
		{"a large body for the service without a limit", post("/open", length(2000)) + body, 200, "POST|open|*/open|"},
		{"a body that does not arrive", post("/open", length(10)), 0, "POST|open|*/open|request-timeout"},
		{"large headers", post("/open", length(0), "X-A: "+strings.Repeat("a", 120_000)), 431, "POST|open|*/open|headers-too-large"},
		{"the first of two requests a minute", post("/slow", length(0)), 200, "POST|slow|*/slow|"},
		{"the second", post("/slow", length(0)), 200, "POST|slow|*/slow|"},
		{"the third", post("/slow", length(0)), 429, "POST|slow|*/slow|rate-limit"},
		{"maintenance", post("/resting", length(0)), 503, "POST|resting|*/resting|maintenance"},
		{"no instance answers", post("/dead", length(0)), 502, "POST|dead|*/dead|unreachable"},
		// There is no service for the path.
		{"no route", post("/nowhere", length(0)), 404, "POST|||no-route"},
		// nginx answers before it has looked at the path.
		{"a method that is not passed on", "TRACE /web HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405, "TRACE|||method"},
		{"no host", "GET /web HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "GET|||bad-request"},
		{"another transfer encoding", post("/web", "Transfer-Encoding: gzip"), 501, "POST|||bad-request"},
		{"another version of HTTP", "GET /web HTTP/3.0\r\nHost: a\r\n\r\n", 505, "GET|||bad-request"},
		{"no HTTP", "garbage\r\n\r\n", 400, "|||bad-request"},
		{"a long path", "GET /" + strings.Repeat("a", 300_000) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414, "GET|||path-too-long"},
		{"headers that do not arrive", "GET /web HTTP/1.1\r\nHost: a\r\n", 0, "GET|||request-timeout"},
		{"very large headers", post("/web", length(0), "X-A: "+strings.Repeat("a", 300_000)), 431, "POST|||headers-too-large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.status, sendRaw(t, b.http, c.request))
			want = append(want, c.want)
		})
	}
	answers.equal(t, want)
}

func testOwnGRPCAnswers(t *testing.T, binary nginxtest.Binary) {
	dir := nginxtest.MemoryDir(t)
	answers := readOwnAnswers(t, dir)
	b := startBalancerWith(t, binary, func(s *Settings) { s.AccessLogDir, s.LogRequests, s.InFlight = dir, true, true }, nil,
		one("calls", grpcServer(t, "calls"), meta("lb-protocol", "grpc", "lb-grpc", "a.Limited", "lb-limit-body", "1000")),
		one("free", grpcServer(t, "free"), meta("lb-protocol", "grpc", "lb-grpc", "a.Limited", "lb-header", "x-version=free")),
		one("open", grpcServer(t, "open"), meta("lb-protocol", "grpc", "lb-grpc", "a.Open")),
		one("small", grpcServer(t, "small"), meta("lb-protocol", "grpc", "lb-grpc", "a.Open", "lb-header", "x-version=small", "lb-limit-body", "1000")),
		one("resting", grpcServer(t, "resting"), meta("lb-protocol", "grpc", "lb-grpc", "a.Resting", "lb-maintenance-enabled", "on")),
		one("dead", refusing(t), meta("lb-protocol", "grpc", "lb-grpc", "a.Dead")),
	)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	large := append([]byte{0, 0, 0, 2000 >> 8, 2000 & 0xff}, bytes.Repeat([]byte{0x78, 1}, 1000)...) // fields that nobody knows
	var want []string
	for _, c := range []struct {
		name, path string
		large      bool
		withLength bool
		change     func(*http.Request)
		grpcStatus string
		want       string // method|service|route|reason
	}{
		{"a large message", "/a.Limited/M", true, false, nil, "8", "POST|calls|*/a.Limited|body-too-large"},
		{"a large message with its length", "/a.Limited/M", true, true, nil, "8", "POST|calls|*/a.Limited|body-too-large"},
		{"of the service without a limit, with its length", "/a.Limited/M", true, true, withHeader("x-version", "free"), "0", "POST|free|*/a.Limited [x-version=free]|"},
		{"of the one with a limit, with its length", "/a.Open/M", true, true, withHeader("x-version", "small"), "8", "POST|small|*/a.Open [x-version=small]|body-too-large"},
		{"of the one with a limit", "/a.Open/M", true, false, withHeader("x-version", "small"), "8", "POST|small|*/a.Open [x-version=small]|body-too-large"},
		{"of the other", "/a.Open/M", true, true, nil, "0", "POST|open|*/a.Open|"},
		{"gRPC-Web", "/a.Open/M", false, false, withHeader("content-type", "application/grpc-web+proto"), "12", "POST|open|*/a.Open|grpc-web"},
		{"large metadata", "/a.Open/M", false, false, withHeader("x-a", strings.Repeat("X", 120_000)), "8", "POST|open|*/a.Open|headers-too-large"},
		{"maintenance", "/a.Resting/M", false, false, nil, "14", "POST|resting|*/a.Resting|maintenance"},
		{"no instance answers", "/a.Dead/M", false, false, nil, "14", "POST|dead|*/a.Dead|unreachable"},
		{"no route", "/a.None/M", false, false, nil, "12", "POST|||no-route"},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := io.Reader(bytes.NewReader(make([]byte, 5)))
			if c.large {
				body = bytes.NewReader(large)
			}
			if !c.withLength {
				body = io.MultiReader(body)
			}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+b.grpc+c.path, body)
			require.NoError(t, err)
			request.Header.Set("Content-Type", "application/grpc")
			request.Header.Set("Te", "trailers")
			if c.change != nil {
				c.change(request)
			}
			response, err := transport.RoundTrip(request)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
			response.Body.Close()
			assert.Equal(t, c.grpcStatus, response.Trailer.Get("Grpc-Status")+response.Header.Get("Grpc-Status"), "%v %v", response.Header, response.Trailer)
			want = append(want, c.want)
		})
	}
	answers.equal(t, want)
}

// The host decides about certificates, before nginx looks at the path.
func testOwnTLSAnswers(t *testing.T, binary nginxtest.Binary) {
	ca, staff := certificatestest.NewAuthority(t, "test"), certificatestest.NewAuthority(t, "staff")
	dir := nginxtest.MemoryDir(t)
	answers := readOwnAnswers(t, dir)
	b := startSecured(t, binary, func(dir string) {
		ca.Issue(t, 100*days, "staff.test", "open.test").Write(t, dir, "all")
		certificatestest.Write(t, dir, "staff.test.client-ca.pem", staff.PEM)
	}, func(s *Settings) { s.AccessLogDir, s.LogRequests, s.InFlight = dir, true, true },
		entry("site", httpServer(t, "site", httptest.NewServer), tags("http_server")),
	)
	ask := func(host, serverName string) int {
		response, _ := get(t, b.client(t, b.https, &tls.Config{RootCAs: ca.Pool(), ServerName: serverName}), "https://"+host)
		return response.StatusCode
	}
	assert.Equal(t, 200, ask("open.test", "open.test"))
	assert.Equal(t, 403, ask("staff.test", "staff.test"))
	assert.Equal(t, 421, ask("staff.test", "open.test"))
	assert.Equal(t, 400, sendRaw(t, b.https, "GET / HTTP/1.1\r\nHost: open.test\r\n\r\n"), "HTTP on the port of HTTPS")
	answers.equal(t, []string{"GET|site|*|", "GET|||client-certificate", "GET|||other-host", "GET|||bad-request"})
}
