package render

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/accesslog"
	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// logged reads the access log of a balancer.
type logged struct {
	mu      sync.Mutex
	records map[string]int
	reader  *accesslog.Reader
}

// startLog starts a reader of the access log. names has what to write in the place of ports.
func startLog(t *testing.T, dir string, names map[int]string) *logged {
	t.Helper()
	reader, err := accesslog.New(accesslog.Options{Dir: dir, Reopen: func() error { return nil }, InFlight: true, Started: nginx.ProcessStarted})
	require.NoError(t, err)
	l := &logged{records: map[string]int{}, reader: reader}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		reader.Run(ctx, func(r *accesslog.Record) {
			if r.Internal() {
				return
			}
			text := r.String()
			switch { // either side may have ended it, and the server in two ways
			case r.Timeout == serversDeadline && r.Expired():
				text = string(r.Service) + " expired"
			case r.Timeout > 0 && r.Timeout <= shortDeadline:
				text = string(r.Service) + " late"
			}
			for port, name := range names {
				text = strings.ReplaceAll(text, fmt.Sprintf("127.0.0.1:%d", port), name)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.records[text]++
		})
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return l
}

// wait waits until so many requests are in the log, and returns them.
func (l *logged) wait(t *testing.T, n int) map[string]int {
	t.Helper()
	var all map[string]int
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		l.mu.Lock()
		all = maps.Clone(l.records)
		l.mu.Unlock()
		total := 0
		for _, count := range all {
			total += count
		}
		if total >= n {
			break
		}
	}
	return all
}

// The deadlines of calls to methods that hang: the client's own, and one that only the server
// keeps.
const (
	shortDeadline   = time.Second
	serversDeadline = 100 * time.Millisecond
)

// moody is a gRPC server whose methods fail as their names say. hanging gets a value when a call
// to Hang has come, if there is room.
func moody(t *testing.T, hanging chan<- struct{}) (port int) {
	t.Helper()
	answer := func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		var in protos.PingMessage
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		switch method {
		case "/m.M/Unavailable":
			return grpcstatus.Error(codes.Unavailable, "not now")
		case "/m.M/NotFound":
			return grpcstatus.Error(codes.NotFound, "who?")
		case "/m.M/Hang":
			select {
			case hanging <- struct{}{}:
			default:
			}
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		if err := stream.SendMsg(&protos.PingMessage{}); err != nil {
			return err
		}
		switch method {
		case "/m.M/Later":
			return grpcstatus.Error(codes.Internal, "after a message")
		case "/m.M/HangLater":
			<-stream.Context().Done()
		}
		return nil
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(answer))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().(*net.TCPAddr).Port
}

// What each kind of request looks like in the log.
func TestAccessLog(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		t.Run("of all requests", func(t *testing.T) { testAccessLog(t, binary, true) })
		t.Run("of services with a circuit breaker", func(t *testing.T) { testAccessLog(t, binary, false) })
	})
}

