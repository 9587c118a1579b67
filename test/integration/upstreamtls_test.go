package integration

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/nginxtest"
)

// A file of tls.* that nginx can't load costs its own service its newest change, and no other.
func TestABadFileOfUpstreamTLSCostsItsServiceTheNewestChangeOnly(t *testing.T) {
	t.Parallel() // it mostly waits
	s, _, _ := startInACrowd(t)
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "secure", Name: "secure", Address: "127.0.0.1", Port: 7001,
		Meta: map[string]string{"lb-protocol": "https", "lb-path": "/secure", "lb-check": "none"},
	}))
	s.servesPolicies(s.policy(t, "service/secure", `{"tls.server-name": "good.internal"}`))
	s.wrote("http.conf", "proxy_ssl_name good.internal;")

	s.policy(t, "service/secure", `{"tls.server-name": "bad.internal", "tls.verify": true, "tls.ca": "/nowhere/ca.pem"}`)
	s.problem("service secure", "/nowhere/ca.pem")
	s.policy(t, "service/"+other(1), `{"timeout.read": "79s"}`)
	s.wrote("grpc.conf", "grpc_read_timeout 79s;")
	s.wrote("http.conf", "proxy_ssl_name good.internal;")

	s.servesPolicies(s.policy(t, "service/secure", `{"tls.server-name": "better.internal"}`))
	s.wrote("http.conf", "proxy_ssl_name better.internal;")
	s.withoutProblems()
}

// secureInstance answers with the serial number of the certificate that nginx shows it. Its own
// certificate can be replaced.
func secureInstance(t *testing.T, clients *certificatestest.Authority) (port int, certificate *atomic.Pointer[tls.Certificate]) {
	t.Helper()
	certificate = new(atomic.Pointer[tls.Certificate])
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber)
	}))
	server.TLS = &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate.Load(), nil },
		ClientAuth:     tls.RequireAndVerifyClientCert, ClientCAs: clients.Pool(),
	}
	server.Config.SetKeepAlivesEnabled(false) // each request has a connection of its own
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port, certificate
}

// A renewed file that a policy names is used at once, and one that is broken harms nobody.
func TestRenewedFilesOfUpstreamTLS(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		const long = 100 * 24 * time.Hour
		ca, next := certificatestest.NewAuthority(t, "ca"), certificatestest.NewAuthority(t, "next")
		instance, nextInstance := ca.Issue(t, long, "secure.internal").Certificate(t), next.Issue(t, long, "secure.internal").Certificate(t)
		dir := t.TempDir()
		first, second, third := ca.Issue(t, long, "lb"), ca.Issue(t, long, "lb"), ca.Issue(t, long, "lb")
		certificatestest.Write(t, dir, "ca.pem", ca.PEM)

		s := alone(t, binary)
		port, certificate := secureInstance(t, ca)
		certificate.Store(&instance)
		require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: "secure", Name: "secure", Address: "127.0.0.1", Port: port, Meta: map[string]string{"lb-protocol": "https"},
		}))
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
		shown := func() (string, error) {
			response, err := client.Get("http://" + s.HTTP + "/")
			if err != nil {
				return "", err
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if response.StatusCode != http.StatusOK {
				err = errors.New(response.Status)
			}
			return string(body), err
		}
		shows := func(p certificatestest.Pair) {
			t.Helper()
			s.Eventually("nginx shows the certificate to the instance", func() error {
				serial, err := shown()
				if err == nil && serial != p.Serial(t) {
					err = errors.New("it shows another one")
				}
				return err
			})
		}
		generation := func() int {
			t.Helper()
			status, err := s.Status()
			require.NoError(t, err)
			return status.Nginx.Generation
		}

		s.policy(t, "service/secure", fmt.Sprintf(`{"tls.server-name": "secure.internal", "tls.verify": true, "tls.ca": %q, "tls.certificate": %q, "tls.certificate-key": %q}`,
			filepath.Join(dir, "ca.pem"), filepath.Join(dir, "lb.crt"), filepath.Join(dir, "lb.key")))
		s.problem("service secure", "lb.crt", "no such file")
		first.Write(t, dir, "lb") // the service is tried again although a refused one waits for a minute
		shows(first)
		s.withoutProblems()

		before, workers := generation(), s.Nginx().Workers()
		second.Write(t, dir, "lb")
		shows(second)
		assert.Equal(t, before, generation(), "nginx needs no reload for a renewed certificate")
		assert.Equal(t, workers, s.Nginx().Workers())

		certificatestest.Write(t, dir, "lb.key", first.Key)
		certificatestest.Write(t, dir, "ca.pem", ca.PEM[:len(ca.PEM)-100])
		s.problem("service secure", "its key belongs to another certificate; the former certificate, which is valid until")
		s.problem("service secure", "only 0 of its 1 parts in PEM are whole; the former authorities stay in use")
		s.servesPolicies(s.policy(t, "default", `{"timeout.read": "79s"}`)) // nginx must not look at the broken files
		shows(second)
		s.StopLbctl()
		s.StartLbctl()
		s.problem("service secure", "the former authorities stay in use")
		s.servesPolicies(s.policy(t, "default", `{"timeout.read": "78s"}`))
		shows(second)

		certificate.Store(&nextInstance)
		s.Eventually("nginx refuses an instance of another authority", func() error {
			if _, err := shown(); err == nil || !strings.Contains(err.Error(), "502") {
				return fmt.Errorf("%v", err)
			}
			return nil
		})
		third.Write(t, dir, "lb")
		certificatestest.Write(t, dir, "ca.pem", slices.Concat(ca.PEM, next.PEM))
		shows(third)
		s.withoutProblems()
	})
}
