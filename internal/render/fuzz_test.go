package render

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/nginxtest"
)

// nasty has texts with a meaning for nginx, for Go's templates, or for code that reads a
// path or a name.
var nasty = []string{
	"", " ", ";", "}", "{", "#", "\n", "\r\n", "\t", "\x00", `"`, `'`, `\`, "$", "${x}", "$host", "`", "%0a", "%2e%2e", "~", "*", "=", "^~",
	";}", "; }\nserver { listen 1; }", `";}`, `\";}`, "{{.}}", "{{", "}}", "{{end}}", "/", "//", "/.", "/..", "/../", "@", "|", "name|x", "a.b",
	"unix:/tmp/x", "127.0.0.1", "127.0.0.1 max_fails=0", "127.0.0.1:80", "[::1]", "::1", "fe80::1%eth0", "0x7f.1", "localhost", "resolve", "backup",
	"include /etc/passwd;", "ü", "\xff\xfe", "*.", "*.*", ".example.com", "example.com.", "EXAMPLE.com", "xn--x", "_", "-", "--", "a,b", ",", ",,",
	"/api", "/api/", "/a b", "/a;b", "/a$b", "/pkg.Service/Method", "/a/b/c", "grpc", "GRPC", "http", "https", "grpcs", "tcp", "80", "-1", "5000", "65536", "9000",
	strings.Repeat("a", 300), strings.Repeat("/a", 200), strings.Repeat("a.", 130) + "com", strings.Repeat("h,", 100),
}

// catalogOf returns the catalog of services, as Offline makes it.
func catalogOf(t *testing.T, settings Settings, services []endpoints.Service) Catalog {
	t.Helper()
	settings, err := settings.complete()
	require.NoError(t, err)
	table, err := endpoints.Open("", endpoints.Options{})
	require.NoError(t, err)
	catalog, _ := newCatalog(table.Observe(time.Now(), services), settings, testNames().addresses, nil, nil)
	return catalog
}

// checkValues checks that no value in the catalog has a special meaning.
func checkValues(t *testing.T, c Catalog) {
	t.Helper()
	var (
		name     = regexp.MustCompile(`\A[A-Za-z0-9_-]+\z`)
		hostName = regexp.MustCompile(`\A(_|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*)\z`)
		path     = regexp.MustCompile(`\A/([A-Za-z0-9._~@:+!-]+/?)*\z`)
	)
	upstream := func(u Upstream) {
		require.Regexp(t, name, u.Name)
		require.Regexp(t, name, u.Service)
		require.NotEmpty(t, u.servers)
		for _, s := range u.servers {
			host, port, err := net.SplitHostPort(s.Address)
			require.NoError(t, err)
			_, err = netip.ParseAddr(host)
			require.NoError(t, err)
			number, err := strconv.Atoi(port)
			require.NoError(t, err)
			require.True(t, number > 0 && number < 65536 && s.Weight > 0 && s.Weight < 65536)
		}
	}
	for _, f := range []Frontend{c.GRPC, c.HTTP} {
		for _, u := range f.Upstreams {
			upstream(u)
		}
		seen := map[string]bool{}
		for _, h := range f.Hosts {
			require.Regexp(t, hostName, h.Name)
			require.False(t, seen[h.Name], "host %q twice", h.Name)
			seen[h.Name] = true
			paths := map[string]bool{}
			for _, l := range h.Locations {
				require.Regexp(t, path, l.Path)
				key := fmt.Sprint(l.Exact, l.Path)
				require.False(t, paths[key], "location %q twice", l.Path)
				paths[key] = true
				if l.Service != "" {
					require.Regexp(t, name, l.Service)
					require.Contains(t, endpoints.Protocols, l.Protocol)
				}
			}
			require.Equal(t, "/", h.Locations[len(h.Locations)-1].Path)
		}
	}
	for _, s := range c.TCP {
		upstream(s.Upstream)
		_, err := netip.ParseAddrPort(s.Listen.String())
		require.NoError(t, err)
	}
}

