package render

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// handler returns the port of an HTTP server, which also speaks HTTP/2 without TLS.
func handler(t *testing.T, serve http.HandlerFunc) int {
	t.Helper()
	server := httptest.NewUnstartedServer(serve)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}

// one returns an instance on a port of this machine.
func one(service string, port int, change ...func(*api.ServiceEntry)) *api.ServiceEntry {
	return registration(service, fmt.Sprintf("%s-%d", service, port), "127.0.0.1", port, change...)
}

// A request that every instance breaks off fails no other request.
func TestARequestThatBreaksInstancesFailsNoOther(t *testing.T) {
	fragile := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/die") || strings.HasSuffix(r.URL.Path, "/Die") {
			panic(http.ErrAbortHandler) // the connection, or the HTTP/2 stream, ends without an answer
		}
		io.Copy(io.Discard, r.Body) // otherwise Go would reset the stream
		if r.ProtoMajor == 2 {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			w.Write([]byte{0, 0, 0, 0, 0})
			w.Header().Set("Grpc-Status", "0")
			return
		}
		fmt.Fprint(w, "fine")
	}
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		var instances []*api.ServiceEntry
		for range 3 {
			instances = append(instances, one("web", handler(t, fragile), tags("http_server")))
			instances = append(instances, one("calls", handler(t, fragile), tags("grpc_server")))
		}
		b := startBalancer(t, binary, nil, instances...)
		for range 3 {
			response, body := get(t, http.DefaultClient, "http://"+b.http+"/die")
			require.Equal(t, http.StatusBadGateway, response.StatusCode, body)
			for range 12 {
				response, body := get(t, http.DefaultClient, "http://"+b.http+"/")
				require.Equal(t, http.StatusOK, response.StatusCode, body)
			}
		}
		conn := b.dial(t, "localhost")
		for range 6 { // like a server that resets a call at its deadline
			_, err := call(t, conn, "/any.Service/Die")
			require.Error(t, err)
			_, err = call(t, conn, "/any.Service/Method")
			require.NoError(t, err)
		}
	})
}

// An operator can still use nginx's own marks.
func TestMarksOfNginx(t *testing.T) {
	assert.Equal(t, "max_fails=0", nginx.Marks{}.String())
	assert.Equal(t, "max_fails=3 fail_timeout=2s", nginx.Marks{MaxFails: 3}.String())
	assert.Equal(t, "max_fails=1 fail_timeout=1s", nginx.Marks{MaxFails: 1, FailTimeout: 250 * time.Millisecond}.String())
	settings := testSettings("1.30.6")
	settings.Marks = nginx.Marks{MaxFails: 2, FailTimeout: time.Second}
	c, err := offline(Options{Settings: settings}, parseAll(one("web", 80, tags("http_server"))), testNames())
	require.NoError(t, err)
	assert.Contains(t, string(c.Files["http.conf"]), "server 127.0.0.1:80 weight=1 max_fails=2 fail_timeout=1s;")
}

// Only errors reach the locations for nginx's own errors.
func TestErrorPagesAreOutOfReach(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		greedy := "/.lb/400,/.lb/404,/.lb/500,/.lb/502,/.lb/503,/.lb"
		b := startBalancer(t, binary, nil,
			one("greedy", httpServer(t, "greedy", httptest.NewServer), meta("lb-protocol", "http", "lb-path", greedy)),
			one("nobody", 1, meta("lb-protocol", "http", "lb-path", "/nobody"), status("maintenance")),
			one("refusing", refusing(t), meta("lb-protocol", "http", "lb-path", "/refusing")),
			one("greedy-grpc", grpcServer(t, "greedy"), meta("lb-protocol", "grpc", "lb-path", greedy)),
			one("refusing-grpc", refusing(t), meta("lb-protocol", "grpc", "lb-path", "/pkg.Refusing")),
		)
		for path, want := range map[string]string{
			"/elsewhere": "no service is routed for this host and path\n",
			"/nobody":    "no instance of nobody is in rotation\n",
			"/refusing":  "no instance of refusing could be reached, or it failed\n",
		} {
			_, body := get(t, http.DefaultClient, "http://"+b.http+path)
			assert.Equal(t, want, body)
		}
		for method, want := range map[string]codes.Code{"/pkg.Refusing/Method": codes.Unavailable, "/pkg.Unknown/Method": codes.Unimplemented} {
			_, err := call(t, b.dial(t, "localhost"), method)
			assert.Equal(t, want, grpcstatus.Code(err), "%v", err)
		}
		for _, path := range []string{"/../(404)", "/x/../../(404)", "/%2e%2e/(404)", "//../(404)", "/..%2f(404)", "/.././(502)", "../(404)", "/(404)"} {
			status, body := raw(t, b.http, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			assert.Contains(t, []int{400, 404}, status, "%s: %s", path, body)
		}
	})
}

