package resolver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

func startServer(t *testing.T) (*Server, string) {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
	s, _ := startServerAt(t, address)
	return s, address
}

func startServerAt(t *testing.T, address string) (s *Server, stop func()) {
	t.Helper()
	s = New(nil)
	require.NoError(t, s.Listen(address))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return s, stop
}

func targets(ports ...int) []Target {
	var all []Target
	for _, port := range ports {
		all = append(all, Target{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)), 1})
	}
	return all
}

// askFrom opens a socket to ask from, as each of nginx's workers does.
func askFrom(t *testing.T, address string) *dns.Conn {
	t.Helper()
	conn, err := net.Dial("udp", address)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &dns.Conn{Conn: conn, UDPSize: udpSize}
}

func srv(upstream string) *dns.Msg {
	return new(dns.Msg).SetQuestion(srvPrefix+Host(upstream)+".", dns.TypeSRV)
}

func ask(t *testing.T, conn *dns.Conn, m *dns.Msg) *dns.Msg {
	t.Helper()
	answer, _, err := new(dns.Client).ExchangeWithConn(m, conn)
	require.NoError(t, err)
	return answer
}

func TestServerParksQuestionsUntilThereIsNews(t *testing.T) {
	r, address := startServer(t)
	r.Set(map[string][]Target{"grpc-a": targets(7001), "grpc-b": targets(7002)}, time.Time{})
	conn := askFrom(t, address)
	assert.Len(t, ask(t, conn, srv("grpc-a")).Answer, 1, "the first question is answered")
	assert.Len(t, r.Unfetched(), 2)

	answered := make(chan *dns.Msg, 1)
	go func() {
		m, _, _ := (&dns.Client{Timeout: 20 * time.Second}).ExchangeWithConn(srv("grpc-a"), conn)
		answered <- m
	}()
	require.Eventually(t, func() bool { return len(r.Unfetched()) == 1 }, 10*time.Second, time.Millisecond, "the next question shows that the answer was fetched")
	r.Set(map[string][]Target{"grpc-a": targets(7001), "grpc-b": targets(7002, 7003)}, time.Time{})
	select {
	case m := <-answered:
		t.Fatalf("answered without news: %v", m)
	default:
	}
	r.Set(map[string][]Target{"grpc-a": targets(7001, 7004), "grpc-b": targets(7002, 7003)}, time.Time{})
	m := <-answered
	require.NotNil(t, m)
	require.Len(t, m.Answer, 2)
	name := m.Answer[1].(*dns.SRV).Target
	a := ask(t, askFrom(t, address), new(dns.Msg).SetQuestion(name, dns.TypeA))
	require.Len(t, a.Answer, 1)
	assert.Equal(t, "127.0.0.1", a.Answer[0].(*dns.A).A.String())
}

func TestServerNeverAnswersWithoutServers(t *testing.T) {
	r, address := startServer(t)
	conn := askFrom(t, address)
	assert.Equal(t, dns.RcodeRefused, ask(t, conn, new(dns.Msg).SetQuestion("example.com.", dns.TypeA)).Rcode, "a name outside of our zone")
	r.Set(map[string][]Target{"grpc-a": nil}, time.Time{})
	m := ask(t, conn, srv("grpc-a"))
	require.Len(t, m.Answer, 1, "an upstream without servers has the sentinel")
	assert.Zero(t, m.Answer[0].(*dns.SRV).Port)
	v6 := ask(t, conn, new(dns.Msg).SetQuestion(targetLabel(netip.MustParseAddrPort("[fd00::1]:7000"))+targetZone+".", dns.TypeAAAA))
	require.Len(t, v6.Answer, 1)
	assert.Equal(t, "fd00::1", v6.Answer[0].(*dns.AAAA).AAAA.String())
}

func TestServerTruncatesAndAnswersAllOverTCP(t *testing.T) {
	r, address := startServer(t)
	var ports []int
	for n := range 1000 {
		ports = append(ports, 10000+n)
	}
	r.Set(map[string][]Target{"grpc-a": targets(ports...)}, time.Time{})
	m := ask(t, askFrom(t, address), srv("grpc-a"))
	assert.True(t, m.Truncated)
	assert.Empty(t, m.Answer)
	whole, _, err := (&dns.Client{Net: "tcp"}).Exchange(srv("grpc-a"), address)
	require.NoError(t, err)
	assert.Len(t, whole.Answer, 1000)
}

