package render

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"lbctl/internal/access"
	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/internal/policy"
	"lbctl/internal/routing"
)

var routingSeed = flag.Uint64("routing.seed", 0, "the seed of TestRoutingAgreesWithNginx; 0 means a new one")

// TestRoutingAgreesWithNginx sends generated requests over generated routes to nginx, and
// compares the service that gets each of them, or what nginx answers itself, with what package
// routing says.
func TestRoutingAgreesWithNginx(t *testing.T) {
	seed := *routingSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	const routeSets, requests = 15, 70 // in all 1,050 for each version of nginx, or more: see enough
	// enough reports whether every outcome has been compared; some are rare.
	enough := func(outcomes map[string]int) bool {
		for _, kind := range []string{"service", "nobody", "refused", "health"} {
			if outcomes[kind] <= 50 {
				return false
			}
		}
		for _, status := range []string{"204", "redirect", "400", "401", "403", "503"} { // of nginx, because of a policy
			if outcomes[status] == 0 {
				return false
			}
		}
		return true
	}
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		t.Logf("-routing.seed=%d", seed)
		generate := generator{rand.New(rand.NewPCG(seed, 0))}
		ports := namedServers(t)
		outcomes := map[string]int{}
		for set := 0; set < routeSets || !enough(outcomes); set++ {
			require.Less(t, set, 10*routeSets, "-routing.seed=%d: outcomes are missing: %v", seed, outcomes)
			services, keeper := generate.services(ports), keeperOf(t, generate.rules())
			b, listeners := startServices(t, binary, services, keeper, generate.health())
			atLeast := func(version string) bool {
				enough, err := nginx.AtLeast(binary.Version, version)
				require.NoError(t, err)
				return enough
			}
			reading, plainHTTP2 := routing.NewReading(atLeast), atLeast("1.25.1")
			for range requests {
				listener := listeners[generate.IntN(2)]
				r := generate.request(listener.Protocol.Family(), plainHTTP2)
				decision := listener.Decide(r, reading)
				want := outcome(decision)
				if decision.Taken != nil {
					if _, _, denied := keeper.Networks(time.Now()).Decide(netip.MustParseAddr("127.0.0.1"), decision.Taken.Service); denied {
						want = "answer 403"
					}
				}
				got := b.send(t, listener.Protocol.Family(), r)
				if !assert.Equal(t, want, got, "-routing.seed=%d: %s listener, request %+v\ndecision %+v", seed, listener.Name, r, decision) {
					for _, w := range listener.Ways {
						t.Logf("%s leads to %s", w.Route, w.Service)
					}
					t.FailNow()
				}
				kind, status, _ := strings.Cut(want, " ")
				if kind == "answer" {
					var redirect bool
					if kind, _, redirect = strings.Cut(status, " "); redirect {
						kind = "redirect"
					}
				}
				if decision.Taken != nil && decision.Refused != nil && decision.Refused.Status == http.StatusBadRequest && want == "refused" {
					kind = "400"
				}
				outcomes[kind]++
			}
		}
		t.Log(outcomes)
	})
}

// outcome is what a decision means for the client: "service NAME", "health", "nobody", "refused", or
// "answer STATUS" because of a policy, with the target of a redirect. No key of a request is good.
func outcome(d routing.Decision) string {
	switch {
	case d.Refused != nil && (d.Taken == nil || d.Refused.Status == http.StatusBadRequest || d.Refused.Status == http.StatusUnsupportedMediaType):
		return "refused"
	case d.Refused != nil && d.Refused.Status/100 == 3:
		target, _, _ := strings.Cut(strings.TrimPrefix(d.Refused.Reason, "nginx redirects to "), ": redirect.")
		return fmt.Sprintf("answer %d %s", d.Refused.Status, target)
	case d.Refused != nil:
		return fmt.Sprintf("answer %d", d.Refused.Status)
	case d.Wanted != "":
		return "answer 401"
	case d.Taken == nil:
		return "nobody"
	case d.Taken.Health:
		return "health"
	default:
		return "service " + d.Taken.Service
	}
}

