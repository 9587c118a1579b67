package render

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// copies returns an HTTP server that passes on what it gets.
func copies(t *testing.T, to chan string) int {
	return handler(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		to <- fmt.Sprintf("%s %s%s %s", r.Method, r.Host, r.RequestURI, body)
		w.WriteHeader(http.StatusTeapot) // nobody sees it
	})
}

// grpcCopies returns a gRPC server that passes on which methods are called.
func grpcCopies(t *testing.T, to chan string) int {
	return grpcServer(t, "copy", grpc.StreamInterceptor(func(_ any, stream grpc.ServerStream, info *grpc.StreamServerInfo, _ grpc.StreamHandler) error {
		var in protos.PingMessage
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		to <- info.FullMethod + " " + in.Greeting
		return grpcstatus.Error(codes.Internal, "nobody sees it")
	}))
}

func received(t *testing.T, from chan string) string {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(20 * time.Second):
		t.Fatal("no copy came")
		return ""
	}
}

func testMirror(t *testing.T, binary nginxtest.Binary) {
	web, calls := make(chan string, 100), make(chan string, 100)
	b := startBalancer(t, binary, nil,
		one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), meta("lb-mirror-service", "web-next", "lb-paths",
			`{"/plain": {"mirror.service": "default"}, "/strip": {"path.replace-prefix": "/"}}`)),
		one("web-next", copies(t, web), meta("lb-protocol", "http", "lb-host", "next.test")),
		one("calls", grpcServer(t, "calls"), tags("grpc_server"), meta("lb-paths", `{"/shop.Cart/Add": {"mirror.service": "calls-next"}}`)),
		one("calls-next", grpcCopies(t, calls), meta("lb-protocol", "grpc", "lb-host", "next.test")),
		one("dead", httpServer(t, "dead", httptest.NewServer), meta("lb-protocol", "http", "lb-path", "/dead", "lb-mirror-service", "dead-next")),
		one("dead-next", refusing(t), meta("lb-protocol", "http", "lb-host", "dead.test")),
	)
	for path, want := range map[string]string{"/a%2Fb//c?d=%7e": "/a%2Fb//c?d=%7e", "/strip/a%2Fb?c": "/a%2Fb?c"} {
		response, err := http.Post("http://"+b.http+path, "text/plain", strings.NewReader("body"))
		require.NoError(t, err)
		answer, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		response.Body.Close()
		assert.Equal(t, fmt.Sprintf("web POST %s 4", want), string(answer))
		assert.Equal(t, "POST "+b.http+want+" body", received(t, web))
	}
	large := strings.Repeat("x", 1<<20)
	response, err := http.Post("http://"+b.http+"/", "text/plain", strings.NewReader(large))
	require.NoError(t, err)
	response.Body.Close()
	assert.Equal(t, "POST "+b.http+"/ "+large, received(t, web))
	_, body := get(t, http.DefaultClient, "http://"+b.http+"/dead")
	assert.Equal(t, "dead GET /dead 0", body, "what becomes of a copy does not matter")

	conn := b.dial(t, "localhost")
	name, err := call(t, conn, "/shop.Cart/Add")
	require.NoError(t, err)
	assert.Equal(t, "calls", name)
	assert.Equal(t, "/shop.Cart/Add hello", received(t, calls))
	// Other paths and methods are not copied: the next copies are those of later requests.
	_, err = call(t, conn, "/shop.Cart/Remove")
	require.NoError(t, err)
	_, err = call(t, conn, "/shop.Cart/Add")
	require.NoError(t, err)
	assert.Equal(t, "/shop.Cart/Add hello", received(t, calls))
	get(t, http.DefaultClient, "http://"+b.http+"/plain/x")
	get(t, http.DefaultClient, "http://"+b.http+"/last")
	assert.Equal(t, "GET "+b.http+"/last ", received(t, web))
	assert.Empty(t, calls)
	assert.Empty(t, web)
	// A WebSocket works, and is not copied.
	upgraded := dialTCP(t, b.http)
	fmt.Fprintf(upgraded, "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello\n")
	require.NoError(t, upgraded.SetDeadline(time.Now().Add(20*time.Second)))
	text, err := io.ReadAll(upgraded)
	require.NoError(t, err)
	assert.Contains(t, string(text), "web heard hello")
	assert.Empty(t, web)
}

func testMirrorPercent(t *testing.T, binary nginxtest.Binary) {
	copied := make(chan string, 2000)
	b := startBalancer(t, binary, nil,
		one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), meta("lb-mirror-service", "next", "lb-mirror-percent", "25.5",
			"lb-paths", `{"/all": {"mirror.percent": 100}}`)),
		one("next", copies(t, copied), meta("lb-protocol", "http", "lb-host", "next.test")),
	)
	const requests = 800
	for range requests {
		get(t, http.DefaultClient, "http://"+b.http+"/x")
	}
	get(t, http.DefaultClient, "http://"+b.http+"/all")
	n := 0
	for received(t, copied) != "GET "+b.http+"/all " {
		n++
	}
	// Five standard deviations of a binomial distribution.
	assert.InDelta(t, 0.255*requests, n, 62)
}

func TestMirrorsThatCannotBe(t *testing.T) {
	problems := func(pairs ...string) []string {
		c, err := offline(Options{Settings: testSettings("1.30.6")}, parseAll(
			one("web", 80, tags("http_server"), meta(pairs...)),
			one("calls", 80, tags("grpc_server"), meta("lb-mirror-service", "calls")),
			one("db", 81, meta("lb-protocol", "tcp", "lb-port", "6379")),
		), testNames())
		require.NoError(t, err)
		assert.NotContains(t, string(c.Files["http.conf"]), "mirror")
		var all []string
		for _, p := range c.Problems {
			all = append(all, p.Subject+": "+p.Message)
		}
		return all
	}
	const whole = `service calls: metadata: mirror.service calls: it has no effect on a whole gRPC service: want it in paths, for single unary methods, "/package.Service/Method"`
	for name, want := range map[string]string{
		"web":   `service web: metadata: mirror.service "web": it is the service itself, want another one`,
		"webb":  `service web: metadata: mirror.service "webb": there is no HTTP or gRPC service of that name with a route`,
		"calls": `service web: metadata: mirror.service "calls": its protocol is grpc, want one like http`,
		"db":    `service web: metadata: mirror.service "db": there is no HTTP or gRPC service of that name with a route`,
	} {
		assert.Contains(t, problems("lb-mirror-service", name), want)
		assert.Contains(t, problems("lb-mirror-service", name), whole)
	}
}
