package metadata

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

func TestWhichServicesAreBalanced(t *testing.T) {
	type change = func(*api.ServiceEntry)
	for _, c := range []struct {
		name    string
		changes []change
		want    string // protocol, routes, port, default
		problem string
	}{
		{"nothing", nil, "", ""},
		{"other tags and metadata", []change{consultest.Tags("v1", "grpc"), consultest.Meta("version", "1", "lb_group", "x", "registrar-owner", "host=web1")}, "", ""},
		{"a key of no version of lbctl alone", []change{consultest.Meta("lb-team", "x")}, "", ""},
		{"the tag grpc_server", []change{consultest.Tags("grpc_server")}, "grpc default", ""},
		{"the tag http_server", []change{consultest.Tags("http_server", "other")}, "http default", ""},
		{"the tag and a route", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "/api")}, "http */api", ""},
		{"a protocol alone", []change{consultest.Meta("lb-protocol", "grpc")}, "grpc default", ""},
		{"a protocol in capitals", []change{consultest.Meta("lb-protocol", " HTTPS ")}, "https default", ""},
		{"the protocol wins over the tag", []change{consultest.Tags("grpc_server"), consultest.Meta("lb-protocol", "grpcs")}, "grpcs default", ""},
		{"hosts", []change{consultest.Meta("lb-protocol", "http", "lb-host", "B.example.com, a.example.com,,b.example.com")}, "http a.example.com b.example.com", ""},
		{"a wildcard host", []change{consultest.Meta("lb-protocol", "http", "lb-host", "*.example.com")}, "http *.example.com", ""},
		{"paths lose their last slash", []change{consultest.Meta("lb-protocol", "http", "lb-path", "/b/,/a,/b")}, "http */a */b", ""},
		{"the path of everything", []change{consultest.Meta("lb-protocol", "http", "lb-path", "/")}, "http default", ""},
		{"hosts times paths", []change{consultest.Meta("lb-protocol", "http", "lb-host", "a.test,b.test", "lb-path", "/x,/y")}, "http a.test/x a.test/y b.test/x b.test/y", ""},
		{"a method", []change{consultest.Meta("lb-protocol", "grpc", "lb-path", "/pkg.Service/Method")}, "grpc */pkg.Service/Method", ""},
		{"a whole path", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "=/health,=/api/,/api")}, "http */api *=/api/ *=/health", ""},
		{"the whole path of the root", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "=/")}, "http *=/", ""},
		{"a gRPC package, service and method say gRPC", []change{consultest.Meta("lb-grpc", "shop.*, shop.Cart ,shop.Cart/Add")}, "grpc */shop.* */shop.Cart */shop.Cart/Add", ""},
		{"gRPC names beside paths", []change{consultest.Meta("lb-protocol", "grpcs", "lb-grpc", "shop.Cart,a.B", "lb-path", "/shop.Cart")}, "grpcs */a.B */shop.Cart", ""},
		{"methods", []change{consultest.Tags("http_server"), consultest.Meta("lb-method", "POST,GET", "lb-path", "/x")}, "http GET */x POST */x", ""},
		{"a method alone", []change{consultest.Tags("http_server"), consultest.Meta("lb-method", "GET")}, "http GET *", ""},
		{"headers", []change{consultest.Tags("grpc_server"), consultest.Meta("lb-header", "X-Version=v2, a = b=c==")}, "grpc * [a=b=c==,x-version=v2]", ""},
		{"gRPC services that a server offers", []change{consultest.Tags("grpc_server"), consultest.Meta("grpc-services", "shop.Cart,protos.Ping", "grpc-services-2", "a.B", "grpc-services-4", "c.D")}, "grpc */a.B */protos.Ping */shop.Cart default", ""},
		{"gRPC services beside a route", []change{consultest.Tags("grpc_server"), consultest.Meta("grpc-services", "shop.Cart", "lb-host", "a.test")}, "grpc a.test", ""},
		{"gRPC services of another protocol", []change{consultest.Tags("http_server"), consultest.Meta("grpc-services", "shop.Cart")}, "http default", ""},
		{"gRPC services alone", []change{consultest.Meta("grpc-services", "shop.Cart")}, "", ""},
		{"TCP", []change{consultest.Meta("lb-protocol", "tcp", "lb-port", "6379")}, "tcp port 6379", ""},
		{"a port says TCP", []change{consultest.Meta("lb-port", "6379")}, "tcp port 6379", ""},

		{"a mistyped key", []change{consultest.Tags("http_server"), consultest.Meta("lb-paht", "/x")}, "not OK", `instance "x-1": unknown key "lb-paht", did you mean lb-path?`},
		{"a mistyped key without a value", []change{consultest.Tags("http_server"), consultest.Meta("lb-paht", "")}, "not OK", `unknown key "lb-paht", did you mean lb-path?`},
		{"the key of an operator's field", []change{consultest.Tags("http_server"), consultest.Meta("lb-auth-keys", "on")}, "not OK", `instance "x-1": key "lb-auth-keys": only the operator can set auth.keys, in Consul's KV`},
		{"a mistyped key beside good ones", []change{consultest.Meta("lb-protocol", "http", "lb-path", "/x", "lb-hots", "a.test")}, "not OK", `unknown key "lb-hots", did you mean lb-host?`},
		{"a mistyped key alone", []change{consultest.Meta("lb-protocl", "http")}, "not OK", `instance "x-1": unknown key "lb-protocl", did you mean lb-protocol?`},
		{"a key in capitals", []change{consultest.Tags("http_server"), consultest.Meta("LB-HOST", "x")}, "not OK", `unknown key "LB-HOST", did you mean lb-host?`},
		{"a key with an underscore", []change{consultest.Tags("http_server"), consultest.Meta("lb_path", "/x")}, "not OK", `unknown key "lb_path", did you mean lb-path?`},
		{"a key of a newer lbctl", []change{consultest.Tags("http_server"), consultest.Meta("lb-warp-factor", "9")}, "not OK", `unknown key "lb-warp-factor", want one of lb-protocol, lb-host, lb-path, `},
		{"a key as a tag", []change{consultest.Tags("http_server", "lb-path=/x")}, "not OK", `tag "lb-path=/x", want it as metadata, not as a tag`},
		{"all keys as tags", []change{consultest.Tags("lb-protocol=http", "lb-path=/x")}, "not OK", `tag "lb-protocol=http", want it as metadata, not as a tag; tag "lb-path=/x", want`},
		{"another program's tags", []change{consultest.Tags("http-server", "lb=blue", "urlprefix-/x", "lb-path")}, "", ""},
		{"a mistyped tag", []change{consultest.Tags("http-server"), consultest.Meta("lb-path", "/x")}, "not OK", `want lb-protocol or one of the tags "grpc_server" and "http_server" (it has the tag "http-server": did you mean "http_server"?)`},

		{"an unknown protocol", []change{consultest.Meta("lb-protocol", "udp")}, "not OK", `instance "x-1": lb-protocol "udp", want one of ["grpc" "grpcs" "http" "https" "tcp"]`},
		{"no protocol at all", []change{consultest.Meta("lb-host", "a.test")}, "not OK", `its protocol is not known, want lb-protocol or one of the tags "grpc_server" and "http_server"`},
		{"both tags", []change{consultest.Tags("grpc_server", "http_server")}, "not OK", `it has both tags, "grpc_server" and "http_server", want one of them or lb-protocol`},
		{"a host with a port", []change{consultest.Tags("http_server"), consultest.Meta("lb-host", "a.test:80")}, "not OK", `lb-host "a.test:80", want host names like`},
		{"a wildcard in the middle", []change{consultest.Tags("http_server"), consultest.Meta("lb-host", "a.*.test")}, "not OK", `lb-host "a.*.test", want host names like`},
		{"a relative path", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "api")}, "not OK", `lb-path "api", want path prefixes like`},
		{"a path that nginx never sees", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "/a/../b")}, "not OK", `lb-path "/a/../b", want path prefixes like`},
		{"a path below a method", []change{consultest.Tags("grpc_server"), consultest.Meta("lb-path", "/a/b/c")}, "not OK", `lb-path "/a/b/c", want "/package.Service" or "/package.Service/Method" for gRPC`},
		{"a whole path for gRPC", []change{consultest.Tags("grpc_server"), consultest.Meta("lb-path", "=/a/b")}, "not OK", `lb-path "=/a/b", want "/package.Service" or "/package.Service/Method" for gRPC`},
		{"a regular expression as a path", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "~^/(a+)+$")}, "not OK", `lb-path "~^/(a+)+$", want path prefixes like "/api", or whole paths like "=/health"`},
		{"the balancer's paths, whole", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "=/.lb/404")}, "not OK", `want paths outside of "/.lb"`},
		{"a bad gRPC name", []change{consultest.Meta("lb-grpc", "shop/*")}, "not OK", `lb-grpc "shop/*", want gRPC packages like "shop.*", services like "shop.Cart" or methods like "shop.Cart/Add"`},
		{"a gRPC name for HTTP", []change{consultest.Tags("http_server"), consultest.Meta("lb-grpc", "shop.Cart")}, "not OK", `lb-grpc "shop.Cart", want none, because only lb-protocol "grpc" and "grpcs" have it`},
		{"a bad service that a server offers", []change{consultest.Tags("grpc_server"), consultest.Meta("grpc-services", "shop.*")}, "not OK", `grpc-services "shop.*", want full names of gRPC services like "shop.Cart"`},
		{"a method in lower case", []change{consultest.Tags("http_server"), consultest.Meta("lb-method", "get")}, "not OK", `lb-method "get", want HTTP methods like "GET" or "POST", in upper case`},
		{"a method that nginx refuses", []change{consultest.Tags("http_server"), consultest.Meta("lb-method", "TRACE")}, "not OK", `lb-method "TRACE", want methods other than CONNECT and TRACE`},
		{"a method for gRPC", []change{consultest.Tags("grpc_server"), consultest.Meta("lb-method", "POST")}, "not OK", `lb-method "POST", want none for gRPC`},
		{"a header without a value", []change{consultest.Tags("http_server"), consultest.Meta("lb-header", "x-version")}, "not OK", `lb-header "x-version", want headers like "x-version=v2"`},
		{"a header that breaks out", []change{consultest.Tags("http_server"), consultest.Meta("lb-header", "x=$host")}, "not OK", `lb-header "x=$host", want headers like`},
		{"the host as a header", []change{consultest.Tags("http_server"), consultest.Meta("lb-header", "Host=a.test")}, "not OK", `lb-header "Host=a.test", want headers other than Host: want lb-host`},
		{"a header twice", []change{consultest.Tags("http_server"), consultest.Meta("lb-header", "x=1,X=2")}, "not OK", `lb-header "x=1,X=2", want each header once, and it has "x" twice`},
		{"the balancer's error pages", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "/.lb/404,/.lb/503")}, "not OK", `lb-path "/.lb/404,/.lb/503", want paths outside of "/.lb", which is reserved for the balancer`},
		{"the balancer's error pages for gRPC", []change{consultest.Tags("grpc_server"), consultest.Meta("lb-path", "/.lb/502")}, "not OK", `want paths outside of "/.lb"`},
		{"all of the balancer's paths", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "/.lb/")}, "not OK", `want paths outside of "/.lb"`},
		{"the balancer's paths, encoded", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "/%2elb/404")}, "not OK", `lb-path "/%2elb/404", want path prefixes like`},
		{"the balancer's paths, with two slashes", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "//.lb/404")}, "not OK", `lb-path "//.lb/404", want path prefixes like`},
		{"the balancer's paths, by a way around", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "/a/../.lb/404")}, "not OK", `lb-path "/a/../.lb/404", want path prefixes like`},
		{"a path that only begins so", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", "/.lbx")}, "http */.lbx", ""},
		{"the balancer's domain", []change{consultest.Tags("http_server"), consultest.Meta("lb-host", "LBCTL.internal")}, "not OK", `lb-host "LBCTL.internal", want host names outside of "lbctl.internal", which is reserved for the balancer`},
		{"a name in the balancer's domain", []change{consultest.Tags("http_server"), consultest.Meta("lb-host", "nobody.u.lbctl.internal")}, "not OK", `want host names outside of "lbctl.internal"`},
		{"all names in the balancer's domain", []change{consultest.Tags("http_server"), consultest.Meta("lb-host", "*.lbctl.internal")}, "not OK", `want host names outside of "lbctl.internal"`},
		{"a domain that only ends so", []change{consultest.Tags("http_server"), consultest.Meta("lb-host", "mylbctl.internal")}, "http mylbctl.internal", ""},
		{"a version with a space", []change{consultest.Tags("http_server"), consultest.Meta("lb-version", "v 1")}, "not OK", `lb-version "v 1", want 1 to 64 letters, digits, ".", "_" or "-"`},
		{"TCP without a port", []change{consultest.Meta("lb-protocol", "tcp")}, "not OK", `lb-port "", want a port of 1024 to 65535 other than 5000, 8080, 9119, which are taken`},
		{"TCP on a listener's port", []change{consultest.Meta("lb-port", "8080")}, "not OK", `lb-port "8080", want a port`},
		{"TCP with a path", []change{consultest.Meta("lb-protocol", "tcp", "lb-port", "6379", "lb-path", "/x")}, "not OK", `lb-protocol "tcp" can't be routed by lb-path, want lb-port`},
		{"TCP with hosts", []change{consultest.Meta("lb-port", "6379", "lb-host", "b.test,*.a.test")}, "tcp *.a.test b.test port 6379", ""},
		{"TCP with TLS", []change{consultest.Meta("lb-port", "6379", "lb-tls", "terminate")}, "tcp port 6379 terminate", ""},
		{"TCP with another kind of TLS", []change{consultest.Meta("lb-port", "6379", "lb-tls", "yes")}, "not OK", `lb-tls "yes", want "terminate"`},
		{"TCP with hosts and TLS", []change{consultest.Meta("lb-port", "6379", "lb-host", "b.test", "lb-tls", "terminate")}, "not OK", `lb-tls "terminate", want none with lb-host: nginx passes the TLS of these connections on`},
		{"TLS for HTTP", []change{consultest.Tags("http_server"), consultest.Meta("lb-tls", "terminate")}, "not OK", `lb-tls "terminate", want none, because only lb-protocol "tcp" has it`},
		{"a port for HTTP", []change{consultest.Tags("http_server"), consultest.Meta("lb-port", "6379")}, "not OK", `lb-port "6379", want none, because only lb-protocol "tcp" has one`},
		{"too many routes", []change{consultest.Tags("http_server"), consultest.Meta("lb-host", "a,b,c,d,e,f,g,h,i", "lb-path", "/1,/2,/3,/4,/5,/6,/7,/8")}, "not OK", `lb-host, lb-path, lb-grpc and lb-method make 72 routes (hosts: 9, paths: 8, methods: 1), want at most 64`},
		{"all at once", []change{consultest.Meta("lb-protocol", "x", "lb-version", "!")}, "not OK", `lb-protocol "x", want one of ["grpc" "grpcs" "http" "https" "tcp"]; lb-version "!"`},
		{"a long value", []change{consultest.Tags("http_server"), consultest.Meta("lb-path", strings.Repeat("x", 512))}, "not OK", `lb-path "` + strings.Repeat("x", 77) + `...", want`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Parse("x", []*api.ServiceEntry{consultest.Entry("x", "x-1", "10.0.0.1", 80, c.changes...)}, Reserved{Ports: []int{5000, 8080, 9119}, Domain: "lbctl.internal"})
			assert.Equal(t, c.want, structure(s))
			assert.Len(t, s.Instances, 1, "bad metadata never costs an endpoint")
			if c.problem == "" {
				assert.Empty(t, s.Problems)
			} else {
				require.Len(t, s.Problems, 1)
				assert.Contains(t, s.Problems[0], c.problem)
			}
		})
	}
}