func testAccessLog(t *testing.T, binary nginxtest.Binary, all bool) {
	const on = "lb-outlier-consecutive-errors"
	impatient, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	web := handler(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/503":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/hang":
			giveUp()
			<-r.Context().Done()
		}
	})
	hanging := make(chan struct{}, 1)
	calls, dead, dead2, silent := moody(t, hanging), refusing(t), refusing(t), mute(t)
	dir := nginxtest.MemoryDir(t)
	log := startLog(t, dir, map[int]string{web: "WEB", calls: "CALLS", dead: "DEAD", dead2: "DEAD", silent: "SILENT"})
	b := startBalancerWith(t, binary, func(s *Settings) { s.AccessLogDir, s.LogRequests, s.InFlight = dir, all, all }, nil,
		one("web", web, tags("http_server"), meta(on, "5")),
		one("quiet", web, meta("lb-protocol", "http", "lb-path", "/quiet")),
		one("dead", dead, meta("lb-protocol", "http", "lb-path", "/dead", on, "5")),
		one("dead", dead2, meta("lb-protocol", "http", "lb-path", "/dead", on, "5")),
		one("quiet-dead", dead, meta("lb-protocol", "http", "lb-path", "/quiet-dead")),
		one("half", web, meta("lb-protocol", "http", "lb-path", "/half", on, "5")),
		one("half", dead, meta("lb-protocol", "http", "lb-path", "/half", on, "5")),
		one("silent", silent, meta("lb-protocol", "http", "lb-path", "/silent", on, "5", "lb-timeout-read", "200ms")),
		one("calls", calls, tags("grpc_server"), meta(on, "5")),
		one("dead-calls", dead, meta("lb-protocol", "grpc", "lb-path", "/dead.D", on, "5")),
		one("quiet-calls", calls, meta("lb-protocol", "grpc", "lb-path", "/quiet.Q")),
	)
	for _, path := range []string{"/", "/503", "/quiet", "/dead", "/quiet-dead", "/silent"} {
		get(t, http.DefaultClient, "http://"+b.http+path)
	}
	for range 4 { // nginx begins with each in turn
		get(t, http.DefaultClient, "http://"+b.http+"/half")
	}
	request, err := http.NewRequestWithContext(impatient, http.MethodGet, "http://"+b.http+"/hang", nil)
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(request)
	require.ErrorIs(t, err, context.Canceled)

	conn := b.dial(t, "localhost")
	for method, want := range map[string]codes.Code{
		"/m.M/OK": codes.OK, "/m.M/Unavailable": codes.Unavailable, "/m.M/NotFound": codes.NotFound, "/m.M/Later": codes.Internal,
		"/dead.D/D": codes.Unavailable, "/quiet.Q/Unavailable": codes.OK,
	} {
		_, err := call(t, conn, method)
		assert.Equal(t, want, grpcstatus.Code(err), "%s: %v", method, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-hanging
		cancel()
	}()
	err = conn.Invoke(ctx, "/m.M/Hang", &protos.PingMessage{}, &protos.PingMessage{})
	require.Equal(t, codes.Canceled, grpcstatus.Code(err))
	ctx, cancel = context.WithCancel(t.Context())
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/m.M/HangLater")
	require.NoError(t, err)
	require.NoError(t, stream.SendMsg(&protos.PingMessage{}))
	require.NoError(t, stream.CloseSend())
	require.NoError(t, stream.RecvMsg(&protos.PingMessage{}))
	cancel()
	require.Equal(t, codes.Canceled, grpcstatus.Code(stream.RecvMsg(&protos.PingMessage{})))
	for _, method := range []string{"/m.M/Hang", "/m.M/HangLater"} {
		ctx, cancel := context.WithTimeout(t.Context(), shortDeadline)
		require.Error(t, conn.Invoke(ctx, method, &protos.PingMessage{}, &protos.PingMessage{}))
		cancel()
	}
	// A client that waits for longer than it says: the server breaks the call off.
	request, err = http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+b.grpc+"/m.M/Hang", bytes.NewReader(make([]byte, 5)))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	request.Header.Set("Grpc-Timeout", "100m")
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	defer h2c.CloseIdleConnections()
	response, err := h2c.RoundTrip(request)
	require.NoError(t, err)
	response.Body.Close()

	want := map[string]int{
		"web 200 grpc -1 WEB=200":                                          1,
		"web 503 grpc -1 WEB=503":                                          1,
		"web 499 grpc -1 WEB=0 unanswered":                                 1,
		"dead 502 own 502 grpc -1 DEAD=502 unanswered DEAD=502 unanswered": 1,
		"silent 504 own 504 grpc -1 SILENT=504 unanswered":                 1,
		"half 200 grpc -1 WEB=200":                                         2,
		"half 200 grpc -1 DEAD=502 unanswered WEB=200":                     2,
		"calls 200 grpc 0 CALLS=200":                                       1,
		"calls 200 grpc 14 CALLS=200":                                      1,
		"calls 200 grpc 5 CALLS=200":                                       1,
		"calls 200 grpc 13 CALLS=200":                                      1,
		"dead-calls 200 own 502 grpc 14 DEAD=502 unanswered":               1,
		"calls 499 grpc -1 CALLS=0 unanswered":                             1,
		"calls 200 grpc -1 CALLS=200":                                      1,
		"calls late":                                                       2,
		"calls expired":                                                    1,
	}
	if all {
		maps.Copy(want, map[string]int{
			"quiet 200 grpc -1 WEB=200":                          1,
			"quiet-dead 502 own 502 grpc -1 DEAD=502 unanswered": 1,
			"quiet-calls 200 grpc 0 CALLS=200":                   1,
		})
	}
	total := 0
	for _, n := range want {
		total += n
	}
	assert.Equal(t, want, log.wait(t, total))
	noneInFlight(t, log.reader)
}

