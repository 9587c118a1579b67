package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/accesslog"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// obedient is a gRPC server that does what each call asks for: "MESSAGES STATUS" sends so many
// messages, then the status; "headers STATUS" sends headers before it; "MESSAGES hang" never ends.
// hung counts those of /late.A/B, if it is not nil.
func obedient(t *testing.T, address string, hung *atomic.Int64) (port int) {
	t.Helper()
	answer := func(_ any, stream grpc.ServerStream) error {
		var in protos.PingMessage
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		first, end, _ := strings.Cut(in.Greeting, " ")
		if first == "headers" {
			if err := stream.SendHeader(metadata.Pairs("x-early", "1")); err != nil {
				return err
			}
		}
		messages, _ := strconv.Atoi(first)
		for range messages {
			if err := stream.SendMsg(&protos.PingMessage{Greeting: "one"}); err != nil {
				return err
			}
		}
		if end == "hang" {
			if method, _ := grpc.MethodFromServerStream(stream); hung != nil && method == "/late.A/B" {
				hung.Add(1)
			}
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		code, _ := strconv.Atoi(end)
		return grpcstatus.Error(codes.Code(code), "as asked")
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(answer))
	listener, err := net.Listen("tcp4", address)
	require.NoError(t, err)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().(*net.TCPAddr).Port
}

// tally are numbers of requests by service and answer.
type tally struct {
	sync.Mutex
	of map[string]int
}

func (c *tally) add(service, answer string) {
	c.Lock()
	defer c.Unlock()
	c.of[service+" "+answer]++
}

// callAny makes a call of a random kind, and counts what the client saw.
func callAny(ctx context.Context, conn *grpc.ClientConn, counts *tally) {
	ask := func(ctx context.Context, method, greeting string, messages int) error {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(&protos.PingMessage{Greeting: greeting}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for {
			if messages--; messages == 0 {
				return nil // all that the client wants
			}
			var in protos.PingMessage
			if err := stream.RecvMsg(&in); err != nil {
				return err
			}
		}
	}
	count := func(service string, err error) {
		code := codes.OK
		if !errors.Is(err, io.EOF) {
			code = grpcstatus.Code(err)
		}
		counts.add(service, accesslog.GRPCStatusName(int(code)))
	}
	switch kind := rand.IntN(20); {
	case kind < 6: // unary
		count("asked", ask(ctx, "/asked.A/B", fmt.Sprintf("1 %d", rand.IntN(17)), -1))
	case kind < 9: // a stream
		count("asked", ask(ctx, "/asked.A/B", fmt.Sprintf("%d %d", 2+rand.IntN(20), rand.IntN(17)), -1))
	case kind < 12: // trailers only
		count("asked", ask(ctx, "/asked.A/B", fmt.Sprintf("0 %d", 1+rand.IntN(16)), -1))
	case kind < 14: // headers, and no message
		count("asked", ask(ctx, "/asked.A/B", fmt.Sprintf("headers %d", 1+rand.IntN(16)), -1))
	case kind < 15: // nginx's own error
		count("dead", ask(ctx, "/dead.A/B", "1 0", -1))
	case kind < 16: // nobody's
		count("", ask(ctx, "/nobody.A/B", "1 0", -1))
	case kind < 18: // a deadline
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		if ask(ctx, "/late.A/B", fmt.Sprintf("%d hang", rand.IntN(3)), -1) == nil {
			counts.add("late", "nothing wrong")
		}
		counts.add("late", "DEADLINE_EXCEEDED") // or what the server sent, if it was the first by a moment
	default: // the client does not want more
		ctx, cancel := context.WithCancel(ctx)
		if err := ask(ctx, "/left.A/B", "3 hang", 3); err != nil {
			counts.add("left", err.Error())
		}
		cancel()
		counts.add("left", "NONE")
	}
}

// requestAny makes an HTTP request of a random kind.
func requestAny(ctx context.Context, t *testing.T, s *system, client *http.Client, counts *tally) {
	method := []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}[rand.IntN(6)]
	status := []int{200, 201, 204, 206, 301, 304, 400, 404, 409, 418, 429, 500, 501, 502, 503, 504, 599}[rand.IntN(17)]
	service, path := "web", fmt.Sprintf("/web/%d?%d", status, rand.Int())
	switch rand.IntN(10) {
	case 0:
		service, path = "dead-web", "/dead-web"
	case 1:
		service, path = "", "/nobody"
	}
	var body io.Reader
	if method == "POST" || method == "PUT" {
		body = strings.NewReader(strings.Repeat("x", rand.IntN(100_000)))
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.HTTP+path, body)
	if !assert.NoError(t, err) {
		return
	}
	answer, err := client.Transport.RoundTrip(request)
	if !assert.NoError(t, err) {
		return
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	counts.add(service, fmt.Sprintf("%dxx", answer.StatusCode/100))
}

// TestCountsAreWhatClientsSaw makes requests and calls of all kinds at random, and compares.
func TestCountsAreWhatClientsSaw(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		s := alone(t, binary)
		var arrived atomic.Int64
		calls := obedient(t, "127.0.0.1:0", &arrived)
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			status, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/web/"))
			w.WriteHeader(status)
		}))
		t.Cleanup(web.Close)
		webPort := int(netip.MustParseAddrPort(web.Listener.Addr().String()).Port())
		register := func(name string, port int, meta map[string]string) {
			meta["lb-check"] = "none"
			require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: name, Address: "127.0.0.1", Port: port, Meta: meta}))
			s.WaitServing(name, 1)
		}
		for _, name := range []string{"asked", "late", "left"} {
			register(name, calls, map[string]string{"lb-protocol": "grpc", "lb-grpc": name + ".A"})
		}
		register("dead", nginxtest.FreePort(t), map[string]string{"lb-protocol": "grpc", "lb-grpc": "dead.A"})
		register("web", webPort, map[string]string{"lb-protocol": "http", "lb-path": "/web"})
		register("dead-web", nginxtest.FreePort(t), map[string]string{"lb-protocol": "http", "lb-path": "/dead-web"})

		counts := &tally{of: map[string]int{}}
		var done sync.WaitGroup
		for range 8 {
			done.Go(func() {
				conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
				if !assert.NoError(t, err) {
					return
				}
				defer conn.Close()
				client := &http.Client{Transport: &http.Transport{}}
				defer client.CloseIdleConnections()
				for range 150 {
					callAny(t.Context(), conn, counts)
					requestAny(t.Context(), t, s, client, counts)
				}
			})
		}
		done.Wait()

		want := counts.of
		late := want["late DEADLINE_EXCEEDED"] // some of these may have ended on their way to nginx
		delete(want, "late DEADLINE_EXCEEDED")
		// Both count a request to nobody, over gRPC and HTTP; lbctl by the code of the error.
		want[" 4xx"] += want[" UNIMPLEMENTED"]
		delete(want, " UNIMPLEMENTED")
		total := 0
		for _, n := range want {
			total += n
		}
		var got map[string]int
		s.Eventually(fmt.Sprintf("%d requests are counted", total), func() error {
			m, err := s.Metrics()
			if err != nil {
				return err
			}
			got = map[string]int{}
			all := 0
			for _, series := range append(m.Series("lbctl_requests_total"), m.Series("lbctl_unrouted_requests_total")...) {
				labels := map[string]string{}
				for _, l := range series.Label {
					labels[l.GetName()] = l.GetValue()
				}
				answer := labels["grpc_status"]
				if answer == "NONE" && labels["service"] == "late" {
					answer = "DEADLINE_EXCEEDED" // on its way to nginx the call took longer than lbctl allows for
				}
				if answer == "" {
					answer = labels["code"]
				}
				if n := int(series.Counter.GetValue()); n > 0 {
					got[labels["service"]+" "+answer] += n
					all += n
				}
			}
			lateOnes := got["late DEADLINE_EXCEEDED"]
			if all-lateOnes < total || lateOnes < int(arrived.Load()) {
				return fmt.Errorf("%d are, and %d that were late, of which %d arrived", all-lateOnes, lateOnes, arrived.Load())
			}
			return nil
		})
		assert.LessOrEqual(t, got["late DEADLINE_EXCEEDED"], late)
		delete(got, "late DEADLINE_EXCEEDED")
		assert.Equal(t, want, got)
		s.WaitMetric(0, "lbctl_accesslog_lost_total")
		t.Logf("%d requests: %v", total, got)
	})
}

