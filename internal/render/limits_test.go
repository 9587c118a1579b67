package render

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policytest"
	"lbctl/protos"
)

func init() {
	maps.Copy(fieldTests, map[string]func(*testing.T, nginxtest.Binary){
		"max-conns":           testMaxConns,
		"limit.address.rate":  testAddressRate,
		"limit.address.burst": testedIn("testAddressRate"),
		"limit.address.conns": testConns("limit.address.conns"),
		"limit.service.rate":  testServiceRate,
		"limit.service.burst": testedIn("testServiceRate"),
		"limit.service.conns": testConns("limit.service.conns"),
		"limit.header.rate":   testHeaderRate,
		"limit.header.burst":  testedIn("testHeaderRate"),
		"limit.body":          testBodySize,
	})
}

// admitted sends n requests one after the other, and returns how many were not refused. The
// refused ones must have the right answer.
func admitted(t *testing.T, url string, n int, change ...func(*http.Request)) (all int) {
	t.Helper()
	for range n {
		response, body := get(t, http.DefaultClient, url, change...)
		if response.StatusCode == http.StatusOK {
			all++
			continue
		}
		assert.Equal(t, http.StatusTooManyRequests, response.StatusCode)
		assert.Equal(t, "too many requests\n", body)
		assert.NotEmpty(t, response.Header.Get("Retry-After"))
	}
	return all
}

// admittedCalls is like admitted, for gRPC.
func admittedCalls(t *testing.T, conn *grpc.ClientConn, method string, n int) (all int) {
	t.Helper()
	for range n {
		var header, trailer grpcmetadata.MD
		_, err := call(t, conn, method, grpc.Header(&header), grpc.Trailer(&trailer))
		if err == nil {
			all++
			continue
		}
		assert.Equal(t, codes.ResourceExhausted, grpcstatus.Code(err), "%v", err)
		assert.Equal(t, "lbctl: too many requests", grpcstatus.Convert(err).Message())
		assert.Equal(t, []string{"20"}, trailer.Get("retry-after"))
		assert.Equal(t, []string{"20000"}, trailer.Get("grpc-retry-pushback-ms"))
	}
	return all
}

// from sends a request from another address of this machine.
func from(t *testing.T, address string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func withHeader(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// 3 requests in a minute: after the burst, none is admitted while the test runs, however slow
// the machine is.
func testAddressRate(t *testing.T, binary nginxtest.Binary) {
	paths := `{"/own": {"limit.address.rate": "3/m", "limit.address.burst": 2}, "/own/below": {"timeout.read": "1s"}}`
	b := startBalancer(t, binary, nil,
		one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), meta("lb-limit-address-rate", "3/m", "lb-limit-address-burst", "4", "lb-paths", paths)),
		one("other", httpServer(t, "other", httptest.NewServer), meta("lb-protocol", "http", "lb-path", "/other", "lb-limit-address-rate", "3/m")),
		one("calls", grpcServer(t, "calls"), tags("grpc_server"), meta("lb-limit-address-rate", "3/m")),
	)
	url := "http://" + b.http
	assert.Equal(t, 5, admitted(t, url, 10), "one, and a burst of 4")
	assert.Equal(t, 3, admitted(t, url+"/own", 5)+admitted(t, url+"/own/below", 5), "a path with a rate of its own is counted by itself, with those below it")
	assert.Equal(t, 2, admitted(t, url+"/other", 5), "each service is counted by itself; the burst is 1")
	response, _ := get(t, http.DefaultClient, url)
	assert.Equal(t, "20", response.Header.Get("Retry-After"))
	response, _ = get(t, from(t, "127.0.0.2"), url)
	assert.Equal(t, http.StatusOK, response.StatusCode, "another client")
	assert.Equal(t, 2, admittedCalls(t, b.dial(t, "localhost"), "/any.Service/Method", 5))
}