// newest returns the newest nginx. It skips the test if that can't fetch servers by DNS.
func newest(t *testing.T) nginxtest.Binary {
	t.Helper()
	all := nginxtest.Binaries(t)
	binary := all[len(all)-1]
	if strings.HasPrefix(binary.Version, "1.22") {
		t.Skip("this nginx can't fetch its servers by DNS, 1.27.3 can")
	}
	return binary
}

// startNginx starts an nginx that asks resolver for the servers of upstreams. It listens on
// a socket for each upstream.
func startNginx(t *testing.T, resolver string, upstreams ...string) (map[string]string, *nginxtest.Process) {
	t.Helper()
	binary, dir := newest(t), nginxtest.Dir(t)
	var b strings.Builder
	if os.Geteuid() == 0 {
		b.WriteString("user root;\n")
	}
	fmt.Fprintf(&b, `pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
worker_processes 2;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
`, dir)
	listen := map[string]string{}
	for _, name := range upstreams {
		listen[name] = "unix:" + filepath.Join(dir, name+".sock")
		fmt.Fprintf(&b, `
  upstream %[1]s {
    zone %[1]s 1m;
    resolver %[5]s ipv6=off;
    resolver_timeout %[6]s;
    server %[2]s service=%[3]s resolve max_fails=1 fail_timeout=2s;
  }
  server { listen %[4]s; location / { proxy_pass http://%[1]s; add_header X-Upstream $upstream_addr always; } }
`, name, Host(name), Service, listen[name], resolver, strconv.Itoa(int(Timeout.Seconds())))
	}
	b.WriteString("}\n")
	conf := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(conf, []byte(b.String()), 0o644))
	return listen, nginxtest.Start(t, binary, conf, dir)
}

// get sends a request to a socket of startNginx's, over a new connection.
func get(t *testing.T, listen string) (status int, body, upstream string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(listen, "unix:"))
		},
	}}
	resp, err := client.Get("http://nginx/")
	if err != nil {
		return 0, err.Error(), ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), resp.Header.Get("X-Upstream")
}

func named(t *testing.T, name string) int {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) }))
	t.Cleanup(s.Close)
	return int(netip.MustParseAddrPort(s.Listener.Addr().String()).Port())
}

// TestNginxFetchesServers uses a real nginx. Servers come and go, also the last one, and
// the Server knows when nginx has fetched them.
func TestNginxFetchesServers(t *testing.T) {
	r, address := startServer(t)
	one, two := named(t, "one"), named(t, "two")
	r.Set(map[string][]Target{"http-a": targets(one)}, time.Time{})
	listens, _ := startNginx(t, address, "http-a")
	listen := listens["http-a"]
	answers := func(want string) func() bool {
		return func() bool { _, body, _ := get(t, listen); return body == want }
	}
	fetched := func() bool { return len(r.Unfetched()) == 0 }
	require.Eventually(t, answers("one"), 20*time.Second, 5*time.Millisecond)
	require.Eventually(t, fetched, 20*time.Second, 5*time.Millisecond)
	for n, want := range []struct {
		port int
		name string
	}{{two, "two"}, {one, "one"}, {two, "two"}} {
		set := time.Now()
		r.Set(map[string][]Target{"http-a": targets(want.port)}, time.Time{})
		require.Eventually(t, answers(want.name), 20*time.Second, 2*time.Millisecond)
		t.Logf("change %d: served after %s", n, time.Since(set).Round(time.Millisecond))
		require.Eventually(t, fetched, 20*time.Second, 5*time.Millisecond)
		t.Logf("change %d: certainly fetched after %s", n, time.Since(set).Round(time.Millisecond))
	}
	r.Set(map[string][]Target{"http-a": nil}, time.Time{})
	require.Eventually(t, func() bool {
		status, _, upstream := get(t, listen)
		return status == http.StatusBadGateway && upstream == Sentinel
	}, 20*time.Second, 5*time.Millisecond, "nginx uses the sentinel")
	r.Set(map[string][]Target{"http-a": targets(one)}, time.Time{})
	require.Eventually(t, answers("one"), 20*time.Second, 5*time.Millisecond)
}

