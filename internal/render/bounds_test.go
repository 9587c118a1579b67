package render

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policytest"
)

// TestNginxAcceptsTheBounds lets nginx test each field with its smallest and its largest value,
// together with the other fields of its subject, for the services of each family.
func TestNginxAcceptsTheBounds(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		tcp := streamModule(t, binary) != nginx.NoStream
		registrations := []*api.ServiceEntry{one("cart-next", 9000, meta("lb-protocol", "http", "lb-path", "/mirrored"))}
		policies := map[string]policy.Settings{}
		add := func(family string, values []string) {
			name := fmt.Sprintf("s%d", len(policies))
			pairs := []string{"lb-protocol", family}
			switch family {
			case policy.HTTP, policy.GRPC:
				pairs = append(pairs, "lb-path", "/"+name)
			case policy.TCP:
				pairs = append(pairs, "lb-port", strconv.Itoa(nginxtest.FreePort(t)))
			}
			registrations = append(registrations, one(name, 9000, meta(pairs...)))
			policies[name] = policy.Resolve(policytest.Layer(policy.LevelService, "lb/service/"+name, values...))
		}
		for _, f := range policy.Fields() {
			for _, bound := range f.Bounds {
				for _, family := range f.Families {
					if family != policy.TCP || tcp {
						add(family, append(companions(f, family), f.Name, bound))
					}
				}
			}
		}
		require.Greater(t, len(policies), 50, "the fields have bounds")
		services := parseAll(registrations...)
		for n := range services {
			require.Empty(t, services[n].Problems)
			if p, ok := policies[services[n].Name]; ok {
				services[n].Policy = p
			}
		}
		checkWithNginx(t, binary, services, func(s *Settings) { s.MaxConnsPerClient = 65535 })
	})
}

// companions returns values of the fields of the same subject, without which a field may have no
// effect.
func companions(of policy.Field, family string) []string {
	subject, _, ok := strings.Cut(of.Name, ".")
	if !ok {
		return nil
	}
	var values []string
	for _, f := range policy.Fields() {
		if f.Name != of.Name && strings.HasPrefix(f.Name, subject+".") && f.For(family) {
			values = append(values, f.Name, f.Example)
		}
	}
	return values
}

// nginx 1.22 does not find the locations of longer paths.
func TestTheLongestPaths(t *testing.T) {
	const most = 255
	name := func(length int) string { return "p." + strings.Repeat("S", length-len("p.")) }
	_, err := policy.ParsePath("/" + strings.Repeat("a", most))
	require.Error(t, err)
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		path := "/" + strings.Repeat("a", most-1)
		for _, tooLong := range []*api.ServiceEntry{
			one("s", 1, meta("lb-protocol", "http", "lb-path", path+"a")),
			one("s", 1, meta("lb-protocol", "grpc", "lb-grpc", name(most))),
		} {
			require.NotEmpty(t, parseAll(tooLong)[0].Problems)
		}
		b := startBalancer(t, binary, nil,
			one("long", httpServer(t, "long", httptest.NewServer), meta("lb-protocol", "http", "lb-path", path)),
			one("policy", httpServer(t, "policy", httptest.NewServer), tags("http_server"), meta("lb-paths", fmt.Sprintf(`{"%sb": {"redirect.path": "/below"}}`, path[:most-1]))),
			one("calls", grpcServer(t, "calls"), meta("lb-protocol", "grpc", "lb-grpc", name(most-1))),
			one("default", grpcServer(t, "default"), tags("grpc_server")),
		)
		for target, want := range map[string]string{path: "long", path + "/below": "long", path + "a": "policy", "/": "policy"} {
			_, body := get(t, http.DefaultClient, "http://"+b.http+target)
			assert.True(t, strings.HasPrefix(body, want), "%.20s: %s", target, body)
		}
		for _, below := range []string{"", "/x"} {
			status, _ := target(t, b, b.http, path[:most-1]+"b"+below)
			assert.Equal(t, http.StatusTemporaryRedirect, status)
		}
		for method, want := range map[string]string{"/" + name(most-1) + "/Method": "calls", "/" + name(most) + "/Method": "default", "/p.S/Method": "default"} {
			got, err := call(t, b.dial(t, "localhost"), method)
			require.NoError(t, err)
			assert.Equal(t, want, got, "%.20s", method)
		}
	})
}