type generator struct{ *rand.Rand }

func (g generator) one(of ...string) string { return of[g.IntN(len(of))] }

// often returns true n times of 10.
func (g generator) often(n int) bool { return g.IntN(10) < n }

const servicesOfAFamily = 8

func serviceName(family string, n int) string { return fmt.Sprintf("%s-%d", family, n) }

// services makes services with routes that meet each other often. The last one of each family
// has no instance in rotation.
func (g generator) services(ports map[string]int) []endpoints.Service {
	var all []endpoints.Service
	for family, p := range map[string]endpoints.Protocol{"grpc": endpoints.GRPC, "http": endpoints.HTTP} {
		for n := range servicesOfAFamily {
			s := endpoints.Service{Name: serviceName(family, n), OK: true, Spec: endpoints.Spec{Protocol: p}}
			s.Instances = []endpoints.Instance{{ID: "1", Node: "n", Address: "127.0.0.1", Port: ports[s.Name], Weight: 1, Status: endpoints.Passing}}
			if n == servicesOfAFamily-1 {
				s.Instances[0].Status = endpoints.Maintenance
			}
			s.Policy = g.policy(family, n)
			routes := map[endpoints.Route]bool{}
			for range 1 + g.IntN(6) {
				if r := g.route(family); r != (endpoints.Route{}) {
					routes[r] = true
				} else if g.often(3) {
					s.Default = true
				}
			}
			s.Routes = slices.SortedFunc(maps.Keys(routes), func(a, b endpoints.Route) int { return strings.Compare(a.String(), b.String()) })
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b endpoints.Service) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// policyFields are fields that let nginx answer itself or change the path, with their values.
// maintenance.retry-after marks the answers in maintenance.
var policyFields = map[string][][]string{
	"grpc": {{"maintenance.enabled", "on"}, {"auth.keys", "on"}, {"auth.basic", "on"}, {"cors.allow-origins", "*"}, {"redirect.path", "/new"}},
	"http": {
		{"maintenance.enabled", "on", "maintenance.retry-after", "9s"}, {"auth.keys", "on"}, {"auth.basic", "on"},
		{"cors.allow-origins", "https://b.test"},
		{"redirect.host", "a.test"}, {"redirect.scheme", "http"}, {"redirect.scheme", "https"},
		{"redirect.path", "/a/b"}, {"redirect.path", "/new/"}, {"redirect.replace-prefix", "/"}, {"redirect.replace-prefix", "/b"}, {"redirect.replace-prefix", "/a/b"},
		{"path.replace-prefix", "/"}, {"path.replace-prefix", "/new"}, {"path.replace-prefix", "/a"},
	},
}

// policy makes a policy for a service, and for some of its paths: such a path has a location, but
// is no route. Some HTTP services always answer browsers.
func (g generator) policy(family string, n int) policy.Settings {
	var document policy.Document
	set := func(path string, pairs ...string) {
		for n := 0; n < len(pairs); n += 2 {
			if err := document.SetAt(path, pairs[n], pairs[n+1]); err != nil {
				panic(err)
			}
		}
	}
	fields := policyFields[family]
	path := g.one("/a", "=/a", "/a/b", "/ab/c")
	if family == "grpc" {
		path = g.one("/p.S/M", "/p.q.S/M", "/q.S/O", "/p.S", "/q.S")
	}
	if g.often(3) {
		set(path, "timeout.read", "9s")
	}
	if g.often(3) {
		set(path, fields[g.IntN(len(fields))]...)
	}
	if family == "http" && n%3 == 0 {
		set("", "cors.allow-origins", g.one("*", "https://a.test"))
	}
	if family == "http" && g.often(5) {
		set("", "redirect.code", "308")
	}
	if g.often(5) {
		set("", fields[g.IntN(len(fields))]...)
	}
	return policy.Resolve(policy.Layer{Level: policy.LevelService, Source: "lb/service/x", Document: document})
}

// rules makes rules that deny some services the only client.
func (g generator) rules() (rules []access.Rule) {
	for family := range policyFields {
		rules = access.Deny(rules, networks("127.0.0.0/8"), access.Write{Service: serviceName(family, g.IntN(servicesOfAFamily))})
	}
	return access.Allow(rules, networks("127.0.0.1"), access.Write{Service: serviceName("http", g.IntN(servicesOfAFamily))})
}

// health has lbctl answer requests that services may have routes for too.
func (g generator) health() Health {
	scopes := []HealthScope{HealthUnrouted, HealthBeforeDefault}
	return Health{HTTP: scopes[g.IntN(2)], GRPC: scopes[g.IntN(2)], Path: g.one("/a", "/a/b", "/b", "/a.b/c")}
}

func (g generator) route(family string) endpoints.Route {
	r := endpoints.Route{Host: g.one("", "", "", "test", "a.test", "b.a.test", "*.test", "*.a.test", "10.0.0.1", "*.0.0.1")}
	if family == "grpc" {
		r.Path = g.one("", "/p.S", "/p.S/M", "/p.S/N", "/p.*", "/p.q.*", "/p.q.S", "/q.S", "/pp.S", "/S",
			"/grpc.health.v1.Health", "/grpc.health.v1.Health/Check", "/grpc.*")
	} else {
		r.Path = g.one("", "/a", "/a/b", "/ab", "/a/b/c", "/b", "/a.b", "/A")
		if g.often(3) {
			r.Path, r.Exact = r.Path+g.one("", "/"), true
		}
		if r.Exact && r.Path == "" {
			r.Path = "/"
		}
		if g.often(3) {
			r.Method = g.one("GET", "POST", "HEAD", "FOO")
		}
	}
	if g.often(3) {
		var matches []endpoints.HeaderMatch
		for _, name := range []string{"x-v", "x-long-name"} {
			if g.often(6) {
				matches = append(matches, endpoints.HeaderMatch{Name: name, Value: g.one("1", "2", "a=b/c")})
			}
		}
		r.Headers = endpoints.JoinHeaders(matches)
	}
	return r
}

// request makes a request that is odd in many ways, but often meets a route.
func (g generator) request(family string, plainHTTP2 bool) routing.Request {
	r := routing.Request{Method: g.one("GET", "GET", "POST", "HEAD", "FOO", "OPTIONS"), Host: g.host(), Target: g.target(family)}
	switch {
	case family == "grpc" || plainHTTP2 && g.often(3):
		r.HTTP = routing.HTTP2
	case g.often(1):
		r.HTTP = routing.HTTP10
	}
	if g.often(1) {
		r.Method = g.one("get", "TRACE", "G-T", "G.T")
	}
	if g.IntN(30) == 0 {
		r.NoHost, r.Host = true, ""
	}
	if r.HTTP != routing.HTTP2 && g.often(2) {
		r.Target = g.one("http", "HTTPS", "x+1") + "://" + g.one("test", "A.test", "b.a.test:80", "a.test.", "10.0.0.1:8080", "a..test", "[::1]:1") + r.Target
		if g.IntN(20) == 0 {
			r.Target = "http://a.test" + g.one("", "?x=1")
		}
	}
	for _, name := range []string{"x-v", "X-Long-Name"} {
		for range g.IntN(3) {
			r.Headers = append(r.Headers, routing.Header{Name: g.one(name, name, name, strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", ".")), Value: g.one("1", "2", "a=b/c", "", "1 ", "A=b/c")})
		}
	}
	if g.often(3) { // a browser asks what a page may do
		r.Method = g.one("OPTIONS", "OPTIONS", "OPTIONS", "POST")
		for _, h := range []routing.Header{{Name: "Origin", Value: g.one("https://a.test", "https://b.test", "null", "")}, {Name: "Access-Control-Request-Method", Value: g.one("PUT", "PUT", "")}} {
			if g.often(9) {
				r.Headers = append(r.Headers, h)
			}
		}
	}
	if g.often(2) {
		r.Headers = append(r.Headers, routing.Header{Name: "X-API-Key", Value: g.one("wrong", "")})
	}
	if g.often(2) {
		r.Headers = append(r.Headers, routing.Header{Name: "Authorization", Value: g.one("Bearer wrong", "bearer", "Basic d3Jvbmc6eA==", "Basic", "x")})
	}
	return r
}

func (g generator) host() string {
	host := g.one("test", "a.test", "b.a.test", "c.b.a.test", "x.test", "other", "10.0.0.1", "1.0.0.1", "localhost")
	if g.often(3) {
		host = strings.ToUpper(host[:1]) + host[1:]
	}
	if g.often(2) {
		host += g.one(".", ":80", ".:80", ":")
	}
	if g.often(1) {
		host = g.one("[::1]", "[::1]:80", "a..test", "_", "*.a.test", ".a.test", "a_b.test", "a/b", "", ":80", ".", "a.test@b.test", "[::1", "a.test:80:80")
	}
	return host
}

func (g generator) target(family string) string {
	var path strings.Builder
	if family == "grpc" {
		path.WriteString("/" + g.one("p.S", "p.S", "p.q.S", "q.S", "pp.S", "S", "p%2eS", "p.T", "P.S", "p.", "grpc.health.v1.Health", "grpc.health.v1.Health"))
		path.WriteString(g.one("/M", "/M", "/N", "/O", "/", "", "//M", "/M/", "/x/../M", "%2FM", "/Check"))
	} else {
		for range 1 + g.IntN(3) {
			path.WriteString("/" + g.one("a", "a", "b", "c", "ab", "a.b", "%61", "A", ""))
		}
		if g.often(3) {
			path.WriteString(g.one("/", "/.", "/..", "/./", "//", "/%2e%2e/", "%2Fb", "/../b", "/..b", "/...", "%2f..%2fb", "/a%20b", "/%c3%a9", "/\xc3\xa9", "/a;b", "/a+b"))
		}
	}
	if g.often(1) {
		path.WriteString(g.one("%00", "%zz", "%", "%2", "/../../../..", "/../../a", "%23", "%3f/b", "%25"))
	}
	if g.often(2) {
		path.WriteString(g.one("?x=/b/..", "?", "#b", "?a#b", "??"))
	}
	return path.String()
}

// namedServers starts a server for each service of the generator. Each answers with its
// service's name, over HTTP/1.1 and HTTP/2. It returns their ports.
func namedServers(t *testing.T) map[string]int {
	t.Helper()
	ports := map[string]int{}
	for _, family := range []string{"grpc", "http"} {
		for n := range servicesOfAFamily {
			name := serviceName(family, n)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Service", name)
			})}
			server.Protocols.SetHTTP1(true)
			server.Protocols.SetUnencryptedHTTP2(true)
			go server.Serve(listener)
			t.Cleanup(func() { server.Close() })
			ports[name] = listener.Addr().(*net.TCPAddr).Port
		}
	}
	return ports
}

// startServices starts nginx for services, and returns the listeners of the configuration.
func startServices(t *testing.T, binary nginxtest.Binary, services []endpoints.Service, keeper *access.Keeper, health Health) (balancer, []routing.Listener) {
	t.Helper()
	dir := nginxtest.Dir(t)
	b := balancer{
		grpc: fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t)), http: fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t)),
		errorLog: filepath.Join(dir, "error.log"),
	}
	settings := testSettings(binary.Version)
	settings.Listeners = PlainListeners(Listen{b.grpc}, Listen{b.http})
	settings.RunDir, settings.OpenFiles, settings.Health = dir, 1024, health
	settings.StreamModule = streamModule(t, binary)
	c, err := offline(Options{Settings: settings, Access: keeper}, services, testNames())
	require.NoError(t, err)
	for name, content := range c.Files { // Go's servers refuse hosts that nginx accepts
		c.Files[name] = bytes.ReplaceAll(content, []byte("_set_header Host $lb_host;"), []byte("_set_header Host instance;"))
	}
	answerer(t, dir, keeper)
	nginxtest.Start(t, binary, write(t, dir, c), dir)
	return b, c.Listeners
}