// TestSeriesOfManyInstances lets instances come and go, each of them with a call.
func TestSeriesOfManyInstances(t *testing.T) {
	t.Parallel()
	s := alone(t, newest(t), "--metrics-linger", "1s", "--requests-in-flight", "on")
	series := func() (n int) {
		m, err := s.Metrics()
		require.NoError(t, err)
		for name := range m {
			if strings.HasPrefix(name, "lbctl_") {
				n += len(m.Series(name))
			}
		}
		return n
	}
	calls := obedient(t, "0.0.0.0:0", nil) // each instance has an address of its own
	register := func(n int) {
		require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: fmt.Sprint("asked-", n), Name: "asked", Port: calls, Address: fmt.Sprintf("127.0.%d.%d", n/250, n%250+1),
			Meta: map[string]string{"lb-protocol": "grpc", "lb-check": "none", "lb-version": fmt.Sprint("v", n)},
		}))
	}
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("asked.test"))
	require.NoError(t, err)
	defer conn.Close()
	call := func(times int) {
		for range times {
			require.NoError(t, conn.Invoke(t.Context(), "/asked.A/B", &protos.PingMessage{Greeting: "1 0"}, &protos.PingMessage{}))
		}
	}
	const each = 50
	for n := range 2 {
		register(n)
	}
	s.WaitServing("asked", 2)
	call(2 * 4)
	s.WaitMetric(8, "lbctl_requests_total", "service", "asked")
	before := series()
	for round := range 2 {
		for n := range each {
			register(2 + round*each + n)
		}
		s.WaitServing("asked", 2+each)
		call(4 * each)
		s.Eventually("each instance has a series", func() error {
			if n := series(); n < before+each {
				return fmt.Errorf("there are %d, before there were %d", n, before)
			}
			return nil
		})
		for n := range each { // those that vanish all at once would be held
			require.NoError(t, s.consul.Agent().EnableServiceMaintenance(fmt.Sprint("asked-", 2+round*each+n), "leaving"))
		}
		s.WaitServing("asked", 2)
		for n := range each {
			require.NoError(t, s.consul.Agent().ServiceDeregister(fmt.Sprint("asked-", 2+round*each+n)))
		}
	}
	lbtest.Eventually(t, "the series are as many as before", func() error {
		if n := series(); n > before+2 { // a service that had a change has some more
			return fmt.Errorf("there are %d, before there were %d", n, before)
		}
		return nil
	})
}