func testServiceRate(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), meta("lb-limit-service-rate", "3/m", "lb-limit-service-burst", "4", "lb-limit-address-rate", "3/m", "lb-limit-address-burst", "2")),
		one("calls", grpcServer(t, "calls"), tags("grpc_server"), meta("lb-paths", `{"/any.Service/Method": {"limit.service.rate": "3/m"}}`)),
	)
	url := "http://" + b.http
	assert.Equal(t, 3, admitted(t, url, 5), "the limit of the address")
	response, _ := get(t, from(t, "127.0.0.2"), url)
	assert.Equal(t, http.StatusOK, response.StatusCode)
	response, _ = get(t, from(t, "127.0.0.3"), url)
	assert.Equal(t, http.StatusOK, response.StatusCode)
	response, _ = get(t, from(t, "127.0.0.4"), url)
	assert.Equal(t, http.StatusTooManyRequests, response.StatusCode, "the limit of the service")
	conn := b.dial(t, "localhost")
	assert.Equal(t, 2, admittedCalls(t, conn, "/any.Service/Method", 5))
	assert.Equal(t, 5, admittedCalls(t, conn, "/any.Service/Other", 5))
}

func testHeaderRate(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), meta("lb-limit-header-rate", "x-api-key=3/m,x-tenant=3/m", "lb-limit-header-burst", "2")),
		one("calls", grpcServer(t, "calls"), tags("grpc_server"), meta("lb-limit-header-rate", "with_underscore=3/m")),
	)
	url := "http://" + b.http
	assert.Equal(t, 3, admitted(t, url, 5, withHeader("X-Api-Key", "a")))
	assert.Equal(t, 3, admitted(t, url, 5, withHeader("X-Api-Key", "b")))
	assert.Equal(t, 3, admitted(t, url, 5, withHeader("X-Tenant", "a")))
	assert.Equal(t, 5, admitted(t, url, 5), "without the header")
	assert.Equal(t, 2, admittedCalls(t, b.dial(t, "localhost"), "/any.Service/Method", 5))
}

// nginx refuses to reload when the key of a zone changes, and forgets all counts when its size
// changes.
func TestAReloadKeepsTheCounts(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		web := httpServer(t, "web", httptest.NewServer)
		service := func(pairs ...string) *api.ServiceEntry { return one("web", web, tags("http_server"), meta(pairs...)) }
		last := one("last", web, meta("lb-protocol", "http", "lb-path", "/reloaded"))
		b := startBalancer(t, binary, nil, service("lb-limit-header-rate", "x-a=3/m", "lb-limit-service-rate", "5/m", "lb-limit-service-burst", "20"))
		url := "http://" + b.http
		assert.Equal(t, 2, admitted(t, url, 3, withHeader("x-a", "1")))
		b.reload(t, service("lb-limit-header-rate", "x-a=4/m,x-b=3/m", "lb-limit-service-rate", "6/m", "lb-limit-service-burst", "20"), last)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		response, _ := get(t, client, url, withHeader("x-a", "1"))
		assert.Equal(t, http.StatusTooManyRequests, response.StatusCode, "counted before the reload")
		response, _ = get(t, client, url, withHeader("x-b", "1"))
		assert.Equal(t, http.StatusOK, response.StatusCode, "another header")
		response, _ = get(t, client, url, withHeader("x-a", "2"))
		assert.Equal(t, http.StatusOK, response.StatusCode, "another value")
	})
}

