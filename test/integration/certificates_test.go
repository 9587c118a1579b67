package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// TestCertificates puts certificates into the directory of a running lbctl.
func TestCertificates(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		consul, dir := consultest.Start(t), t.TempDir()
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
		b := lbtest.Start(t, lbtest.Options{Consul: consul.Addr, Nginx: binary, Args: []string{
			"--certificates", dir, "--listener", "grpcs=grpcs://" + address, "--listener", "https=off",
		}})
		s := lbtest.StartBackend(t, "server-1")
		s.Register(t, consul.Client(), hello)
		b.WaitServing(hello, 1)

		eventually := func(what string, check func(controller.Status) error) {
			t.Helper()
			b.Eventually(what, func() error {
				status, err := b.Status()
				if err != nil {
					return err
				}
				return check(status)
			})
		}
		// problem waits for a problem that says the words, and for the state serving.
		problem := func(words string) {
			t.Helper()
			eventually("status tells "+words, func(status controller.Status) error {
				for _, p := range status.Problems {
					if strings.Contains(p.Subject+": "+p.Message, words) && status.State == controller.Serving {
						return nil
					}
				}
				return fmt.Errorf("%s: %v", status.State, status.Problems)
			})
		}
		served := func() (string, error) {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, &tls.Config{ServerName: "lb.test", InsecureSkipVerify: true})
			if err != nil {
				return "", err
			}
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
		}
		waitServed := func(p certificatestest.Pair) {
			t.Helper()
			b.Eventually("nginx has the certificate", func() error {
				serial, err := served()
				if err == nil && serial != p.Serial(t) {
					err = errors.New("it has another one")
				}
				return err
			})
		}
		problem("certificates: directory")
		_, err := served()
		require.Error(t, err, "without a certificate there is no listener")

		ca := certificatestest.NewAuthority(t, "test")
		first, second := ca.Issue(t, 13*24*time.Hour, "lb.test"), ca.Issue(t, 100*24*time.Hour, "lb.test")
		first.Write(t, dir, "lb")
		waitServed(first)
		problem("certificate lb: it expires at ")
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithAuthority("lb.test"),
			grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: ca.Pool()})))
		require.NoError(t, err)
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err = protos.NewPingClient(conn).SayHello(ctx, &protos.PingMessage{Greeting: "hello"})
		require.NoError(t, err)

		before, err := b.Status()
		require.NoError(t, err)
		second.Write(t, dir, "lb")
		waitServed(second)
		eventually("the problem is over", func(status controller.Status) error {
			if len(status.Problems) > 0 {
				return fmt.Errorf("%v", status.Problems)
			}
			return nil
		})
		certificatestest.Write(t, dir, "lb.crt", []byte("broken"))
		problem("certificate lb: lb.crt with lb.key: it has no certificate")
		after, err := b.Status()
		require.NoError(t, err)
		assert.Equal(t, before.Nginx.Generation, after.Nginx.Generation, "nginx needed no reload")
		require.Len(t, after.Certificates, 1)
		assert.Equal(t, []string{"lb.test"}, after.Certificates[0].Hosts)

		b.StopLbctl()
		b.StartLbctl()
		problem("certificate lb: lb.crt with lb.key: it has no certificate")
		waitServed(second)
	})
}
