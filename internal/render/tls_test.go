package render

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/certificates"
	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/endpoints"
	"lbctl/internal/nginxtest"
	"lbctl/internal/routing"
)

const days = 24 * time.Hour

// secured is a balancer with the listeners grpcs and https.
type secured struct {
	balancer
	grpcs, https string // addresses
	dir          string // the operator's certificates
	store        *certificates.Store
	set          certificates.Set
	process      *nginxtest.Process
	conf, runDir string
	listeners    []routing.Listener
}

// decide says what becomes of a GET or of a call to a listener, if package routing is right.
func (b *secured) decide(t *testing.T, listener, host string) routing.Decision {
	t.Helper()
	n := slices.IndexFunc(b.listeners, func(l routing.Listener) bool { return l.Name == listener })
	require.GreaterOrEqual(t, n, 0, listener)
	return b.listeners[n].Decide(routing.Request{Method: http.MethodGet, Host: host, Target: "/any.Service/Method"}, routing.Reading{})
}

// startSecured starts a balancer with the certificates that put writes into its directory.
func startSecured(t *testing.T, binary nginxtest.Binary, put func(dir string), change func(*Settings), registrations ...*api.ServiceEntry) *secured {
	t.Helper()
	runDir := nginxtest.Dir(t)
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t)) }
	b := &secured{
		balancer: balancer{grpc: address(), http: address(), errorLog: filepath.Join(runDir, "error.log")},
		grpcs:    address(), https: address(),
		dir: t.TempDir(), runDir: runDir,
	}
	settings := testSettings(binary.Version)
	settings.Listeners = append(PlainListeners(Listen{b.grpc}, Listen{b.http}),
		Listener{Name: ListenerGRPCS, Protocol: endpoints.GRPCS, Listen: Listen{b.grpcs}},
		Listener{Name: ListenerHTTPS, Protocol: endpoints.HTTPS, Listen: Listen{b.https}})
	settings.RunDir, settings.OpenFiles, settings.StreamModule = runDir, 1024, streamModule(t, binary)
	opts := certificates.Options{Dir: b.dir, Copies: filepath.Join(runDir, "certificates"), Group: workersGroup(t)}
	if os.Geteuid() == 0 {
		group, err := user.LookupGroupId(strconv.Itoa(opts.Group))
		require.NoError(t, err)
		settings.User, settings.Group = "nobody", group.Name
	}
	if change != nil {
		change(&settings)
	}
	put(b.dir)
	var err error
	b.store, err = certificates.Open(opts)
	require.NoError(t, err)
	b.set = b.store.Read(time.Now())
	settings.Certificates = b.set
	c, err := offline(Options{Settings: settings}, parseAll(registrations...), testNames())
	require.NoError(t, err)
	b.conf, b.listeners = write(t, runDir, c), c.Listeners
	b.process = nginxtest.Start(t, binary, b.conf, runDir)
	return b
}

// workersGroup is the id of the group of nginx's workers; -1 if they run as the user of the test.
func workersGroup(t *testing.T) int {
	t.Helper()
	if os.Geteuid() != 0 {
		return -1
	}
	worker, err := user.Lookup("nobody")
	require.NoError(t, err)
	group, err := strconv.Atoi(worker.Gid)
	require.NoError(t, err)
	return group
}

