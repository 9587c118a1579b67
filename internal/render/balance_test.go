package render

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policytest"
)

func init() {
	maps.Copy(fieldTests, map[string]func(*testing.T, nginxtest.Binary){
		"balance.algorithm": testAlgorithm,
		"sticky.cookie":     testSticky,
		"sticky.ttl":        testedIn("testSticky"),
		"sticky.path":       testedIn("testSticky"),
		"sticky.secure":     testedIn("testSticky"),
	})
}

// said returns what lbctl says about registrations.
func said(t *testing.T, binary nginxtest.Binary, registrations ...*api.ServiceEntry) []string {
	t.Helper()
	c, err := offline(Options{Settings: testSettings(binary.Version)}, parseAll(registrations...), testNames())
	require.NoError(t, err)
	var all []string
	for _, p := range c.Problems {
		all = append(all, p.Subject+": "+p.Message)
	}
	return all
}

func atLeast(t *testing.T, binary nginxtest.Binary, version string) bool {
	t.Helper()
	enough, err := nginx.AtLeast(binary.Version, version)
	require.NoError(t, err)
	return enough
}

// instances are n instances of an HTTP service, which answer with their number.
func instances(t *testing.T, service string, n int, pairs ...string) (all []*api.ServiceEntry) {
	t.Helper()
	for i := range n {
		port := handler(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, i) })
		all = append(all, registration(service, fmt.Sprint(service, i), "127.0.0.1", port, tags("http_server"), meta(pairs...)))
	}
	return all
}

// reached returns which instances answer n requests.
func reached(t *testing.T, n int, client *http.Client, url string, change ...func(*http.Request)) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range n {
		_, body := get(t, client, url, change...)
		counts[body]++
	}
	return counts
}

func testAlgorithm(t *testing.T, binary nginxtest.Binary) {
	t.Run("hash", func(t *testing.T) {
		var all []*api.ServiceEntry
		for _, key := range []string{"header:x-user", "cookie:session", "path", "address"} {
			name, _, _ := strings.Cut(key, ":")
			all = append(all, instances(t, name, 3, "lb-path", "/"+name, "lb-balance-algorithm", "hash:"+key)...)
		}
		b := startBalancer(t, binary, nil, all...)
		url := "http://" + b.http
		for name, send := range map[string]func(user int, n int) map[string]int{
			"header": func(user, n int) map[string]int {
				return reached(t, n, http.DefaultClient, url+"/header", withHeader("X-User", fmt.Sprint("user ", user)))
			},
			"cookie": func(user, n int) map[string]int {
				return reached(t, n, http.DefaultClient, url+"/cookie", withHeader("Cookie", fmt.Sprint("a=b; session=", user)))
			},
			"path": func(user, n int) map[string]int {
				return reached(t, n, http.DefaultClient, fmt.Sprint(url, "/path/", user, "?", n))
			},
			"address": func(user, n int) map[string]int {
				return reached(t, n, from(t, fmt.Sprint("127.0.1.", user+1)), url+"/address")
			},
		} {
			seen := map[string]bool{}
			for user := range 40 {
				at := send(user, 4)
				assert.Len(t, at, 1, "%s %d: always the same instance", name, user)
				for instance := range at {
					seen[instance] = true
				}
			}
			assert.Len(t, seen, 3, "%s: all instances", name)
		}
		assert.Len(t, reached(t, 30, http.DefaultClient, url+"/header"), 3, "requests without the header go to all")
		assert.Len(t, reached(t, 30, http.DefaultClient, url+"/cookie"), 3, "requests without the cookie go to all")
	})
	for _, algorithm := range []string{"least_conn", "random", "round_robin"} {
		t.Run(algorithm, func(t *testing.T) {
			began, end := make(chan bool, 1), make(chan bool)
			defer close(end)
			var all []*api.ServiceEntry
			for i := range 2 {
				port := handler(t, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/wait" {
						began <- true
						<-end
					}
					fmt.Fprint(w, i)
				})
				all = append(all, registration("web", fmt.Sprint(i), "127.0.0.1", port, tags("http_server"), meta("lb-balance-algorithm", algorithm)))
			}
			b := startBalancer(t, binary, nil, all...)
			go http.Get("http://" + b.http + "/wait")
			<-began
			got := reached(t, 10, http.DefaultClient, "http://"+b.http)
			if algorithm == "round_robin" {
				assert.Len(t, got, 2)
			} else {
				assert.Len(t, got, 1, "the instance without a request")
			}
		})
	}
	t.Run("TCP", func(t *testing.T) {
		requireStream(t, binary)
		tcp := func(algorithm string) (all []*api.ServiceEntry, address string) {
			port := strconv.Itoa(nginxtest.FreePort(t))
			for i := range 3 {
				instance := listener(t, func(conn net.Conn) { fmt.Fprint(conn, i) })
				all = append(all, registration("tcp", fmt.Sprint(i), "127.0.0.1", instance, meta("lb-protocol", "tcp", "lb-port", port, "lb-balance-algorithm", algorithm)))
			}
			return all, net.JoinHostPort("127.0.0.1", port)
		}
		reached := func(address string) map[string]int {
			counts := map[string]int{}
			for range 9 {
				answer := make([]byte, 1)
				_, err := dialTCP(t, address).Read(answer)
				require.NoError(t, err)
				counts[string(answer)]++
			}
			return counts
		}
		for _, algorithm := range []string{"hash:address", "least_conn", "random"} {
			all, address := tcp(algorithm)
			startBalancer(t, binary, nil, all...)
			if got := reached(address); algorithm == "hash:address" {
				assert.Len(t, got, 1)
			} else {
				assert.Greater(t, len(got), 1)
			}
		}
		all, _ := tcp("hash:path")
		assert.Equal(t, []string{`service tcp: metadata: balance.algorithm hash:path: it has no effect on tcp services, want "hash:address"`}, said(t, binary, all...))
	})
}

