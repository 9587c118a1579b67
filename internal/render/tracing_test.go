package render

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/accesslog"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

const (
	aTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	aHalf  = "a3ce929d0e0e4736"
	aSpan  = "00f067aa0ba902b7"
)

// The headers of traces, as Go's HTTP server has them.
var traceHeaders = []string{"B3", "Traceparent", "Tracestate", "X-B3-Flags", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Spanid", "X-B3-Traceid"}

// traceTests say which headers of an instance follow from those of the client. In what the
// instance gets, NEW stands for an id of a new trace, and OURS for our span's.
var traceTests = []struct {
	name string
	send []string // "name: value"
	want []string
	log  string // what the log has
}{
	{"no headers begin a trace", nil,
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"a traceparent goes on, with our span", []string{"traceparent: 00-" + aTrace + "-" + aSpan + "-01", "tracestate: a=1,b=2"},
		[]string{"traceparent: 00-" + aTrace + "-OURS-01", "tracestate: a=1,b=2"}, aTrace + " " + aSpan + " OURS 1"},
	{"so does one that is not sampled", []string{"traceparent: 00-" + aTrace + "-" + aSpan + "-00", "tracestate: a=1"},
		[]string{"traceparent: 00-" + aTrace + "-OURS-00", "tracestate: a=1"}, aTrace + " " + aSpan + " OURS 0"},
	{"the flag of a random id stays", []string{"traceparent: 00-" + aTrace + "-" + aSpan + "-03"},
		[]string{"traceparent: 00-" + aTrace + "-OURS-03"}, aTrace + " " + aSpan + " OURS 1"},
	{"unknown flags don't", []string{"traceparent: 00-" + aTrace + "-" + aSpan + "-fd"},
		[]string{"traceparent: 00-" + aTrace + "-OURS-01"}, aTrace + " " + aSpan + " OURS 1"},
	{"a later version counts as far as it is known", []string{"traceparent: cc-" + aTrace + "-" + aSpan + "-01"},
		[]string{"traceparent: 00-" + aTrace + "-OURS-01"}, aTrace + " " + aSpan + " OURS 1"},
	{"a later version may be longer", []string{"traceparent: 01-" + aTrace + "-" + aSpan + "-01-what-the-future-will-be"},
		[]string{"traceparent: 00-" + aTrace + "-OURS-01"}, aTrace + " " + aSpan + " OURS 1"},
	{"after a dash", []string{"traceparent: 01-" + aTrace + "-" + aSpan + "-01.what"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"this version may not be longer", []string{"traceparent: 00-" + aTrace + "-" + aSpan + "-01-what", "tracestate: a=1"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"version ff is none", []string{"traceparent: ff-" + aTrace + "-" + aSpan + "-01", "tracestate: a=1"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"a trace of zeros is none", []string{"traceparent: 00-" + strings.Repeat("0", 32) + "-" + aSpan + "-01", "tracestate: a=1"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"a span of zeros is none", []string{"traceparent: 00-" + aTrace + "-" + strings.Repeat("0", 16) + "-01", "tracestate: a=1"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"upper case is not valid", []string{"traceparent: 00-" + strings.ToUpper(aTrace) + "-" + aSpan + "-01", "tracestate: a=1"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"nor is upper case in the flags", []string{"traceparent: 00-" + aTrace + "-" + aSpan + "-0F"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"nor is a short one", []string{"traceparent: 00-" + aTrace + "-" + aSpan + "-1"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"nor is garbage", []string{"traceparent: -" + strings.Repeat("x", 3000), "tracestate: a=1"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"nor are quotes and variables of nginx's", []string{`traceparent: "$request_id;}{`, "tracestate: a=1"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"a tracestate alone means nothing", []string{"tracestate: a=1"},
		[]string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},

	{"b3 goes on in its form", []string{"b3: " + aTrace + "-" + aSpan + "-1"},
		[]string{"b3: " + aTrace + "-OURS-1", "traceparent: 00-" + aTrace + "-OURS-01"}, aTrace + " " + aSpan + " OURS 1"},
	{"b3 with a parent", []string{"b3: " + aTrace + "-" + aSpan + "-0-05e3ac9a4f6e3b90"},
		[]string{"b3: " + aTrace + "-OURS-0", "traceparent: 00-" + aTrace + "-OURS-00"}, aTrace + " " + aSpan + " OURS 0"},
	{"b3 with a short trace", []string{"b3: " + aHalf + "-" + aSpan + "-1"},
		[]string{"b3: " + aHalf + "-OURS-1", "traceparent: 00-0000000000000000" + aHalf + "-OURS-01"}, "0000000000000000" + aHalf + " " + aSpan + " OURS 1"},
	{"b3 for debugging", []string{"b3: " + aTrace + "-" + aSpan + "-d"},
		[]string{"b3: " + aTrace + "-OURS-d", "traceparent: 00-" + aTrace + "-OURS-01"}, aTrace + " " + aSpan + " OURS 1"},
	{"b3 that leaves it open", []string{"b3: " + aTrace + "-" + aSpan},
		[]string{"b3: " + aTrace + "-OURS-0", "traceparent: 00-" + aTrace + "-OURS-00"}, aTrace + " " + aSpan + " OURS 0"},
	{"b3 that is only a yes", []string{"b3: 1"},
		[]string{"b3: NEW-OURS-1", "traceparent: 00-NEW-OURS-01"}, "NEW - OURS 1"},
	{"b3 that is only a no", []string{"b3: 0"},
		[]string{"b3: NEW-OURS-0", "traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"b3 that is only for debugging", []string{"b3: d"},
		[]string{"b3: NEW-OURS-d", "traceparent: 00-NEW-OURS-01"}, "NEW - OURS 1"},
	{"b3 that is not valid", []string{"b3: " + strings.ToUpper(aTrace) + "-" + aSpan + "-1"},
		[]string{"b3: NEW-OURS-0", "traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"b3 of zeros", []string{"b3: " + strings.Repeat("0", 16) + "-" + aSpan + "-1"},
		[]string{"b3: NEW-OURS-0", "traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0"},
	{"b3 in several headers goes on in that form", []string{"X-B3-TraceId: " + aTrace, "X-B3-SpanId: " + aSpan, "X-B3-ParentSpanId: 05e3ac9a4f6e3b90", "X-B3-Sampled: 1"},
		[]string{"traceparent: 00-" + aTrace + "-OURS-01", "x-b3-sampled: 1", "x-b3-spanid: OURS", "x-b3-traceid: " + aTrace}, aTrace + " " + aSpan + " OURS 1"},
	{"with a short trace", []string{"X-B3-TraceId: " + aHalf, "X-B3-SpanId: " + aSpan, "X-B3-Sampled: false"},
		[]string{"traceparent: 00-0000000000000000" + aHalf + "-OURS-00", "x-b3-sampled: 0", "x-b3-spanid: OURS", "x-b3-traceid: " + aHalf}, "0000000000000000" + aHalf + " " + aSpan + " OURS 0"},
	{"for debugging", []string{"X-B3-TraceId: " + aTrace, "X-B3-SpanId: " + aSpan, "X-B3-Flags: 1"},
		[]string{"traceparent: 00-" + aTrace + "-OURS-01", "x-b3-flags: 1", "x-b3-spanid: OURS", "x-b3-traceid: " + aTrace}, aTrace + " " + aSpan + " OURS 1"},
	{"only a yes", []string{"X-B3-Sampled: true"},
		[]string{"traceparent: 00-NEW-OURS-01", "x-b3-sampled: 1", "x-b3-spanid: OURS", "x-b3-traceid: NEW"}, "NEW - OURS 1"},
	{"not valid", []string{"X-B3-TraceId: 4711", "X-B3-SpanId: " + aSpan, "X-B3-Sampled: 1"},
		[]string{"traceparent: 00-NEW-OURS-00", "x-b3-sampled: 0", "x-b3-spanid: OURS", "x-b3-traceid: NEW"}, "NEW - OURS 0"},
	{"a traceparent wins over b3", []string{"traceparent: 00-" + aTrace + "-" + aSpan + "-01", "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d"},
		[]string{"b3: " + aTrace + "-OURS-1", "traceparent: 00-" + aTrace + "-OURS-01"}, aTrace + " " + aSpan + " OURS 1"},
	{"one that is not valid does not", []string{"traceparent: 00-x", "tracestate: a=1", "b3: " + aTrace + "-" + aSpan + "-1"},
		[]string{"b3: " + aTrace + "-OURS-1", "traceparent: 00-" + aTrace + "-OURS-01"}, aTrace + " " + aSpan + " OURS 1"},
	{"b3 wins over several headers", []string{"b3: " + aTrace + "-" + aSpan + "-1", "X-B3-TraceId: 80f198ee56343ba864fe8b2a57d3eff7", "X-B3-SpanId: e457b5a2e4d86bd1", "X-B3-Sampled: 0"},
		[]string{"b3: " + aTrace + "-OURS-1", "traceparent: 00-" + aTrace + "-OURS-01", "x-b3-sampled: 1", "x-b3-spanid: OURS", "x-b3-traceid: " + aTrace}, aTrace + " " + aSpan + " OURS 1"},
}

var parent = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-0[0-3]$`)

// placeholders replaces the ids that nginx has made in texts by NEW and OURS.
func placeholdersFor(traceparent string) *strings.Replacer {
	ids := parent.FindStringSubmatch(traceparent)
	if ids == nil || ids[1] == strings.Repeat("0", 32) {
		return strings.NewReplacer()
	}
	made := ids[1]
	if made == aTrace || strings.HasSuffix(made, aHalf) {
		made = "\x00"
	}
	return strings.NewReplacer(made, "NEW", ids[2], "OURS")
}

// curious is a gRPC server that tells the metadata of its calls. Calls to Fail get a status and no
// message.
func curious(t *testing.T, asked chan<- metadata.MD) (port int) {
	t.Helper()
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(&protos.PingMessage{}); err != nil {
			return err
		}
		got, _ := metadata.FromIncomingContext(stream.Context())
		asked <- got
		if method, _ := grpc.MethodFromServerStream(stream); strings.HasSuffix(method, "/Fail") {
			return grpcstatus.Error(codes.NotFound, "who?")
		}
		if err := stream.SetHeader(metadata.Pairs("traceparent", "the instance's own")); err != nil {
			return err
		}
		return stream.SendMsg(&protos.PingMessage{})
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().(*net.TCPAddr).Port
}

// traces has the traces in an access log by request id.
type traces struct {
	mu  sync.Mutex
	all map[string]string
}

func startTraces(t *testing.T, dir string) *traces {
	t.Helper()
	reader, err := accesslog.New(accesslog.Options{Dir: dir, Reopen: func() error { return nil }})
	require.NoError(t, err)
	l := &traces{all: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		reader.Run(ctx, func(r *accesslog.Record) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.all[string(r.RequestID)] = string(r.Trace)
		})
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return l
}

// of waits for the request's line.
func (l *traces) of(t *testing.T, id string) (trace string) {
	t.Helper()
	require.Eventually(t, func() (ok bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		trace, ok = l.all[id]
		return ok
	}, 20*time.Second, 5*time.Millisecond, "the log has no line of %s", id)
	return trace
}

func TestTraceContext(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		seen := make(chan http.Header, 1)
		web := handler(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("traceparent", "the instance's own")
			seen <- r.Header
		})
		asked := make(chan metadata.MD, 1)
		calls := curious(t, asked)
		dir := nginxtest.MemoryDir(t)
		b := startBalancerWith(t, binary, func(s *Settings) { s.AccessLogDir, s.LogRequests, s.Tracing = dir, true, true }, nil,
			one("web", web, tags("http_server")),
			one("shaped", web, meta("lb-protocol", "http", "lb-path", "/shaped", "lb-headers-response-set", "X-Team=shop", "lb-headers-request-set", "X-Team=shop", "lb-cors-allow-origins", "https://a.example")),
			one("calls", calls, tags("grpc_server")),
			one("shaped-calls", calls, meta("lb-protocol", "grpc", "lb-path", "/s.S", "lb-headers-response-set", "X-Team=shop", "lb-headers-request-set", "X-Team=shop")),
			one("safe-calls", calls, meta("lb-protocol", "grpc", "lb-path", "/safe.S", "lb-retry-safe", "true")),
			one("gone", nginxtest.FreePort(t), meta("lb-protocol", "grpc", "lb-path", "/gone.S")),
			one("closed", web, meta("lb-protocol", "http", "lb-path", "/closed", "lb-maintenance-enabled", "on")),
		)
		log := startTraces(t, dir)
		conn := b.dial(t, "localhost")
		n := 0
		newID := func() string { n++; return fmt.Sprintf("id-%d", n) }

		overHTTP := func(t *testing.T, path string, send []string) (instance, client []string, id string) {
			t.Helper()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.http+path, nil)
			require.NoError(t, err)
			id = newID()
			request.Header.Set("X-Request-Id", id)
			for _, header := range send {
				name, value, _ := strings.Cut(header, ": ")
				request.Header[name] = append(request.Header[name], value)
			}
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				header := <-seen
				for _, name := range traceHeaders {
					for _, value := range header[name] {
						instance = append(instance, strings.ToLower(name)+": "+value)
					}
				}
			}
			return instance, response.Header["Traceparent"], id
		}
		overGRPC := func(t *testing.T, method string, send []string) (instance, client []string, id string) {
			t.Helper()
			id = newID()
			ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", id)
			for _, header := range send {
				name, value, _ := strings.Cut(header, ": ")
				ctx = metadata.AppendToOutgoingContext(ctx, name, value)
			}
			var header, trailer metadata.MD
			err := conn.Invoke(ctx, method, &protos.PingMessage{}, &protos.PingMessage{}, grpc.Header(&header), grpc.Trailer(&trailer))
			if err == nil {
				got := <-asked
				for _, name := range traceHeaders {
					name = strings.ToLower(name)
					for _, value := range got[name] {
						instance = append(instance, name+": "+value)
					}
				}
			}
			return instance, metadata.Join(header, trailer)["traceparent"], id
		}
		type line struct{ name, want, id, traceparent string }
		var lines []line // of the log, in which they come somewhat later
		check := func(t *testing.T, want []string, wantLog string, instance, client []string, id string) {
			t.Helper()
			require.Len(t, client, 1)
			for _, header := range instance {
				if parent, ok := strings.CutPrefix(header, "traceparent: "); ok {
					assert.Equal(t, parent, client[0], "instance and client get the same")
				}
			}
			made := placeholdersFor(client[0])
			for n := range instance {
				instance[n] = made.Replace(instance[n])
			}
			assert.Equal(t, want, instance)
			lines = append(lines, line{t.Name(), wantLog, id, client[0]})
		}
		for _, c := range traceTests {
			t.Run(c.name, func(t *testing.T) {
				instance, client, id := overHTTP(t, "/", c.send)
				check(t, c.want, c.log, instance, client, id)
				instance, client, id = overGRPC(t, "/c.C/Ask", c.send)
				check(t, c.want, c.log, instance, client, id)
			})
		}
		// In versions before 1.23, nginx sees only the first of several headers.
		old := strings.HasPrefix(binary.Version, "1.22.")
		states := "tracestate: a=1, b=2"
		if old {
			states = "tracestate: a=1"
		}
		instance, client, id := overHTTP(t, "/", []string{"traceparent: 00-" + aTrace + "-" + aSpan + "-01", "tracestate: a=1", "tracestate: b=2"})
		check(t, []string{"traceparent: 00-" + aTrace + "-OURS-01", states}, aTrace+" "+aSpan+" OURS 1", instance, client, id)
		two := []string{"traceparent: 00-" + aTrace + "-" + aSpan + "-01", "traceparent: 00-" + aTrace + "-" + aSpan + "-01", "tracestate: a=1"}
		if old {
			instance, client, id := overHTTP(t, "/", two)
			check(t, []string{"traceparent: 00-" + aTrace + "-OURS-01", "tracestate: a=1"}, aTrace+" "+aSpan+" OURS 1", instance, client, id)
		} else {
			instance, client, id := overHTTP(t, "/", two)
			check(t, []string{"traceparent: 00-NEW-OURS-00"}, "NEW - OURS 0", instance, client, id)
		}

		send := two[1:]
		want, wantLog := []string{"traceparent: 00-" + aTrace + "-OURS-01", "tracestate: a=1"}, aTrace+" "+aSpan+" OURS 1"
		instance, client, id = overHTTP(t, "/shaped", send)
		check(t, want, wantLog, instance, client, id)
		for _, method := range []string{"/s.S/Ask", "/safe.S/Ask"} {
			instance, client, id = overGRPC(t, method, send)
			check(t, want, wantLog, instance, client, id)
		}
		// nginx's own errors
		instance, client, id = overHTTP(t, "/closed", send)
		check(t, nil, wantLog, instance, client, id)
		instance, client, id = overGRPC(t, "/c.C/Fail", send) // an answer with headers only
		check(t, nil, wantLog, instance, client, id)
		require.NotEmpty(t, <-asked)
		instance, client, id = overGRPC(t, "/gone.S/Ask", send)
		check(t, nil, wantLog, instance, client, id)

		for _, l := range lines {
			assert.Equal(t, l.want, placeholdersFor(l.traceparent).Replace(log.of(t, l.id)), l.name)
		}
		response, err := http.Get("http://" + b.http + "/%00") // nginx has read no header yet
		require.NoError(t, err)
		response.Body.Close()
		assert.Regexp(t, parent, response.Header.Get("traceparent"))
	})
}

// TestTracesOfOtherRequests checks that the service that decides about a request, and the one that
// gets a copy, have the trace of the request.
func TestTracesOfOtherRequests(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		got := map[string]chan http.Header{}
		service := func(name string) int {
			seen := make(chan http.Header, 1)
			got[name] = seen
			return handler(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })
		}
		b := startBalancerWithServices(t, binary, func(opts *Options) { opts.Settings.Tracing = true }, nil, operated(t,
			map[string]string{"web": `{"auth.external": "authz", "mirror.service": "next"}`},
			registration("web", "web-1", "127.0.0.1", service("web"), tags("http_server")),
			registration("authz", "authz-1", "127.0.0.1", service("authz"), meta("lb-protocol", "http", "lb-host", "authz.test")),
			registration("next", "next-1", "127.0.0.1", service("next"), meta("lb-protocol", "http", "lb-host", "next.test")),
		))
		for _, send := range []http.Header{
			{},
			{"Traceparent": {"00-" + aTrace + "-" + aSpan + "-01"}, "Tracestate": {"a=1"}},
			{"X-B3-Traceid": {aHalf}, "X-B3-Spanid": {aSpan}, "X-B3-Sampled": {"1"}},
			{"B3": {aTrace + "-" + aSpan + "-d"}},
			{"Traceparent": {"00-" + strings.ToUpper(aTrace) + "-" + aSpan + "-01"}, "Tracestate": {"a=1"}},
		} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.http, nil)
			require.NoError(t, err)
			request.Header = send
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			response.Body.Close()
			require.Equal(t, http.StatusOK, response.StatusCode)
			of := func(name string) (all []string) {
				header := <-got[name]
				for _, name := range traceHeaders {
					for _, value := range header[name] {
						all = append(all, name+": "+value)
					}
				}
				return all
			}
			web := of("web")
			assert.Contains(t, web, "Traceparent: "+response.Header.Get("Traceparent"))
			assert.Equal(t, web, of("authz"))
			assert.Equal(t, web, of("next"))
		}
	})
}

// TestTracingOff checks that the client's headers pass unchanged, and that no trace begins.
func TestTracingOff(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		seen := make(chan http.Header, 1)
		web := handler(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("traceparent", "the instance's own")
			seen <- r.Header
		})
		dir := nginxtest.MemoryDir(t)
		b := startBalancerWith(t, binary, func(s *Settings) { s.AccessLogDir, s.LogRequests = dir, true }, nil, one("web", web, tags("http_server")))
		log := startTraces(t, dir)
		for _, send := range []http.Header{{}, {"Traceparent": {"what"}, "Tracestate": {"ever"}, "B3": {"1"}, "X-B3-Traceid": {"2"}}} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.http, nil)
			require.NoError(t, err)
			request.Header = maps.Clone(send)
			request.Header.Set("X-Request-Id", "id")
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			response.Body.Close()
			got := <-seen
			for _, name := range traceHeaders {
				assert.Equal(t, send[name], got[name])
			}
			assert.Equal(t, []string{"the instance's own"}, response.Header["Traceparent"])
			assert.Empty(t, log.of(t, "id"))
		}
	})
}

// TestTraceSample checks which of the traces that begin at nginx are sampled.
func TestTraceSample(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		for _, share := range []float64{0, 0.25, 1} {
			web := handler(t, func(w http.ResponseWriter, r *http.Request) {})
			b := startBalancerWith(t, binary, func(s *Settings) { s.Tracing, s.TraceSample = true, share }, nil, one("web", web, tags("http_server")))
			const requests = 400
			sampled := 0
			ids := map[string]bool{}
			for range requests {
				response, err := http.Get("http://" + b.http)
				require.NoError(t, err)
				response.Body.Close()
				ids[parent.FindStringSubmatch(response.Header.Get("traceparent"))[1]] = true
				if strings.HasSuffix(response.Header.Get("traceparent"), "-01") {
					sampled++
				}
			}
			assert.Len(t, ids, requests, "each trace has its own id")
			switch share {
			case 0.25: // 100, and 8.7 is the standard deviation
				assert.InDelta(t, 100, sampled, 60)
			default:
				assert.Equal(t, int(share*requests), sampled)
			}
			// The client's decision counts.
			for _, flag := range []string{"00", "01"} {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.http, nil)
				require.NoError(t, err)
				request.Header.Set("traceparent", "00-"+aTrace+"-"+aSpan+"-"+flag)
				response, err := http.DefaultClient.Do(request)
				require.NoError(t, err)
				response.Body.Close()
				assert.Regexp(t, "^00-"+aTrace+"-[0-9a-f]{16}-"+flag+"$", response.Header.Get("traceparent"))
			}
		}
	})
}

func TestTraceShare(t *testing.T) {
	t.Parallel()
	for share, want := range map[float64]string{0: "", 1: "", 0.0001: "0.01%", 0.5: "50%", 0.125: "12.5%", 0.3333: "33.33%", 0.07: "7%", 0.9999: "99.99%"} {
		assert.NoError(t, CheckTraceSample(share))
		assert.Equal(t, want, Settings{TraceSample: share}.TraceShare())
	}
	for _, bad := range []float64{-1, 0.00001, 1.5} {
		assert.Error(t, CheckTraceSample(bad))
	}
}
