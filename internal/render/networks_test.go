package render

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/consul-template/template"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/access"
	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/kv"
	"lbctl/internal/nginxtest"
)

// keeperOf returns a keeper with rules, by their documents.
func keeperOf(t testing.TB, rules []access.Rule) *access.Keeper {
	t.Helper()
	edits, err := access.Edits(nil, rules, nil)
	require.NoError(t, err)
	var documents []kv.Document
	for n, e := range edits {
		documents = append(documents, kv.Document{Name: e.Before.Name, Value: e.Value, Index: uint64(n + 1)})
	}
	keeper, err := access.Open("")
	require.NoError(t, err)
	keeper.Observe(documents)
	require.Empty(t, keeper.Problems())
	return keeper
}

func networks(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		parsed, err := access.ParseNetworks(text)
		if err != nil {
			panic(err)
		}
		all = append(all, parsed...)
	}
	return all
}

// dialFrom returns a function that connects from a local address.
func dialFrom(address string) func(ctx context.Context, network, to string) (net.Conn, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 10 * time.Second}
	return func(ctx context.Context, _, to string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", to) }
}

// TestDeniedNetworks sends requests from several loopback addresses to services with and without
// rules of their own, and compares what nginx does with what Decide says.
func TestDeniedNetworks(t *testing.T) {
	rules := access.Deny(nil, networks("127.0.1.0/24", "::1"), access.Write{})
	rules = access.Allow(rules, networks("127.0.1.7"), access.Write{})
	rules = access.Only(rules, networks("127.0.0.2", "127.0.1.0/24"), access.Write{Service: "private"})
	rules = access.Only(rules, networks("127.0.0.2"), access.Write{Service: "private-grpc"})
	rules = access.Only(rules, networks("127.0.0.2", "127.0.1.0/24"), access.Write{Service: "private-tcp"})
	rules = access.Deny(rules, networks("127.0.0.3"), access.Write{Service: "gone"})
	keeper := keeperOf(t, rules)
	sources := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.1.1", "127.0.1.7", "::1"}

	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		requireStream(t, binary)
		port, privatePort := nginxtest.FreePort(t), nginxtest.FreePort(t)
		echo := listener(t, func(c net.Conn) { c.Write([]byte("hello")) })
		v6 := fmt.Sprintf("[::1]:%d", nginxtest.FreePort(t))
		v6grpc := fmt.Sprintf("[::1]:%d", nginxtest.FreePort(t))
		b := startBalancerOf(t, binary, func(opts *Options) {
			opts.Access = keeper
			for n, address := range []string{v6grpc, v6} {
				opts.Settings.Listeners[n].Listen = append(opts.Settings.Listeners[n].Listen, address)
			}
		}, nil,
			registration("open", "open-1", "127.0.0.1", httpServer(t, "open", httptest.NewServer), tags("http_server")),
			registration("private", "private-1", "127.0.0.1", httpServer(t, "private", httptest.NewServer), meta("lb-protocol", "http", "lb-path", "/private")),
			registration("open-grpc", "open-grpc-1", "127.0.0.1", grpcServer(t, "open-grpc"), tags("grpc_server")),
			registration("private-grpc", "private-grpc-1", "127.0.0.1", grpcServer(t, "private-grpc"), meta("lb-protocol", "grpc", "lb-path", "/pkg.Private")),
			registration("open-tcp", "open-tcp-1", "127.0.0.1", echo, meta("lb-protocol", "tcp", "lb-port", fmt.Sprint(port))),
			registration("private-tcp", "private-tcp-1", "127.0.0.1", echo, meta("lb-protocol", "tcp", "lb-port", fmt.Sprint(privatePort))),
		)
		log, err := os.ReadFile(b.errorLog)
		require.NoError(t, err)
		assert.NotContains(t, string(log), "duplicate network")
		for _, source := range sources {
			address := netip.MustParseAddr(source)
			web, rpc := b.http, b.grpc
			if address.Is6() {
				web, rpc = v6, v6grpc
			}
			for path, service := range map[string]string{"/": "open", "/private": "private"} {
				client := &http.Client{Transport: &http.Transport{DialContext: dialFrom(source), DisableKeepAlives: true}}
				response, body := get(t, client, "http://"+web+path)
				if _, _, denied := access.Decide(rules, address, service); denied {
					assert.Equal(t, http.StatusForbidden, response.StatusCode, "%s to %s", source, service)
					assert.Equal(t, "not allowed\n", body)
				} else {
					assert.Equal(t, http.StatusOK, response.StatusCode, "%s to %s", source, service)
				}
			}
			for method, service := range map[string]string{"/any.Service/Method": "open-grpc", "/pkg.Private/Method": "private-grpc"} {
				dial := dialFrom(source)
				conn, err := grpc.NewClient("passthrough:///"+rpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return dial(ctx, "tcp", to) }))
				require.NoError(t, err)
				answer, err := call(t, conn, method)
				if _, _, denied := access.Decide(rules, address, service); denied {
					assert.Equal(t, codes.PermissionDenied, grpcstatus.Code(err), "%s to %s: %v", source, service, err)
					assert.Equal(t, "lbctl: not allowed", grpcstatus.Convert(err).Message())
				} else if assert.NoError(t, err, "%s to %s", source, service) {
					assert.Equal(t, service, answer)
				}
				conn.Close()
			}
			if address.Is6() {
				continue
			}
			for port, service := range map[int]string{port: "open-tcp", privatePort: "private-tcp"} {
				conn, err := dialFrom(source)(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
				require.NoError(t, err)
				require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
				text, err := io.ReadAll(conn)
				_, _, denied := access.Decide(rules, address, service)
				if denied {
					assert.Empty(t, text, "%s to %s", source, service)
				} else {
					assert.Equal(t, "hello", string(text), "%s to %s: %v", source, service, err)
				}
				assert.False(t, errors.Is(err, context.DeadlineExceeded))
				conn.Close()
			}
		}
	})
}