func testSticky(t *testing.T, binary nginxtest.Binary) {
	pairs := []string{"lb-sticky-cookie", "lb-node", "lb-sticky-ttl", "2h", "lb-sticky-path", "/shop", "lb-sticky-secure", "off", "lb-balance-algorithm", "random"}
	all := instances(t, "web", 3, pairs...)
	all = append(all, instances(t, "secure", 1, "lb-path", "/secure", "lb-sticky-cookie", "s", "lb-sticky-secure", "on")...)
	b := startBalancer(t, binary, nil, all...)
	url := "http://" + b.http
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client := &http.Client{Jar: jar}
	at := reached(t, 20, client, url+"/shop/x")
	if !atLeast(t, binary, "1.29.6") {
		assert.Len(t, at, 3)
		assert.Contains(t, said(t, binary, all...), "service web: metadata: sticky.cookie lb-node: it has no effect with nginx "+binary.Version+", want 1.29.6 or later")
		return
	}
	assert.Len(t, at, 1, "the client stays at its instance")
	assert.Greater(t, len(reached(t, 20, client, url+"/other")), 1, "the cookie is for a path")
	response, _ := get(t, http.DefaultClient, url)
	cookie := response.Cookies()[0]
	assert.Equal(t, []any{"lb-node", "/shop", true, false, http.SameSiteLaxMode}, []any{cookie.Name, cookie.Path, cookie.HttpOnly, cookie.Secure, cookie.SameSite})
	assert.Equal(t, 7200, cookie.MaxAge, cookie.Raw)
	response, _ = get(t, http.DefaultClient, url+"/secure")
	assert.True(t, response.Cookies()[0].Secure)
}

func TestRingWeights(t *testing.T) {
	for _, c := range []struct{ weights, want []int }{
		{[]int{1, 1, 1}, []int{1, 1, 1}},
		{[]int{100, 100, 100}, []int{1, 1, 1}},
		{[]int{3, 1}, []int{3, 1}},
		{[]int{900, 100}, []int{900, 100}},
		{[]int{900, 101}, []int{450, 50}},
		{[]int{65535, 1}, []int{511, 1}},
		{nil, nil},
	} {
		var servers []Server
		for _, w := range c.weights {
			servers = append(servers, Server{Weight: w})
		}
		ringWeights(servers)
		var got []int
		for _, s := range servers {
			got = append(got, s.Weight)
		}
		assert.Equal(t, c.want, got)
	}
}

// With delivery by DNS too, the weights for consistent hashing are small.
func TestRingWeightsAreDelivered(t *testing.T) {
	for _, version := range []string{"1.22.1", "1.30.6"} {
		settings := testSettings(version)
		if version == "1.30.6" {
			byDNS(&settings)
		}
		settings, err := settings.complete()
		require.NoError(t, err)
		e := endpoints.Entry{Service: endpoints.Service{Name: "a", Spec: endpoints.Spec{Protocol: endpoints.HTTP, Default: true, Policy: policytest.Settings("balance.algorithm", "hash:path")}, OK: true}}
		for n := range 2 {
			e.Instances = append(e.Instances, endpoints.Instance{ID: fmt.Sprint(n), Address: fmt.Sprint("10.0.0.", n+1), Port: 80, Weight: 5000, Status: endpoints.Passing})
		}
		catalog, _ := newCatalog([]endpoints.Entry{e}, settings, testNames().addresses, nil, nil)
		u := catalog.HTTP.Upstreams[0]
		assert.Equal(t, []int{1, 1}, []int{u.Servers()[0].Weight, int(u.targets[1].Weight)}, version)
		assert.Equal(t, "$uri", u.Hash())
		assert.Equal(t, policy.Algorithm("hash:path"), u.Policy.Balance)
	}
}