func structure(s endpoints.Service) string {
	if !s.OK {
		return "not OK"
	}
	words := []string{string(s.Protocol)}
	for _, r := range s.Routes {
		words = append(words, r.String())
	}
	if s.Port != 0 {
		words = append(words, fmt.Sprintf("port %d", s.Port))
	}
	if s.Terminate {
		words = append(words, "terminate")
	}
	if s.Default {
		words = append(words, "default")
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

func TestInstancesOfOneServiceMayDiffer(t *testing.T) {
	parse := func(registrations ...*api.ServiceEntry) endpoints.Service {
		return Parse("x", registrations, Reserved{})
	}
	t.Run("the service has the routes of all instances", func(t *testing.T) {
		s := parse(consultest.Entry("x", "1", "10.0.0.1", 80, consultest.Meta("lb-protocol", "http", "lb-path", "/old")),
			consultest.Entry("x", "2", "10.0.0.2", 80, consultest.Meta("lb-protocol", "http", "lb-path", "/new")),
			consultest.Entry("x", "3", "10.0.0.3", 80))
		assert.Equal(t, "http */new */old", structure(s))
		assert.Empty(t, s.Problems)
		assert.Len(t, s.Instances, 3)
	})
	t.Run("the protocol of most instances counts", func(t *testing.T) {
		s := parse(consultest.Entry("x", "1", "10.0.0.1", 80, consultest.Meta("lb-protocol", "http", "lb-path", "/one")),
			consultest.Entry("x", "2", "10.0.0.2", 80, consultest.Meta("lb-protocol", "https", "lb-path", "/two")),
			consultest.Entry("x", "3", "10.0.0.3", 80, consultest.Meta("lb-protocol", "https", "lb-path", "/three")))
		assert.Equal(t, "https */three */two", structure(s))
		assert.Equal(t, []string{`instance "1": lb-protocol "http" differs from "https" of most instances of "x", want the same for all`}, s.Problems)
	})
	t.Run("a tie goes to the first by name", func(t *testing.T) {
		assert.Equal(t, "grpc default", structure(parse(
			consultest.Entry("x", "1", "10.0.0.1", 80, consultest.Meta("lb-protocol", "http")),
			consultest.Entry("x", "2", "10.0.0.2", 80, consultest.Meta("lb-protocol", "grpc")))))
	})
	t.Run("the port of most instances counts", func(t *testing.T) {
		s := parse(consultest.Entry("x", "1", "10.0.0.1", 80, consultest.Meta("lb-port", "7000")),
			consultest.Entry("x", "2", "10.0.0.2", 80, consultest.Meta("lb-port", "7001")),
			consultest.Entry("x", "3", "10.0.0.3", 80, consultest.Meta("lb-port", "7001")))
		assert.Equal(t, "tcp port 7001", structure(s))
		assert.Len(t, s.Problems, 1)
	})
	t.Run("the minimum of most instances counts", func(t *testing.T) {
		least := func(minimum string) *api.ServiceEntry {
			return consultest.Entry("x", "of-"+minimum, "10.0.0.1", 80, consultest.Tags("http_server"), consultest.Meta("lb-min-instances", minimum))
		}
		assert.Equal(t, 2, parse(least("2"), least("3"), least("2")).Policy.General().MinInstances)
		assert.Zero(t, parse(consultest.Entry("x", "1", "10.0.0.1", 80, consultest.Tags("http_server"))).Policy.General().MinInstances)
		assert.Equal(t, []string{`instance "of-none": lb-min-instances "none", want a whole number from 1 to 10000`}, parse(least("none")).Problems)
		assert.False(t, parse(least("0")).OK)
	})
	t.Run("the check of most instances counts", func(t *testing.T) {
		asked := func(check string) *api.ServiceEntry {
			return consultest.Entry("x", "by-"+check, "10.0.0.1", 80, consultest.Tags("grpc_server"), consultest.Meta("lb-check", check))
		}
		assert.Equal(t, policy.Check("grpc:pkg.Shop"), parse(asked("grpc:pkg.Shop"), asked("grpc"), asked("grpc:pkg.Shop")).Policy.General().Check)
		assert.Empty(t, parse(consultest.Entry("x", "1", "10.0.0.1", 80, consultest.Tags("http_server"))).Policy.General().Check)
		assert.Equal(t, []string{`instance "by-icmp": lb-check "icmp", want "tcp", "http:/path", "grpc", "grpc:package.Service" or "none"`}, parse(asked("icmp")).Problems)
	})
	t.Run("invalid metadata does not count", func(t *testing.T) {
		s := parse(consultest.Entry("x", "1", "10.0.0.1", 80, consultest.Meta("lb-protocol", "http", "lb-path", "/good", "lb-version", "v2")),
			consultest.Entry("x", "2", "10.0.0.2", 80, consultest.Meta("lb-protocol", "http", "lb-path", "bad", "lb-version", "v3")))
		assert.Equal(t, "http */good", structure(s))
		assert.Equal(t, "v2", s.Instances[0].Version)
		assert.Empty(t, s.Instances[1].Version)
	})
	t.Run("metadata with an unknown key does not count", func(t *testing.T) {
		s := parse(consultest.Entry("x", "1", "10.0.0.1", 80, consultest.Meta("lb-protocol", "http", "lb-path", "/good")),
			consultest.Entry("x", "2", "10.0.0.2", 80, consultest.Meta("lb-protocol", "http", "lb-paht", "/good")))
		assert.Equal(t, "http */good", structure(s))
		assert.Len(t, s.Instances, 2)
		assert.Equal(t, []string{`instance "2": unknown key "lb-paht", did you mean lb-path?`}, s.Problems)
	})
	t.Run("equal problems are reported a few times only", func(t *testing.T) {
		var all []*api.ServiceEntry
		for n := range 100 {
			all = append(all, consultest.Entry("x", fmt.Sprint(n), "10.0.0.1", 80, consultest.Tags("http_server"), consultest.Meta("lb-path", "bad")))
		}
		s := parse(all...)
		require.Len(t, s.Problems, maxProblems+1)
		assert.Equal(t, "and 95 problems more", s.Problems[maxProblems])
	})
	t.Run("names that differ in case are different services", func(t *testing.T) {
		s := parse(consultest.Entry("X", "1", "10.0.0.1", 80, consultest.Tags("http_server")), consultest.Entry("x", "2", "10.0.0.2", 80))
		assert.Len(t, s.Instances, 1)
		assert.Equal(t, "", structure(s))
	})
	t.Run("proxies and gateways don't count", func(t *testing.T) {
		kind := func(kind api.ServiceKind) func(*api.ServiceEntry) {
			return func(e *api.ServiceEntry) { e.Service.Kind = kind }
		}
		proxy := consultest.Entry("x", "1-proxy", "10.0.0.1", 21000, consultest.Tags("http_server"), consultest.Meta("lb-path", "/proxy"), kind(api.ServiceKindConnectProxy))
		s := parse(proxy, consultest.Entry("x", "1", "10.0.0.1", 80, consultest.Tags("http_server")))
		assert.Equal(t, "http default", structure(s))
		assert.Len(t, s.Instances, 1)
		assert.Equal(t, endpoints.Service{Name: "x", OK: true}, parse(proxy), "it is there, and nothing to balance")
	})
	t.Run("without instances there is no service", func(t *testing.T) {
		assert.Equal(t, endpoints.Service{}, parse())
	})
}

func TestInstances(t *testing.T) {
	s := Parse("x", []*api.ServiceEntry{
		consultest.Entry("x", "weighty", "10.0.0.1", 80, consultest.Tags("http_server"), consultest.Weights(7, 2), consultest.OnNode("n")),
		consultest.Entry("x", "warning", "10.0.0.2", 80, consultest.Tags("http_server"), consultest.Weights(7, 2), consultest.Status("warning")),
		consultest.Entry("x", "idle", "10.0.0.4", 80, consultest.Tags("http_server"), consultest.Weights(7, 0), consultest.Status("warning")),
		consultest.Entry("x", "light", "10.0.0.3", 80, consultest.Tags("http_server"), consultest.Weights(0, 0)),
		consultest.Entry("x", "heavy", "fd00::1", 80, consultest.Tags("http_server"), consultest.Weights(1000000, 1), consultest.Status("critical")),
		consultest.Entry("x", "nowhere", "", 80, consultest.Tags("http_server")),
		consultest.Entry("x", "portless", "10.0.0.4", 0, consultest.Tags("http_server")),
	}, Reserved{})
	assert.Equal(t, []endpoints.Instance{
		{ID: "weighty", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 7, Status: endpoints.Passing},
		{ID: "heavy", Node: "node-1", Address: "fd00::1", Port: 80, Weight: 65535, Status: endpoints.Critical},
		{ID: "idle", Node: "node-1", Address: "10.0.0.4", Port: 80, Weight: 0, Status: endpoints.Warning},
		{ID: "light", Node: "node-1", Address: "10.0.0.3", Port: 80, Weight: 1, Status: endpoints.Passing},
		{ID: "warning", Node: "node-1", Address: "10.0.0.2", Port: 80, Weight: 2, Status: endpoints.Warning},
	}, s.Instances)
	assert.Equal(t, []string{
		`instance "nowhere": address "", want an IP address or a host name: it gets no traffic`,
		`instance "portless": port "0", want 1 to 65535: it gets no traffic`,
	}, s.Problems)
}

func TestMistypedTag(t *testing.T) {
	for tag, want := range map[string]string{
		"http-server": TagHTTP, "grpc.server": TagGRPC, "HTTP_SERVER": TagHTTP, "grpc_servers": TagGRPC, "http": TagHTTP, "grpc": TagGRPC,
		"http_server": "", "v1": "", "lb.http": "", "": "",
	} {
		_, meant := MistypedTag([]string{"v2", tag})
		assert.Equal(t, want, meant, tag)
	}
}

func TestCheckOutputs(t *testing.T) {
	says := func(outputs ...string) func(*api.ServiceEntry) {
		return func(e *api.ServiceEntry) {
			e.Checks = append(e.Checks, &api.HealthCheck{CheckID: "slow", Status: api.HealthWarning, Output: "slow"})
			for _, output := range outputs {
				e.Checks = append(e.Checks, &api.HealthCheck{CheckID: "own", Status: api.HealthCritical, Output: output})
			}
		}
	}
	maintained := func(check, reason string) func(*api.ServiceEntry) {
		return func(e *api.ServiceEntry) {
			e.Checks = append(e.Checks, &api.HealthCheck{CheckID: "own", Status: api.HealthCritical, Output: "refused"},
				&api.HealthCheck{CheckID: check, Status: api.HealthCritical, Notes: reason})
		}
	}
	s := Parse("x", []*api.ServiceEntry{
		consultest.Entry("x", "A", "10.0.1.1", 80, consultest.Tags("http_server"), maintained(api.NodeMaint, "new\nkernel")),
		consultest.Entry("x", "B", "10.0.1.2", 80, consultest.Tags("http_server"), maintained("_service_maintenance:B",
			"Maintenance mode is enabled for this service, but no reason was provided. This is a default message.")),
		consultest.Entry("x", "a", "10.0.0.1", 80, consultest.Tags("http_server"), says()),
		consultest.Entry("x", "b", "10.0.0.2", 80, consultest.Tags("http_server"), says("", " HTTP GET: 503\n\tOutput:  down\n", "more")),
		consultest.Entry("x", "c", "10.0.0.3", 80, consultest.Tags("http_server"), says(strings.Repeat("\u00fc", 1000))),
		consultest.Entry("x", "d", "10.0.0.4", 80, consultest.Tags("http_server"), consultest.Status("maintenance")),
		consultest.Entry("x", "e", "10.0.0.5", 0, consultest.Tags("http_server"), says("no port")),
	}, Reserved{})
	assert.Equal(t, []endpoints.CheckOutput{
		{Node: "node-1", ID: "A", Text: "new kernel", Maintenance: true},
		{Node: "node-1", ID: "b", Text: "HTTP GET: 503 Output: down"},
		{Node: "node-1", ID: "c", Text: strings.Repeat("\u00fc", 157) + "..."},
	}, s.CheckOutputs)
	assert.Equal(t, "the check of b says: HTTP GET: 503 Output: down", s.FailingCheck())
	assert.Equal(t, "new kernel", s.CheckOutput(s.Instances[0]))
	assert.Empty(t, s.CheckOutput(s.Instances[1]))
	assert.Empty(t, s.CheckOutput(s.Instances[2]))
	assert.Equal(t, "HTTP GET: 503 Output: down", s.CheckOutput(s.Instances[3]))
}