// client is an HTTP client that connects to the address, whatever the host of the URL.
func (b *secured) client(t *testing.T, address string, config *tls.Config) *http.Client {
	transport := &http.Transport{
		TLSClientConfig:   config,
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// dialTLS connects to the listener grpcs.
func (b *secured) dialTLS(t *testing.T, authority string, config *tls.Config) *grpc.ClientConn {
	t.Helper()
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := grpc.NewClient("passthrough:///"+b.grpcs, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithAuthority(authority))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// served returns the serial number of the certificate that a host has.
func (b *secured) served(t *testing.T, address, host string) string {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, &tls.Config{ServerName: host, InsecureSkipVerify: true})
	require.NoError(t, err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// errors returns what nginx logged.
func (b *secured) errors(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(b.errorLog)
	require.NoError(t, err)
	return string(text)
}

// entry is a service with one instance on this machine.
func entry(service string, port int, change ...func(*api.ServiceEntry)) *api.ServiceEntry {
	return registration(service, fmt.Sprintf("%s-%d", service, port), "127.0.0.1", port, change...)
}

func TestTLSTraffic(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		ca := certificatestest.NewAuthority(t, "test")
		exact, wild := ca.Issue(t, 100*days, "shop.test", "other.test"), ca.Issue(t, 200*days, "*.shop.test")
		b := startSecured(t, binary, func(dir string) {
			exact.Write(t, dir, "exact")
			wild.Write(t, dir, "wild")
		}, nil,
			entry("hello", grpcServer(t, "hello"), tags("grpc_server")),
			entry("shop", grpcServer(t, "shop"), meta("lb-protocol", "grpc", "lb-host", "api.shop.test")),
			entry("site", httpServer(t, "site", httptest.NewServer), tags("http_server")),
			entry("web", httpServer(t, "web", httptest.NewServer), meta("lb-protocol", "http", "lb-host", "www.shop.test")),
		)
		trust := &tls.Config{RootCAs: ca.Pool()}

		t.Run("gRPC with and without TLS reaches the same services", func(t *testing.T) {
			for authority, want := range map[string]string{"shop.test": "hello", "api.shop.test": "shop"} {
				for _, conn := range []*grpc.ClientConn{b.dial(t, authority), b.dialTLS(t, authority, trust)} {
					got, err := call(t, conn, "/any.Service/Method")
					require.NoError(t, err)
					assert.Equal(t, want, got)
				}
			}
			var header grpcmetadata.MD
			_, err := call(t, b.dialTLS(t, "shop.test", trust), "/any.Service/Method", grpc.Header(&header))
			require.NoError(t, err)
			assert.Equal(t, []string{"https"}, header.Get("seen-x-forwarded-proto"))
		})
		t.Run("HTTP/1.1 and HTTP/2 over TLS", func(t *testing.T) {
			client := b.client(t, b.https, trust)
			response, body := get(t, client, "https://shop.test/x")
			assert.Equal(t, "site GET /x 0", body)
			assert.Equal(t, "HTTP/2.0", response.Proto)
			assert.Equal(t, "https", response.Header.Get("Seen-X-Forwarded-Proto"))
			assert.Empty(t, response.Header.Get("Strict-Transport-Security"))
			_, body = get(t, client, "https://www.shop.test/x")
			assert.Equal(t, "web GET /x 0", body)
			old := &tls.Config{RootCAs: ca.Pool(), NextProtos: []string{"http/1.1"}}
			conn, err := tls.Dial("tcp", b.https, &tls.Config{RootCAs: ca.Pool(), ServerName: "shop.test", NextProtos: old.NextProtos})
			require.NoError(t, err)
			defer conn.Close()
			fmt.Fprint(conn, "GET /x HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
			text, err := io.ReadAll(conn)
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(string(text), "HTTP/1.1 200 OK"), "%s", text)
			_, body = get(t, b.client(t, b.http, nil), "http://www.shop.test/x")
			assert.Equal(t, "web GET /x 0", body)
			response, body = get(t, b.client(t, b.https, nil), "http://shop.test/x")
			assert.Equal(t, 400, response.StatusCode)
			assert.Equal(t, "this port takes HTTPS only\n", body)
		})
		t.Run("a host has the certificate that names it", func(t *testing.T) {
			for _, address := range []string{b.grpcs, b.https} {
				assert.Equal(t, exact.Serial(t), b.served(t, address, "shop.test"))
				assert.Equal(t, exact.Serial(t), b.served(t, address, "OTHER.test"))
				assert.Equal(t, wild.Serial(t), b.served(t, address, "new.shop.test"))
				assert.Equal(t, exact.Serial(t), b.served(t, address, "unknown.example"), "the default")
				assert.Equal(t, exact.Serial(t), b.served(t, address, ""), "the default")
			}
		})
		t.Run("protocols and ciphers are Mozilla's intermediate ones", func(t *testing.T) {
			dial := func(config *tls.Config) error {
				config.ServerName, config.RootCAs = "shop.test", ca.Pool()
				conn, err := tls.Dial("tcp", b.https, config)
				if err == nil {
					conn.Close()
				}
				return err
			}
			assert.Error(t, dial(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}))
			assert.NoError(t, dial(&tls.Config{MaxVersion: tls.VersionTLS12}))
			assert.NoError(t, dial(&tls.Config{MinVersion: tls.VersionTLS13}))
			cbc := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
			assert.Error(t, dial(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: cbc}))
		})
		t.Run("a renewed certificate is served without a reload", func(t *testing.T) {
			workers := b.process.Workers()
			renewed := ca.Issue(t, 300*days, "*.shop.test")
			renewed.Write(t, b.dir, "wild")
			set := b.store.Read(time.Now())
			assert.Equal(t, b.set.Hosts, set.Hosts)
			require.Eventually(t, func() bool { return b.served(t, b.https, "new.shop.test") == renewed.Serial(t) }, 10*time.Second, 50*time.Millisecond)
			require.Eventually(t, func() bool { return b.served(t, b.grpcs, "new.shop.test") == renewed.Serial(t) }, 10*time.Second, 50*time.Millisecond)

			certificatestest.Write(t, b.dir, "wild.crt", []byte("broken"))
			require.NotEmpty(t, b.store.Read(time.Now()).Problems)
			expired := ca.Issue(t, -time.Hour, "shop.test", "other.test")
			expired.Write(t, b.dir, "exact")
			assert.Len(t, b.store.Read(time.Now()).Problems, 2)
			assert.Equal(t, renewed.Serial(t), b.served(t, b.https, "new.shop.test"))
			assert.Equal(t, exact.Serial(t), b.served(t, b.https, "shop.test"))
			assert.Equal(t, workers, b.process.Workers(), "there was no reload")
		})
		t.Run("a session is resumed after a reload", func(t *testing.T) {
			config := &tls.Config{ServerName: "new.shop.test", RootCAs: ca.Pool(), ClientSessionCache: tls.NewLRUClientSessionCache(8)}
			resumed := func() bool {
				conn, err := tls.Dial("tcp", b.https, config)
				require.NoError(t, err)
				defer conn.Close()
				// With TLS 1.3 the session comes after the handshake.
				fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: new.shop.test\r\nConnection: close\r\n\r\n")
				io.ReadAll(conn)
				return conn.ConnectionState().DidResume
			}
			assert.False(t, resumed())
			assert.True(t, resumed())
			workers := b.process.Workers()
			b.process.Reload()
			require.Eventually(t, func() bool {
				now := b.process.Workers()
				return len(now) == len(workers) && !slices.Equal(now, workers) && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(workers, pid) })
			}, 20*time.Second, 20*time.Millisecond)
			assert.True(t, resumed())
		})
		assert.NotContains(t, b.errors(t), "[error]")
	})
}