// testConns checks a limit of requests, calls and TCP connections at a time.
func testConns(field string) func(t *testing.T, binary nginxtest.Binary) {
	return func(t *testing.T, binary nginxtest.Binary) {
		began, end := make(chan bool, 10), make(chan bool)
		wait := func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/free" {
				began <- true
				<-end
			}
		}
		key := "lb-" + strings.ReplaceAll(field, ".", "-")
		paths := fmt.Sprintf(`{"/own": {%q: 1}, "/free": {%q: "default"}}`, field, field)
		port := strconv.Itoa(nginxtest.FreePort(t))
		registrations := []*api.ServiceEntry{
			one("web", handler(t, wait), tags("http_server"), meta(key, "2", "lb-paths", paths)),
			one("calls", handler(t, wait), tags("grpc_server"), meta(key, "1")),
		}
		tcp := streamModule(t, binary) != nginx.NoStream
		if tcp {
			echo := listener(t, func(conn net.Conn) { io.Copy(conn, conn) })
			registrations = append(registrations, one("echo", echo, meta("lb-protocol", "tcp", "lb-port", port, key, "1")))
		}
		b := startBalancerWith(t, binary, func(s *Settings) { s.MaxConnsPerClient = 4 }, nil, registrations...)
		defer close(end)
		url := "http://" + b.http
		start := func(path string) {
			go http.Get(url + path)
			<-began
		}
		start("/")
		start("/")
		assert.Zero(t, admitted(t, url+"/x", 2))
		assert.Equal(t, 2, admitted(t, url+"/free", 2), "a path without the limit")
		start("/own")
		assert.Zero(t, admitted(t, url+"/own", 1), "a path with a limit of its own is counted by itself")
		response, _ := get(t, from(t, "127.0.0.2"), url+"/free")
		assert.Equal(t, http.StatusOK, response.StatusCode)

		conn := b.dial(t, "localhost")
		go conn.Invoke(t.Context(), "/any.Service/Method", &protos.PingMessage{}, &protos.PingMessage{})
		<-began
		var trailer grpcmetadata.MD
		_, err := call(t, conn, "/any.Service/Method", grpc.Trailer(&trailer))
		assert.Equal(t, codes.ResourceExhausted, grpcstatus.Code(err), "%v", err)
		assert.Equal(t, []string{"1000"}, trailer.Get("grpc-retry-pushback-ms"))
		assert.Zero(t, admitted(t, url+"/free", 1), "--max-conns-per-client holds as well")

		if tcp {
			testTCPConns(t, net.JoinHostPort("127.0.0.1", port), field == "limit.address.conns")
		}
	}
}

// nginx does not count a request whose key is longer than 255 bytes.
func TestConnsOfALongPath(t *testing.T) {
	long := "/" + strings.Repeat("a", 254)
	other := long[:254] + "b"
	assert.NotEqual(t, connScope("web", policy.Path(long)), connScope("web", policy.Path(other)))
	assert.NotEqual(t, connScope("web", policy.Path(long)), connScope("api", policy.Path(long)))
	assert.Equal(t, "web /a", connScope("web", "/a"))
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		for _, field := range []string{"limit.address.conns", "limit.service.conns"} {
			t.Run(field, func(t *testing.T) {
				began, end := make(chan bool, 10), make(chan bool)
				wait := handler(t, func(http.ResponseWriter, *http.Request) {
					began <- true
					<-end
				})
				b := startBalancer(t, binary, nil, one("web", wait, tags("http_server"), meta("lb-paths", fmt.Sprintf(`{%q: {%q: 1}, %q: {%q: 1}}`, long, field, other, field))))
				defer close(end)
				for _, path := range []string{long, other} {
					go http.Get("http://" + b.http + path)
					<-began
					assert.Zero(t, admitted(t, "http://"+b.http+path, 2))
				}
			})
		}
	})
}

// testTCPConns checks a limit of one connection at a time.
func testTCPConns(t *testing.T, address string, byAddress bool) {
	answers := func(source string) bool {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		conn, err := dialer.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		fmt.Fprint(conn, "x")
		_, err = io.ReadFull(conn, make([]byte, 1))
		return err == nil
	}
	assert.True(t, answers("127.0.0.1"))
	assert.False(t, answers("127.0.0.1"), "the second one is closed")
	assert.Equal(t, byAddress, answers("127.0.0.2"), "from another address")
}