func TestACircuitBreakerWithoutAnAccessLogIsAProblem(t *testing.T) {
	web := registration("web", "web-1", "10.0.0.1", 80, tags("http_server"), meta("lb-outlier-error-rate", "50"))
	c, err := offline(Options{Settings: testSettings("1.30.6")}, parseAll(web), testNames())
	require.NoError(t, err)
	require.Len(t, c.Problems, 1)
	assert.Equal(t, "service web", c.Problems[0].Subject)
	assert.Contains(t, c.Problems[0].Message, "give lbctl a directory on a tmpfs with --access-log-dir")
	assert.NotContains(t, string(c.Files["nginx.conf"])+string(c.Files["http.conf"]), "lb_logged")
	settings := testSettings("1.30.6")
	settings.AccessLogDir = "/run/lbctl"
	c, err = offline(Options{Settings: settings}, parseAll(web), testNames())
	require.NoError(t, err)
	assert.Empty(t, c.Problems)
}

// The log has the scheme and the version of HTTP that the client used. A trusted proxy can say the
// scheme for its client, and nobody else.
func TestAccessLogHasTheProtocol(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		for name, trusted := range map[string][]string{"with trusted proxies": {"127.0.0.0/8"}, "without": nil} {
			t.Run(name, func(t *testing.T) {
				dir := nginxtest.MemoryDir(t)
				reader, err := accesslog.New(accesslog.Options{Dir: dir, Reopen: func() error { return nil }})
				require.NoError(t, err)
				lines := make(chan string, 10)
				ctx, cancel := context.WithCancel(t.Context())
				var done sync.WaitGroup
				done.Go(func() {
					reader.Run(ctx, func(r *accesslog.Record) {
						if !r.Internal() {
							lines <- fmt.Sprintf("%s %s %s", r.Path, r.Scheme, r.HTTPVersion)
						}
					})
				})
				defer done.Wait()
				defer cancel()
				ca := certificatestest.NewAuthority(t, "test")
				b := startSecured(t, binary, func(dir string) { ca.Issue(t, 100*days, "a.test").Write(t, dir, "all") }, func(s *Settings) {
					s.AccessLogDir, s.LogRequests, s.TrustedProxies = dir, true, trusted
				},
					entry("calls", grpcServer(t, "calls"), tags("grpc_server")),
					entry("site", httpServer(t, "site", httptest.NewServer), tags("http_server")),
				)
				secure := b.client(t, b.https, &tls.Config{RootCAs: ca.Pool()})
				get(t, http.DefaultClient, "http://"+b.http+"/plain")
				get(t, secure, "https://a.test/tls")
				get(t, http.DefaultClient, "http://"+b.http+"/proxy", withHeader("X-Forwarded-Proto", "https"))
				assert.Equal(t, 200, sendRaw(t, b.http, "GET /old HTTP/1.0\r\n\r\n"))
				assert.Equal(t, 400, sendRaw(t, b.http, "garbage\r\n\r\n"))
				_, err = call(t, b.balancer.dial(t, "localhost"), "/c.C/M")
				require.NoError(t, err)
				behind := "https"
				if trusted == nil {
					behind = "http"
				}
				want := []string{"/plain http 1.1", "/tls https 2", "/proxy " + behind + " 1.1", "/old http 1.0", " http ", "/c.C/M http 2"}
				var got []string
				for timeout := time.After(20 * time.Second); len(got) < len(want); {
					select {
					case line := <-lines:
						got = append(got, line)
						continue
					case <-timeout:
					}
					break
				}
				assert.ElementsMatch(t, want, got)
			})
		}
	})
}