func TestClientCertificates(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		t.Run("of some hosts", func(t *testing.T) { testClientCertificates(t, binary, false) })
		t.Run("of all hosts", func(t *testing.T) { testClientCertificates(t, binary, true) })
	})
}

// testClientCertificates asks hosts with and without authorities of their own. withDefault says
// whether all others have some, too.
func testClientCertificates(t *testing.T, binary nginxtest.Binary, withDefault bool) {
	ca, staff, guests := certificatestest.NewAuthority(t, "test"), certificatestest.NewAuthority(t, "staff"), certificatestest.NewAuthority(t, "guests")
	anna := staff.Intermediate(t, "branch").Issue(t, 100*days, "anna").Certificate(t)
	guest := guests.Issue(t, 100*days, "guest").Certificate(t)
	b := startSecured(t, binary, func(dir string) {
		ca.Issue(t, 100*days, "staff.test", "optional.test", "open.test", "broken.test", "sub.wild.test").Write(t, dir, "all")
		certificatestest.Write(t, dir, "staff.test.client-ca.pem", staff.PEM)
		certificatestest.Write(t, dir, "*.wild.test.client-ca.pem", staff.PEM)
		certificatestest.Write(t, dir, "optional.test.client-ca-optional.pem", guests.PEM)
		certificatestest.Write(t, dir, "broken.test.client-ca.pem", []byte("broken"))
		if withDefault {
			certificatestest.Write(t, dir, "default.client-ca-optional.pem", guests.PEM)
		}
	}, nil,
		entry("hello", grpcServer(t, "hello"), tags("grpc_server")),
		entry("site", httpServer(t, "site", httptest.NewServer), tags("http_server")),
	)
	with := func(c ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: ca.Pool(), Certificates: c}
	}
	openStatus, openSubject := 200, "" // of a host without authorities of its own
	if withDefault {
		openStatus, openSubject = 403, "CN=guest"
	}
	spoof := func(r *http.Request) { r.Header.Set("X-Client-Cert-Subject", "CN=root") }

	for _, c := range []struct {
		name, host string
		config     *tls.Config
		status     int
		subject    string
	}{
		{"required, with one", "staff.test", with(anna), 200, "CN=anna"},
		{"required, without one", "staff.test", with(), 403, ""},
		{"required, from another authority", "staff.test", with(guest), 403, ""},
		{"required by a wildcard, with one", "sub.wild.test", with(anna), 200, "CN=anna"},
		{"required by a wildcard, without one", "sub.wild.test", with(), 403, ""},
		{"optional, with one", "optional.test", with(guest), 200, "CN=guest"},
		{"optional, without one", "optional.test", with(), 200, ""},
		{"optional, from another authority", "optional.test", with(anna), 403, ""},
		{"of another host's authority", "open.test", with(anna), openStatus, ""},
		{"of the default authority", "open.test", with(guest), 200, openSubject},
		{"no usable authorities", "broken.test", with(anna), 403, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := c.config.Clone()
			if len(config.Certificates) > 0 { // whatever authorities nginx names
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &config.Certificates[0], nil }
			}
			response, body := get(t, b.client(t, b.https, config), "https://"+c.host+"/", spoof)
			assert.Equal(t, c.status, response.StatusCode, "%s", body)
			for _, listener := range []string{ListenerHTTPS, ListenerGRPCS} {
				d := b.decide(t, listener, c.host)
				switch {
				case len(config.Certificates) == 0:
					assert.Equal(t, c.status != 200, d.Refused != nil || d.Certificate != "", "%+v", d)
				case c.status == 200:
					assert.Nil(t, d.Refused)
				case c.host == "broken.test":
					assert.NotNil(t, d.Refused)
				}
			}
			assert.Equal(t, c.subject, response.Header.Get("Seen-X-Client-Cert-Subject"))
			var header grpcmetadata.MD
			_, err := call(t, b.dialTLS(t, c.host, config), "/any.Service/Method", grpc.Header(&header))
			if c.status == 200 {
				require.NoError(t, err)
				assert.Equal(t, c.subject, strings.Join(header.Get("seen-x-client-cert-subject"), ""))
				return
			}
			assert.Equal(t, codes.Unauthenticated, grpcstatus.Code(err), "%v", err)
			assert.Equal(t, "lbctl: this host wants a valid client certificate from one of its authorities", grpcstatus.Convert(err).Message())
			assert.Equal(t, "this host wants a valid client certificate from one of its authorities\n", body)
		})
	}
	t.Run("without TLS", func(t *testing.T) {
		for host, want := range map[string]int{"staff.test": 403, "sub.wild.test": 403, "broken.test": 403, "optional.test": 200, "open.test": 200} {
			response, _ := get(t, b.client(t, b.http, nil), "http://"+host+"/", spoof)
			assert.Equal(t, want, response.StatusCode, host)
			assert.Empty(t, response.Header.Get("Seen-X-Client-Cert-Subject"))
			d := b.decide(t, ListenerHTTP, host)
			assert.Empty(t, d.Certificate, "no client can show one")
			if want == 200 {
				assert.Nil(t, d.Refused, host)
			} else if assert.NotNil(t, d.Refused, host) {
				assert.Equal(t, want, d.Refused.Status)
			}
		}
		_, err := call(t, b.dial(t, "staff.test"), "/any.Service/Method")
		assert.Equal(t, codes.Unauthenticated, grpcstatus.Code(err), "%v", err)
		if d := b.decide(t, ListenerGRPC, "staff.test"); assert.NotNil(t, d.Refused) {
			assert.Equal(t, http.StatusUnauthorized, d.Refused.Status, "explain says UNAUTHENTICATED")
		}
	})
	t.Run("another host over the same connection", func(t *testing.T) {
		for _, c := range []struct {
			sni, host string
			config    *tls.Config
			status    int
		}{
			{"open.test", "staff.test", with(anna), 421},
			{"optional.test", "staff.test", with(guest), 421},
			{"staff.test", "optional.test", with(anna), 421},
			{"", "staff.test", with(anna), 421},
			{"", "staff.test", with(guest), 421},
			{"open.test", "staff.test", with(guest), 421},
		} {
			config := c.config.Clone()
			config.InsecureSkipVerify, config.ServerName = true, c.sni
			client := b.client(t, b.https, config)
			if c.sni == "" {
				config.ServerName = "127.0.0.1" // not sent
			}
			response, body := get(t, client, "https://"+c.sni+"/", func(r *http.Request) { r.URL.Host, r.Host = "127.0.0.1", c.host; spoof(r) })
			assert.Equal(t, c.status, response.StatusCode, "%s then %s: %s", c.sni, c.host, body)
			assert.Empty(t, response.Header.Get("Seen-X-Client-Cert-Subject"))
		}
		for _, sni := range []string{"open.test", "optional.test"} {
			client := b.client(t, b.grpcs, &tls.Config{InsecureSkipVerify: true, ServerName: sni})
			response, _ := get(t, client, "https://"+sni+"/any.Service/Method", func(r *http.Request) { r.Host = "staff.test" })
			assert.Equal(t, "16", response.Header.Get("Grpc-Status"), "UNAUTHENTICATED")
		}
	})
	t.Run("a session of one host is not resumed with another", func(t *testing.T) {
		sessions := &anySession{}
		dial := func(host string, c tls.Certificate) (subject string, status int) {
			conn, err := tls.Dial("tcp", b.https, &tls.Config{ServerName: host, RootCAs: ca.Pool(), Certificates: []tls.Certificate{c}, ClientSessionCache: sessions})
			require.NoError(t, err)
			defer conn.Close()
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			defer response.Body.Close()
			io.Copy(io.Discard, response.Body)
			return response.Header.Get("Seen-X-Client-Cert-Subject"), response.StatusCode
		}
		subject, _ := dial("optional.test", guest)
		assert.Equal(t, "CN=guest", subject)
		subject, status := dial("staff.test", guest)
		assert.Empty(t, subject)
		assert.NotEqual(t, 200, status)
	})
}

// anySession is a cache that offers its session to every host.
type anySession struct{ session *tls.ClientSessionState }

func (s *anySession) Get(string) (*tls.ClientSessionState, bool) { return s.session, s.session != nil }
func (s *anySession) Put(_ string, session *tls.ClientSessionState) {
	if session != nil {
		s.session = session
	}
}
