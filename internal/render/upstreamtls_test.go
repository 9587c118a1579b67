package render

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"lbctl/internal/certificates"
	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/endpoints"
	"lbctl/internal/nginxtest"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policytest"
	"lbctl/internal/printable"
)

// byOperator makes services whose policies the operator has set: pairs of field and value.
func byOperator(values map[string][]string, registrations ...*api.ServiceEntry) []endpoints.Service {
	services := parseAll(registrations...)
	for n := range services {
		s := &services[n]
		layers := append(s.Policy.Layers(), policytest.Layer(policy.LevelService, "lb/service/"+s.Name, values[s.Name]...))
		s.Policy = policy.Resolve(layers...)
	}
	return services
}

// secureServers returns the ports of an HTTP and a gRPC server with the certificate. They keep
// which name the last client asked for in sni.
func secureServers(t *testing.T, pair certificatestest.Pair, sni *string, clients *x509.CertPool) (web, calls int) {
	t.Helper()
	certificate, err := tls.X509KeyPair(pair.Chain, pair.Key)
	require.NoError(t, err)
	config := &tls.Config{
		NextProtos: []string{"h2"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			*sni = hello.ServerName
			return &certificate, nil
		},
	}
	if clients != nil {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, clients
	}
	start := func(h http.Handler) *httptest.Server {
		server := httptest.NewUnstartedServer(h)
		server.TLS = config.Clone()
		server.TLS.NextProtos = nil
		server.StartTLS()
		return server
	}
	return httpServer(t, "web", start), grpcServer(t, "calls", grpc.Creds(credentials.NewTLS(config)))
}

// secureBalancer starts a balancer with a service for each protocol, with the same policy.
func secureBalancer(t *testing.T, binary nginxtest.Binary, web, calls int, values ...string) balancer {
	t.Helper()
	return startBalancerWithServices(t, binary, func(o *Options) { o.Certificates = namedStore(t) }, nil, byOperator(map[string][]string{"web": values, "calls": values},
		one("web", web, meta("lb-protocol", "https")), one("calls", calls, meta("lb-protocol", "grpcs"))))
}

// namedStore keeps copies of the files that policies name where nginx's workers can read them.
func namedStore(t *testing.T) *certificates.Store {
	t.Helper()
	s, err := certificates.Open(certificates.Options{Copies: filepath.Join(nginxtest.Dir(t), "certificates"), Group: workersGroup(t)})
	require.NoError(t, err)
	return s
}

// reaches reports whether requests and calls reach the instances.
func (b balancer) reaches(t *testing.T) bool {
	t.Helper()
	response, body := get(t, http.DefaultClient, "http://"+b.http+"/")
	_, err := call(t, b.dial(t, "localhost"), "/any.Service/Method")
	if response.StatusCode == http.StatusOK {
		assert.NoError(t, err)
		return true
	}
	assert.Equal(t, http.StatusBadGateway, response.StatusCode, body)
	assert.Error(t, err)
	return false
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a file.pem")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func testVerify(t *testing.T, binary nginxtest.Binary) {
	ca, other := certificatestest.NewAuthority(t, "ca"), certificatestest.NewAuthority(t, "other")
	var sni string
	web, calls := secureServers(t, ca.Issue(t, 100*days, "cart.internal"), &sni, nil)
	check := func(want bool, wantSNI string, values ...string) {
		t.Helper()
		assert.Equal(t, want, secureBalancer(t, binary, web, calls, values...).reaches(t), "%s", values)
		assert.Equal(t, wantSNI, sni)
	}
	check(true, "")
	check(true, "other.internal", "tls.server-name", "other.internal")
	check(true, "cart.internal", "tls.server-name", "cart.internal", "tls.ca", file(t, ca.PEM), "tls.verify", "on")
	check(false, "cart.internal", "tls.server-name", "cart.internal", "tls.ca", file(t, other.PEM), "tls.verify", "on")
	check(false, "other.internal", "tls.server-name", "other.internal", "tls.ca", file(t, ca.PEM), "tls.verify", "on")
	check(true, "other.internal", "tls.server-name", "other.internal", "tls.ca", file(t, ca.PEM), "tls.verify", "off")
}

func testInstancesWantCertificate(t *testing.T, binary nginxtest.Binary) {
	ca, other := certificatestest.NewAuthority(t, "ca"), certificatestest.NewAuthority(t, "other")
	var sni string
	web, calls := secureServers(t, ca.Issue(t, 100*days, "cart.internal"), &sni, ca.Pool())
	reaches := func(values ...string) bool { return secureBalancer(t, binary, web, calls, values...).reaches(t) }
	own, foreign := ca.Issue(t, 100*days, "lb.internal"), other.Issue(t, 100*days, "lb.internal")
	assert.True(t, reaches("tls.certificate", file(t, own.Chain), "tls.certificate-key", file(t, own.Key)))
	assert.False(t, reaches("tls.certificate", file(t, foreign.Chain), "tls.certificate-key", file(t, foreign.Key)))
	assert.False(t, reaches())
}