// raw sends a request as it is and returns the response.
func raw(t *testing.T, address, request string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	_, err = fmt.Sscanf(head, "HTTP/1.1 %d", &status)
	require.NoError(t, err, "%s", answer)
	return status, body
}

// Headers of an instance's response reach the client and don't control nginx.
func TestHeadersOfInstancesDoNotSteerNginx(t *testing.T) {
	orders := map[string]string{
		"X-Accel-Redirect":   "/secret/x",
		"X-Accel-Expires":    "0",
		"X-Accel-Limit-Rate": "10",
		"X-Accel-Charset":    "koi8-r",
	}
	long := strings.Repeat("web itself ", 1000) // hours at 10 bytes a second
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startBalancer(t, binary, nil,
			one("web", handler(t, func(w http.ResponseWriter, r *http.Request) {
				for key, value := range orders {
					w.Header().Set(key, value)
				}
				w.Header().Set("Location", "http://http-web/as-it-is")
				w.Header().Set("X-Accel-Buffering", "yes") // nginx limits the rate of buffered responses only
				fmt.Fprint(w, long)
			}), tags("http_server")),
			one("secret", httpServer(t, "secret", httptest.NewServer), meta("lb-protocol", "http", "lb-path", "/secret")),
			one("calls", grpcServer(t, "calls", grpc.StreamInterceptor(
				func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
					stream.SetHeader(grpcmetadata.New(orders))
					return next(srv, stream)
				})), tags("grpc_server")),
		)
		response, body := get(t, http.DefaultClient, "http://"+b.http+"/")
		assert.Equal(t, long, body)
		assert.Equal(t, "http://http-web/as-it-is", response.Header.Get("Location"))
		var header grpcmetadata.MD
		who, err := call(t, b.dial(t, "localhost"), "/any.Service/Method", grpc.Header(&header))
		require.NoError(t, err)
		assert.Equal(t, "calls", who)
		for key, value := range orders {
			assert.Equal(t, value, response.Header.Get(key), key)
			assert.Equal(t, []string{value}, header.Get(key), key)
		}
		log, err := os.ReadFile(b.errorLog)
		require.NoError(t, err)
		assert.NotContains(t, string(log), "koi8-r", "a charset that nginx tries to use")
	})
}