// send sends a request as it is, and returns the outcome.
func (b balancer) send(t *testing.T, family string, r routing.Request) string {
	t.Helper()
	address := b.http
	if family == "grpc" {
		address = b.grpc
	}
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	if r.HTTP == routing.HTTP2 {
		return sendHTTP2(t, conn, family, r)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s HTTP/1.%d\r\n", r.Method, r.Target, map[routing.Version]int{routing.HTTP1: 1, routing.HTTP10: 0}[r.HTTP])
	if !r.NoHost {
		fmt.Fprintf(&text, "Host: %s\r\n", r.Host)
	}
	for _, h := range r.Headers {
		fmt.Fprintf(&text, "%s: %s\r\n", h.Name, h.Value)
	}
	text.WriteString("Connection: close\r\n\r\n")
	_, err = io.WriteString(conn, text.String())
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: r.Method})
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return meaning(family, response.StatusCode, response.Header, string(body), r.Method == "HEAD")
}

// meaning returns the outcome of an answer.
func meaning(family string, status int, headers http.Header, message string, noBody bool) string {
	const nobodyOf = "no instance of "
	at := strings.Index(message, nobodyOf)
	switch {
	case strings.Contains(message, "knows the health"), headers.Get("Content-Type") == "application/json":
		return "health" // lbctl does not run
	case headers.Get("Service") != "":
		return "service " + headers.Get("Service")
	case at >= 0:
		name, _, _ := strings.Cut(message[at+len(nobodyOf):], " ")
		return "service " + name
	case strings.HasSuffix(message, " is in maintenance"), headers.Get("Retry-After") == "9":
		return "answer 503"
	case strings.HasPrefix(message, "lbctl: not allowed"):
		return "answer 403"
	case strings.HasPrefix(message, "lbctl: not authenticated"):
		return "answer 401"
	case family == "http" && slices.Contains([]int{204, 401, 403}, status):
		return fmt.Sprintf("answer %d", status)
	case family == "http" && slices.Contains([]int{307, 308}, status):
		return fmt.Sprintf("answer %d %s", status, headers.Get("Location"))
	case noBody && status == http.StatusServiceUnavailable:
		return "service " + serviceName("http", servicesOfAFamily-1)
	case status == http.StatusNotFound, strings.Contains(message, "no service is routed"):
		return "nobody"
	default:
		return "refused"
	}
}

// sendHTTP2 sends a request by HTTP/2 without the checks of a client, on a new connection.
func sendHTTP2(t *testing.T, conn net.Conn, family string, r routing.Request) string {
	t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	field := func(name, value string) {
		require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: name, Value: value}))
	}
	field(":method", r.Method)
	field(":scheme", "http")
	field(":path", r.Target)
	if !r.NoHost {
		field(":authority", r.Host)
	}
	for _, h := range r.Headers {
		field(strings.ToLower(h.Name), h.Value)
	}
	_, err := io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	require.NoError(t, framer.WriteSettings())
	require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}))
	status, headers, message := 0, http.Header{}, ""
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "refused" // the connection is closed
		}
		ended := false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				require.NoError(t, framer.WriteSettingsAck())
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "refused"
		case *http2.MetaHeadersFrame:
			fmt.Sscan(f.PseudoValue("status"), &status)
			for _, h := range f.RegularFields() {
				headers.Add(h.Name, h.Value)
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			message += string(f.Data())
			ended = f.StreamEnded()
		}
		if ended {
			return meaning(family, status, headers, message+headers.Get("Grpc-Message"), family == "http" && r.Method == "HEAD")
		}
	}
}