// TestNginxFetchesAThousandUpstreams has a new nginx ask for all upstreams at once. One of
// them has an answer that is too long for UDP.
func TestNginxFetchesAThousandUpstreams(t *testing.T) {
	r, address := startServer(t)
	upstreams, names := map[string][]Target{}, []string{}
	for n := range 1000 {
		name := fmt.Sprintf("http-%04d", n)
		names = append(names, name)
		for k := range 10 {
			addr := netip.AddrFrom4([4]byte{127, 2, byte(n >> 4), byte(n&15<<4 + k)})
			upstreams[name] = append(upstreams[name], Target{netip.AddrPortFrom(addr, 7000), 1})
		}
	}
	one := named(t, "one")
	upstreams["http-0999"] = nil
	for n := range 1000 {
		addr := netip.AddrFrom4([4]byte{127, 3, byte(n >> 8), byte(n)})
		upstreams["http-0999"] = append(upstreams["http-0999"], Target{netip.AddrPortFrom(addr, 1), 1})
	}
	upstreams["http-0999"] = append(upstreams["http-0999"], targets(one)...)
	r.Set(upstreams, time.Time{})
	began := time.Now()
	startNginx(t, address, names...)
	require.Eventually(t, func() bool { return len(r.Unfetched()) == 0 }, 60*time.Second, 50*time.Millisecond)
	t.Logf("all certainly fetched after %s", time.Since(began).Round(time.Millisecond))
}

// parkedAt reports whether the Server has parked a question of a new worker for each
// upstream.
func parkedAt(s *Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.upstreams {
		parked := false
		for _, a := range u.askers {
			parked = parked || a.parked() && !a.old
		}
		if !parked {
			return false
		}
	}
	return true
}

// TestOldWorkersLeaveWhileTheirQuestionsAreParked checks that old workers don't wait for
// an answer before they end.
func TestOldWorkersLeaveWhileTheirQuestionsAreParked(t *testing.T) {
	s, address := startServer(t)
	one := named(t, "one")
	s.Set(map[string][]Target{"http-a": targets(one), "http-b": targets(one)}, time.Time{})
	_, nginx := startNginx(t, address, "http-a", "http-b")
	for range 2 {
		require.Eventually(t, func() bool { return parkedAt(s) }, 20*time.Second, 5*time.Millisecond)
		old := nginx.Workers()
		require.NotEmpty(t, old)
		reloaded := s.Reloading()
		nginx.Reload()
		began := time.Now()
		require.Eventually(t, func() bool {
			return !slices.ContainsFunc(old, func(pid int) bool { return slices.Contains(nginx.Workers(), pid) })
		}, 30*time.Second, 5*time.Millisecond, "the old workers leave")
		t.Logf("the old workers left after %s", time.Since(began).Round(time.Millisecond))
		reloaded()
	}
	require.Eventually(t, func() bool { return len(s.Unfetched()) == 0 }, 20*time.Second, 5*time.Millisecond)
}

// TestNginxAsksTheNextServer checks that nginx repeats a question that one lbctl has parked
// to the next one, although its timeout is an hour.
func TestNginxAsksTheNextServer(t *testing.T) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
	first, stop := startServerAt(t, address)
	one, two := named(t, "one"), named(t, "two")
	first.Set(map[string][]Target{"http-a": targets(one)}, time.Time{})
	listens, _ := startNginx(t, address, "http-a")
	require.Eventually(t, func() bool { return parkedAt(first) }, 20*time.Second, 5*time.Millisecond)
	stop()
	next, _ := startServerAt(t, address)
	began := time.Now()
	asked := func() bool {
		next.mu.Lock()
		defer next.mu.Unlock()
		return len(next.upstreams) == 1
	}
	require.Eventually(t, asked, 30*time.Second, 5*time.Millisecond)
	t.Logf("asked after %s", time.Since(began).Round(time.Millisecond))
	_, body, _ := get(t, listens["http-a"])
	assert.Equal(t, "one", body, "nginx keeps its servers while the next one knows nothing")
	began = time.Now()
	next.Set(map[string][]Target{"http-a": targets(two)}, time.Time{})
	require.Eventually(t, func() bool { _, body, _ := get(t, listens["http-a"]); return body == "two" }, 30*time.Second, 2*time.Millisecond)
	t.Logf("served after %s", time.Since(began).Round(time.Millisecond))
	require.Eventually(t, func() bool { return len(next.Unfetched()) == 0 }, 20*time.Second, 5*time.Millisecond)
}