func TestFilesOfUpstreamTLS(t *testing.T) {
	ca := certificatestest.NewAuthority(t, "ca")
	pair, foreign := ca.Issue(t, 100*days, "a"), ca.Issue(t, 100*days, "b")
	caFile, chain, key := file(t, ca.PEM), file(t, pair.Chain), file(t, pair.Key)
	store := namedStore(t)
	render := func(values ...string) (Configuration, []string) {
		c, err := offline(Options{Settings: testSettings("1.30.6"), Certificates: store}, byOperator(map[string][]string{"web": values},
			one("web", 80, meta("lb-protocol", "https")), one("plain", 80, meta("lb-protocol", "http", "lb-path", "/plain"))), testNames())
		require.NoError(t, err)
		var problems []string
		for _, p := range c.Problems {
			assert.Equal(t, "service web", p.Subject)
			problems = append(problems, p.Message)
		}
		return c, problems
	}
	good := []string{"tls.ca", caFile, "tls.certificate", chain, "tls.certificate-key", key, "tls.server-name", "a", "tls.verify", "on"}
	c, problems := render(good...)
	assert.Empty(t, problems)
	assert.Equal(t, ca.PEM, c.Files[namedAuthoritiesFile(caFile)])
	assert.NotContains(t, string(c.Files["http.conf"]), key, "nginx reads lbctl's copy")

	replace := func(path string, content []byte) {
		t.Helper()
		certificatestest.Write(t, filepath.Dir(path), filepath.Base(path), content)
	}
	second := ca.Issue(t, 100*days, "a")
	replace(chain, second.Chain)
	half, problems := render(good...)
	assert.Equal(t, c.Hash, half.Hash)
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0], `tls.certificate "`+chain+`" with tls.certificate-key "`+key+`": its key belongs to another certificate; the former certificate, which is valid until`)
	replace(key, second.Key)
	renewed, problems := render(good...)
	assert.Empty(t, problems)
	assert.Equal(t, c.Hash, renewed.Hash, "workers load a renewed certificate")
	replace(caFile, slices.Concat(ca.PEM, certificatestest.NewAuthority(t, "next").PEM))
	renewed, problems = render(good...)
	assert.Empty(t, problems)
	assert.NotEqual(t, c.Hash, renewed.Hash, "nginx must load renewed authorities")
	replace(caFile, []byte("broken"))
	broken, problems := render(good...)
	assert.Equal(t, renewed.Hash, broken.Hash)
	assert.Equal(t, []string{`lb/service/web: tls.ca "` + caFile + `": it has no certificate of an authority, want one in PEM (BEGIN CERTIFICATE); the former authorities stay in use`}, problems)

	for _, bad := range []struct {
		want   string
		values []string
	}{
		{`tls.ca "/nowhere.pem": it can't be read: no such file or directory`, []string{"tls.ca", "/nowhere.pem"}},
		{`tls.ca "` + key + `": it has a private key, want only the certificates of authorities`, []string{"tls.ca", key}},
		{`its key belongs to another certificate`, []string{"tls.certificate", chain, "tls.certificate-key", file(t, foreign.Key)}},
		{`"/nowhere.key" can't be read: no such file or directory`, []string{"tls.certificate", chain, "tls.certificate-key", "/nowhere.key"}},
		{`tls.certificate ` + printable.Shorten(chain) + `: it has no effect without tls.certificate-key`, []string{"tls.certificate", chain}},
		{`tls.verify on: it has no effect without tls.server-name`, []string{"tls.verify", "on"}},
		{`tls.verify on: it has no effect without tls.ca`, []string{"tls.verify", "on", "tls.server-name", "a"}},
	} {
		_, problems := render(bad.values...)
		found := slices.ContainsFunc(problems, func(p string) bool { return strings.HasPrefix(p, "lb/service/web: ") && strings.Contains(p, bad.want) })
		assert.True(t, found, "%q in %q", bad.want, problems)
	}
}

func TestUpstreamTLSHasNoEffectWithoutTLS(t *testing.T) {
	services := byOperator(map[string][]string{"plain": {"tls.server-name", "a"}, "calls": {"tls.certificate", "/a.pem", "tls.certificate-key", "/a.key"}},
		one("plain", 80, meta("lb-protocol", "http")), one("calls", 81, meta("lb-protocol", "grpc")))
	c, err := offline(Options{Settings: testSettings("1.30.6"), Certificates: namedStore(t)}, services, testNames())
	require.NoError(t, err)
	var problems []string
	for _, p := range c.Problems {
		problems = append(problems, p.Subject+": "+p.Message)
	}
	assert.Equal(t, []string{
		"service calls: lb/service/calls: tls.certificate /a.pem: it has no effect on a service with the protocol grpc, want grpcs",
		"service calls: lb/service/calls: tls.certificate-key /a.key: it has no effect on a service with the protocol grpc, want grpcs",
		"service plain: lb/service/plain: tls.server-name a: it has no effect on a service with the protocol http, want https",
	}, problems)
}