// FuzzNothingBreaksOut registers a service with arbitrary values beside a steady one.
// Whatever the values are, the configuration matches the catalog, and the steady service is
// served. What the templates do with values depends on no version of nginx, so each seed is for
// one: every value is tried with both.
func FuzzNothingBreaksOut(f *testing.F) {
	for n := range nasty {
		at := func(k int) string { return nasty[(n+k)%len(nasty)] }
		old := n%2 == 0
		f.Add(old, "victim", "id", "node", "10.0.0.1", 80, at(0), at(1), at(2), at(3), at(4), at(5), "passing")
		f.Add(!old, at(0), at(1), at(2), at(3), n*997, "grpc_server", "", "", "", "", "", at(4))
		f.Add(!old, "victim", at(0), at(0), "10.0.0.1", 80, "", "http", at(0), "", "", "", "passing")
		f.Add(old, "victim", at(0), at(0), at(0), 80, "", "grpc", "", at(0), "", "", "warning")
		f.Add(!old, "victim", at(0), at(0), "::1", 80, "", "tcp", "", "", at(1), at(0), "passing")
	}
	f.Fuzz(func(t *testing.T, old bool, name, id, node, address string, port int, tag, protocol, host, path, version, lbPort, state string) {
		fuzzed := registration(name, id, address, port, tags(tag), onNode(node), status(state), weights(port, port))
		for key, value := range map[string]string{metadata.KeyProtocol: protocol, metadata.KeyHost: host, metadata.KeyPath: path, metadata.KeyVersion: version, metadata.KeyPort: lbPort} {
			if value != "" {
				fuzzed.Service.Meta[key] = value
			}
		}
		services := parseAll(registration("steady", "steady-1", "10.9.9.9", 7777, meta("lb-protocol", "grpc", "lb-host", "steady.internal")))
		if metadata.ValidName(name) && name != "steady" { // as in the loop
			services = append(services, parseAll(fuzzed)...)
		}
		settings := testSettings("1.30.6")
		if old {
			settings = testSettings("1.22.1")
		}
		c, err := offline(Options{Settings: settings}, services, testNames())
		require.NoError(t, err)
		require.True(t, hasServer(c, "10.9.9.9:7777"))
		catalog := catalogOf(t, settings, services)
		checkValues(t, catalog)
		checkTree(t, c.Files, catalog, settings)
		for _, s := range services {
			for _, p := range s.Problems {
				require.NotContains(t, p, "\n", "a problem is one line")
			}
		}
	})
}

func TestNginxAcceptsTheValidPartOfInvalidMetadata(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func() string { return nasty[random.IntN(len(nasty))] }
	good := func(values ...string) string {
		if random.IntN(2) == 0 {
			return pick()
		}
		return values[random.IntN(len(values))]
	}
	var registrations []*api.ServiceEntry
	for n := range 300 {
		name := fmt.Sprintf("s%d", n)
		if random.IntN(3) == 0 {
			name = pick()
		}
		if !metadata.ValidName(name) {
			continue
		}
		registrations = append(registrations, registration(name, fmt.Sprintf("%s-%d", pick(), n), good("10.0.0.1", "fd00::1", "db.example"), 1+random.IntN(65535),
			tags(good("grpc_server", "http_server")), onNode(pick()), weights(random.IntN(70000)-100, 1),
			status(good("passing", "warning", "critical")),
			meta(metadata.KeyProtocol, good("grpc", "grpcs", "http", "https", "tcp"),
				metadata.KeyHost, good(fmt.Sprintf("h%d.example.com", n), fmt.Sprintf("*.w%d.example.com", n)),
				metadata.KeyPath, good(fmt.Sprintf("/p%d", n), fmt.Sprintf("/p%d/m", n)),
				metadata.KeyVersion, good("v1"))))
	}
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		checkWithNginx(t, binary, parseAll(registrations...), nil)
	})
}