func TestWithoutRulesThereAreNoFilesAboutNetworks(t *testing.T) {
	c, err := offline(Options{Settings: testSettings("1.30.6")}, nil, testNames())
	require.NoError(t, err)
	assert.NotContains(t, c.Files, networksGeo)
	assert.NotContains(t, string(c.Files["nginx.conf"]), "lb_denied")
}

// TestTemplatesThatIgnoreTheRules has an operator's own template that takes nothing from the catalog.
func TestTemplatesThatIgnoreTheRules(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"nginx.conf.ctmpl":  "http { include generation.conf; }",
		"grpc.conf.ctmpl":   "",
		"http.conf.ctmpl":   "",
		"stream.conf.ctmpl": "",
	} {
		writeTemplate(t, dir, name, text)
	}
	keeper := keeperOf(t, access.Deny(nil, networks("203.0.113.0/24"), access.Write{}))
	c, err := offline(Options{Settings: testSettings("1.30.6"), TemplatesDir: dir, Access: keeper}, nil, testNames())
	require.NoError(t, err)
	require.Len(t, c.Problems, 1)
	assert.Equal(t, networksUnused.Message, c.Problems[0].Message)
}

// TestNewRulesAreRendered checks that the memo of the last rendering takes notice of new rules.
func TestNewRulesAreRendered(t *testing.T) {
	set, err := loadTemplates("")
	require.NoError(t, err)
	settings, err := testSettings("1.30.6").complete()
	require.NoError(t, err)
	keeper := keeperOf(t, access.Deny(nil, networks("203.0.113.0/24"), access.Write{}))
	last := &memo{}
	first, _ := renderKnown(set, settings, nil, testNames(), template.NewBrain(), last)
	last.networks = keeper.Networks(time.Now())
	second, _ := renderKnown(set, settings, nil, testNames(), template.NewBrain(), last)
	assert.NotEqual(t, first.hash, second.hash)
	assert.Equal(t, "203.0.113.0/24 all;\n", string(second.files[networksGeo]))
	third, _ := renderKnown(set, settings, nil, testNames(), template.NewBrain(), last)
	assert.Equal(t, second.hash, third.hash)
}

// TestDeniedNetworksOfASharedPort has two TCP services on one port, one of which is private.
func TestDeniedNetworksOfASharedPort(t *testing.T) {
	rules := access.Deny(nil, networks("127.0.0.9"), access.Write{})
	rules = access.Only(rules, networks("127.0.0.2"), access.Write{Service: "private"})
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		requireStream(t, binary)
		ca := certificatestest.NewAuthority(t, "test")
		server := func(host string) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, 100*days, host).Certificate(t)}}
		}
		port := strconv.Itoa(nginxtest.FreePort(t))
		startBalancerOf(t, binary, func(opts *Options) { opts.Access = keeperOf(t, rules) }, nil,
			registration("open", "open-1", "127.0.0.1", greeter(t, "open", server("open.test")), meta("lb-protocol", "tcp", "lb-port", port, "lb-host", "open.test")),
			registration("private", "private-1", "127.0.0.1", greeter(t, "private", server("private.test")), meta("lb-protocol", "tcp", "lb-port", port, "lb-host", "private.test")),
		)
		for _, source := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.9"} {
			for _, service := range []string{"open", "private"} {
				conn, err := dialFrom(source)(t.Context(), "tcp", "127.0.0.1:"+port)
				require.NoError(t, err)
				require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
				secure := tls.Client(conn, &tls.Config{ServerName: service + ".test", RootCAs: ca.Pool()})
				answer := ""
				if secure.Handshake() == nil {
					fmt.Fprint(secure, "hello")
					text, _ := io.ReadAll(secure)
					answer = string(text)
				}
				conn.Close()
				want := service + " heard hello"
				if _, _, denied := access.Decide(rules, netip.MustParseAddr(source), service); denied {
					want = ""
				}
				assert.Equal(t, want, answer, "%s to %s", source, service)
			}
		}
	})
}