// Metadata and headers of the size that real services need pass. Larger ones are refused
// with the reason, and other calls on the connection are not affected.
func TestSizes(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		size := func(r *http.Request) int {
			var n int
			fmt.Sscan(r.URL.Query().Get("size"), &n)
			return n
		}
		b := startBalancer(t, binary, nil,
			one("web", handler(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Large", strings.Repeat("x", size(r)))
				fmt.Fprint(w, len(r.Header.Get("X-Large")))
			}), tags("http_server")),
			one("calls", grpcServer(t, "calls", grpc.StreamInterceptor(sized)), tags("grpc_server")),
		)
		conn := b.dial(t, "localhost")
		idle, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/any.Service/Stream")
		require.NoError(t, err)

		for _, c := range []struct {
			name    string
			request []int // sizes of the request's metadata values
			header  int   // size of the answer's metadata
			status  int   // length of the status message
			stream  bool  // the answer has a message before its status
			code    codes.Code
			message string
		}{
			{name: "metadata of 40 kB", request: []int{40e3}},
			{name: "metadata of 80 kB in two values", request: []int{40e3, 40e3}},
			{name: "metadata of 200 kB in one value", request: []int{200e3}, code: codes.ResourceExhausted, message: "lbctl: the request metadata is too large"},
			{name: "metadata of 800 kB in all", request: []int{400e3, 400e3}, code: codes.ResourceExhausted, message: "lbctl: the request metadata is too large"},
			{name: "metadata of 50 kB in the answer", header: 50e3},
			{name: "metadata of 200 kB in the answer", header: 200e3, code: codes.ResourceExhausted, message: "lbctl: the metadata in the answer of calls is too large"},
			{name: "a status message of 30 kB", status: 30e3, code: codes.Aborted, message: strings.Repeat("m", 30e3)},
			{name: "a status message of 200 kB", status: 200e3, code: codes.ResourceExhausted, message: "lbctl: the metadata in the answer of calls is too large"},
			{name: "a status message of 50 kB after an answer", status: 50e3, stream: true, code: codes.Aborted, message: strings.Repeat("m", 50e3)},
		} {
			t.Run(c.name, func(t *testing.T) {
				ctx := t.Context()
				for _, n := range c.request {
					ctx = grpcmetadata.AppendToOutgoingContext(ctx, "large", strings.Repeat("x", n))
				}
				ctx = grpcmetadata.AppendToOutgoingContext(ctx, "want-header", fmt.Sprint(c.header), "want-status", fmt.Sprint(c.status), "want-stream", fmt.Sprint(c.stream))
				ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
				defer cancel()
				err := conn.Invoke(ctx, "/any.Service/Method", &protos.PingMessage{}, &protos.PingMessage{})
				assert.Equal(t, c.code, grpcstatus.Code(err), "%.200v", err)
				assert.Equal(t, c.message, grpcstatus.Convert(err).Message())
			})
		}
		require.NoError(t, idle.SendMsg(&protos.PingMessage{}))
		assert.NoError(t, idle.RecvMsg(&protos.PingMessage{}), "the stream that was open during all calls")

		for _, c := range []struct {
			name    string
			request int
			query   string
			code    int
			body    string
		}{
			{"request headers of 80 kB", 80e3, "", 200, "80000"},
			{"request headers of 150 kB", 150e3, "", 431, "the request headers are too large\n"},
			{"request headers of 300 kB", 300e3, "", 431, "the request headers are too large\n"},
			{"an address of 80 kB", 0, strings.Repeat("x", 80e3), 200, "0"},
			{"an address of 300 kB", 0, strings.Repeat("x", 300e3), 414, "the address is too long\n"},
			{"response headers of 50 kB", 0, "size=50000", 200, "0"},
			{"response headers of 200 kB", 0, "size=200000", 502, "the headers in the answer of web are too large\n"},
		} {
			t.Run(c.name, func(t *testing.T) {
				response, body := get(t, http.DefaultClient, "http://"+b.http+"/?"+c.query, func(r *http.Request) {
					if c.request > 0 {
						r.Header.Set("X-Large", strings.Repeat("x", c.request))
					}
				})
				assert.Equal(t, c.code, response.StatusCode)
				assert.Equal(t, c.body, body)
			})
		}
	})
}

// sized answers with metadata of the sizes that a call asks for.
func sized(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	wants, _ := grpcmetadata.FromIncomingContext(stream.Context())
	var header, message int
	if want := wants.Get("want-header"); len(want) > 0 {
		fmt.Sscan(want[0], &header)
		fmt.Sscan(wants.Get("want-status")[0], &message)
		if header > 0 {
			stream.SetHeader(grpcmetadata.Pairs("large", strings.Repeat("x", header)))
		}
	}
	if message == 0 || wants.Get("want-stream")[0] == "true" {
		if err := next(srv, stream); err != nil || message == 0 {
			return err
		}
	}
	return grpcstatus.Error(codes.Aborted, strings.Repeat("m", message))
}

// An instance that has reached lb-max-conns is busy, not failed.
func testMaxConns(t *testing.T, binary nginxtest.Binary) {
	began, end := make(chan bool, 10), make(chan bool)
	wait := func(w http.ResponseWriter, r *http.Request) {
		began <- true
		<-end
	}
	b := startBalancer(t, binary, nil,
		one("web", handler(t, wait), tags("http_server"), meta("lb-max-conns", "1")),
		one("calls", handler(t, wait), tags("grpc_server"), meta("lb-max-conns", "1")),
	)
	defer close(end)
	go http.Get("http://" + b.http + "/")
	<-began
	response, body := get(t, http.DefaultClient, "http://"+b.http+"/")
	assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	assert.Equal(t, "all instances of web are busy\n", body)
	assert.Equal(t, "1", response.Header.Get("Retry-After"))

	conn := b.dial(t, "localhost")
	go conn.Invoke(t.Context(), "/any.Service/Method", &protos.PingMessage{}, &protos.PingMessage{})
	<-began
	var trailer grpcmetadata.MD
	_, err := call(t, conn, "/any.Service/Method", grpc.Trailer(&trailer))
	assert.Equal(t, codes.ResourceExhausted, grpcstatus.Code(err), "%v", err)
	assert.Equal(t, "lbctl: all instances of calls are busy", grpcstatus.Convert(err).Message())
	assert.Equal(t, []string{"1000"}, trailer.Get("grpc-retry-pushback-ms"))
}