func testBodySize(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), meta("lb-limit-body", "1000", "lb-paths", `{"/large": {"limit.body": "2k"}, "/any": {"limit.body": "default"}}`)),
		one("calls", grpcServer(t, "calls"), tags("grpc_server"), meta("lb-paths", `{"/any.Service/Small": {"limit.body": "1k"}}`)),
	)
	for _, c := range []struct {
		path       string
		size, want int
	}{{"/", 1000, 200}, {"/", 1001, 413}, {"/large", 2048, 200}, {"/large", 2049, 413}, {"/any", 1 << 20, 200}} {
		for _, chunked := range []bool{false, true} {
			body := io.Reader(strings.NewReader(strings.Repeat("x", c.size)))
			if chunked {
				body = io.MultiReader(body)
			}
			response, err := http.Post("http://"+b.http+c.path, "text/plain", body)
			require.NoError(t, err)
			answer, err := io.ReadAll(response.Body)
			response.Body.Close()
			require.NoError(t, err)
			assert.Equal(t, c.want, response.StatusCode, "%s %d", c.path, c.size)
			if c.want == http.StatusRequestEntityTooLarge {
				assert.Equal(t, "the request is too large\n", string(answer))
			}
		}
	}
	conn := b.dial(t, "localhost")
	send := func(method string, size int) error {
		return conn.Invoke(t.Context(), method, &protos.PingMessage{Greeting: strings.Repeat("x", size)}, &protos.PingMessage{})
	}
	assert.NoError(t, send("/any.Service/Small", 1000))
	err := send("/any.Service/Small", 1<<20)
	assert.Equal(t, codes.ResourceExhausted, grpcstatus.Code(err), "%v", err)
	assert.Equal(t, "lbctl: the request is too large", grpcstatus.Convert(err).Message())
	assert.NoError(t, send("/any.Service/Other", 1<<20))
}

// An instance's own lb-max-conns wins over lb/default, and lb/service/NAME over both.
func TestPrecedenceOfMaxConns(t *testing.T) {
	metadata, general, own := policytest.Layer(policy.LevelMetadata, policy.SourceMetadata, "max-conns", "5"), policytest.Layer(policy.LevelDefault, "lb/default", "max-conns", "7"), policytest.Layer(policy.LevelService, "lb/service/default", "max-conns", "9")
	for _, c := range []struct {
		name           string
		layers         []policy.Layer
		with5, without int
	}{
		{"nobody else", nil, 5, 0},
		{"what other instances say", []policy.Layer{metadata}, 5, 0},
		{"lb/default", []policy.Layer{general}, 5, 7},
		{"lb/default and other instances", []policy.Layer{general, metadata}, 5, 7},
		{"lb/service", []policy.Layer{general, metadata, own}, 9, 9},
		{"other instances put it back", []policy.Layer{general, policytest.Layer(policy.LevelMetadata, policy.SourceMetadata, "max-conns", "default")}, 5, 0},
		{"lb/service puts it back", []policy.Layer{metadata, policytest.Layer(policy.LevelService, "lb/service/web", "max-conns", "default")}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := policy.Resolve(c.layers...)
			assert.Equal(t, []int{c.with5, c.without}, []int{s.MaxConnsOf(5), s.MaxConnsOf(0)})
		})
	}
}

// A new policy reaches instances that have not changed.
func TestMaxConnsOfAPolicy(t *testing.T) {
	settings, err := testSettings("1.30.6").complete()
	require.NoError(t, err)
	entry := func(max ...string) []endpoints.Entry {
		var s policy.Settings
		if max != nil {
			s = policy.Resolve(policytest.Layer(policy.LevelService, "lb/service/a", "max-conns", max[0]))
		}
		e := endpoints.Entry{Service: endpoints.Service{Name: "a", Spec: endpoints.Spec{Protocol: endpoints.HTTP, Default: true, Policy: s}, OK: true, Revision: 1}}
		e.Instances = []endpoints.Instance{{ID: "1", Address: "10.0.0.1", Port: 80, Weight: 1, Status: endpoints.Passing}}
		return []endpoints.Entry{e}
	}
	var before *builder
	for _, c := range []struct {
		max  []string
		want int
	}{{nil, 0}, {[]string{"5"}, 5}, {[]string{"6"}, 6}, {nil, 0}} {
		catalog, b := newCatalog(entry(c.max...), settings, testNames().addresses, before, nil)
		assert.Equal(t, c.want, catalog.HTTP.Upstreams[0].Servers()[0].MaxConns)
		before = b
	}
}