// With nginx's marks on, an instance may be out because of a mark or of lb-max-conns. nginx
// doesn't say which, so the answer names both.
func TestInstancesMarkedAsFailed(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		began, end := make(chan bool, 10), make(chan bool)
		wait := func(w http.ResponseWriter, r *http.Request) {
			began <- true
			<-end
		}
		b := startBalancerWith(t, binary, func(s *Settings) { s.Marks = nginx.Marks{MaxFails: 1, FailTimeout: time.Hour} }, nil,
			one("web", refusing(t), tags("http_server")),
			one("web", refusing(t), tags("http_server")),
			one("calls", refusing(t), tags("grpc_server")),
			one("calls", refusing(t), tags("grpc_server")),
			one("limited", handler(t, wait), meta("lb-protocol", "grpc", "lb-path", "/pkg.Limited", "lb-max-conns", "1")),
		)
		defer close(end)
		response, body := get(t, http.DefaultClient, "http://"+b.http+"/")
		assert.Equal(t, http.StatusBadGateway, response.StatusCode, "the request that marks the instances")
		assert.Equal(t, "no instance of web could be reached, or it failed\n", body)
		response, body = get(t, http.DefaultClient, "http://"+b.http+"/")
		assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
		assert.Equal(t, "all instances of web are busy or marked as failed\n", body)

		conn := b.dial(t, "localhost")
		_, err := call(t, conn, "/any.Service/Method")
		assert.Equal(t, "lbctl: no instance of calls could be reached, or it failed", grpcstatus.Convert(err).Message())
		_, err = call(t, conn, "/any.Service/Method")
		assert.Equal(t, codes.Unavailable, grpcstatus.Code(err), "%v", err)
		assert.Equal(t, "lbctl: all instances of calls are busy or marked as failed", grpcstatus.Convert(err).Message())

		go conn.Invoke(t.Context(), "/pkg.Limited/Method", &protos.PingMessage{}, &protos.PingMessage{})
		<-began
		_, err = call(t, conn, "/pkg.Limited/Method")
		assert.Equal(t, codes.Unavailable, grpcstatus.Code(err), "%v", err)
		assert.Equal(t, "lbctl: all instances of limited are busy or marked as failed", grpcstatus.Convert(err).Message())
	})
}

// nginx disconnects a client that opens streams only to reset them before it has cost the
// instances much.
func TestRapidResets(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startBalancer(t, binary, nil, one("calls", grpcServer(t, "calls"), tags("grpc_server")))
		conn, err := net.Dial("tcp", b.grpc)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))

		var sent bytes.Buffer // sent at once, which is the attack
		sent.WriteString(http2.ClientPreface)
		framer := http2.NewFramer(&sent, conn)
		require.NoError(t, framer.WriteSettings())
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		const streams = 4000
		for n := range uint32(streams) {
			block.Reset()
			for _, field := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/any.Service/Method"}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
				require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
			}
			require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: block.Bytes(), EndHeaders: true}))
			require.NoError(t, framer.WriteRSTStream(2*n+1, http2.ErrCodeCancel))
		}
		go conn.Write(sent.Bytes())
		last := uint32(0)
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				require.NotErrorIs(t, err, context.DeadlineExceeded)
				break // closed, as expected
			}
			if away, ok := frame.(*http2.GoAwayFrame); ok {
				last = away.LastStreamID
			}
		}
		assert.NotZero(t, last, "no GOAWAY")
		assert.Less(t, last, uint32(2*streams/3), "the last stream that nginx accepted")
	})
}

// A client address can't have more connections at a time than the operator allows.
func TestConnectionsPerClient(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		began, end := make(chan bool, 10), make(chan bool)
		wait := func(w http.ResponseWriter, r *http.Request) {
			began <- true
			<-end
		}
		b := startBalancerWith(t, binary, func(s *Settings) { s.MaxConnsPerClient = 2 }, nil,
			one("web", handler(t, wait), tags("http_server")),
			one("calls", handler(t, wait), meta("lb-protocol", "grpc", "lb-path", "/any.Service")),
		)
		defer close(end)
		for range 2 {
			go http.Get("http://" + b.http + "/")
			<-began
		}
		response, body := get(t, http.DefaultClient, "http://"+b.http+"/")
		assert.Equal(t, http.StatusTooManyRequests, response.StatusCode)
		assert.Equal(t, "too many requests\n", body)
		_, err := call(t, b.dial(t, "localhost"), "/any.Service/Method")
		assert.Equal(t, codes.ResourceExhausted, grpcstatus.Code(err), "%v", err)
	})
}