// TestRateLimitedCalls sends 10,000 requests and 10,000 calls as fast as possible, and counts
// those that were admitted. The burst is five seconds of the rate: on a busy machine the callers
// may pause, and what a pause longer than that saves up is lost.
func TestRateLimitedCalls(t *testing.T) {
	const calls, callers, rate, burst = 10_000, 8, 50, 250
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		limits := meta("lb-limit-address-rate", fmt.Sprint(rate, "/s"), "lb-limit-address-burst", fmt.Sprint(burst))
		b := startBalancer(t, binary, nil,
			one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), limits),
			one("calls", grpcServer(t, "calls"), tags("grpc_server"), limits),
		)
		conn := b.dial(t, "localhost")
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
		defer client.CloseIdleConnections()
		for name, one := range map[string]func() (admitted bool, err error){
			"HTTP": func() (bool, error) {
				response, err := client.Get("http://" + b.http)
				if err != nil {
					return false, err
				}
				defer response.Body.Close()
				_, err = io.Copy(io.Discard, response.Body)
				if response.StatusCode == http.StatusTooManyRequests && response.Header.Get("Retry-After") == "1" {
					return false, err
				}
				if response.StatusCode != http.StatusOK {
					err = fmt.Errorf("%s", response.Status)
				}
				return true, err
			},
			"gRPC": func() (bool, error) {
				var trailer grpcmetadata.MD
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				err := conn.Invoke(ctx, "/any.Service/Method", &protos.PingMessage{}, &protos.PingMessage{}, grpc.Trailer(&trailer))
				for err == io.EOF { // nginx 1.22 ended the connection, as it does each second, while grpc-go wrote the message
					err = conn.Invoke(ctx, "/any.Service/Method", &protos.PingMessage{}, &protos.PingMessage{}, grpc.Trailer(&trailer))
				}
				if grpcstatus.Code(err) == codes.ResourceExhausted && len(trailer.Get("grpc-retry-pushback-ms")) == 1 {
					return false, nil
				}
				return true, err
			},
		} {
			t.Run(name, func(t *testing.T) {
				var mu sync.Mutex
				var all, sent int
				var firstAnswer, lastSent, lastAnswer time.Time
				var failed error
				firstSent := time.Now()
				var wait sync.WaitGroup
				for range callers {
					wait.Go(func() {
						for {
							mu.Lock()
							sent++
							done := sent > calls || failed != nil
							lastSent = time.Now()
							mu.Unlock()
							if done {
								return
							}
							ok, err := one()
							mu.Lock()
							lastAnswer = time.Now()
							if firstAnswer.IsZero() {
								firstAnswer = lastAnswer
							}
							if ok {
								all++
							}
							if err != nil {
								failed = err
							}
							mu.Unlock()
						}
					})
				}
				wait.Wait()
				require.NoError(t, failed)
				// When nginx saw the first and the last request is known up to the time of one.
				least := rate*lastSent.Sub(firstAnswer).Seconds() + burst
				most := rate*lastAnswer.Sub(firstSent).Seconds() + burst
				t.Logf("%d of %d admitted, rate x time + burst is %.1f to %.1f", all, calls, least, most)
				assert.GreaterOrEqual(t, float64(all), 0.98*least)
				assert.LessOrEqual(t, float64(all), 1.02*most)
				assert.Less(t, all, calls/2, "the limit has an effect")
			})
		}
	})
}

// The expression for a Content-Length that is too large agrees with the numbers.
func TestBodyTooLarge(t *testing.T) {
	for _, limit := range []int64{1, 9, 10, 99, 100, 1000, 1023, 8192, 10 << 20, 1 << 30, 1 << 40} {
		var l Location
		l.Policy = &policy.Policy{}
		l.Policy.Limit.Body = policy.Size(limit)
		pattern := regexp.MustCompile("^" + l.BodyTooLarge() + "$")
		for _, base := range []int64{0, limit, limit / 10, limit * 10, limit + limit/10, limit - limit/10, limit * 2} {
			for n := max(0, base-200); n <= base+200; n++ {
				for _, zeros := range []string{"", "0", "000000000000000"} {
					require.Equal(t, n > limit, pattern.MatchString(zeros+strconv.FormatInt(n, 10)), "%s%d, limit %d", zeros, n, limit)
				}
			}
		}
	}
}
