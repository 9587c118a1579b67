package democlient

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/protos"
)

func TestTLS(t *testing.T) {
	ca, other := certificatestest.NewAuthority(t, "test"), certificatestest.NewAuthority(t, "other")
	dir := t.TempDir()
	certificatestest.Write(t, dir, "ca.pem", ca.PEM)
	certificatestest.Write(t, dir, "other.pem", other.PEM)
	certificatestest.Write(t, dir, "empty.pem", nil)
	ca.Issue(t, time.Hour, "anna").Write(t, dir, "anna")

	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, time.Hour, "127.0.0.1").Certificate(t)},
		ClientCAs:    ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	protos.RegisterPingServer(server, &pingServer{answer: func(context.Context, int) (string, error) { return "hello", nil }})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go server.Serve(listener)
	t.Cleanup(server.Stop)

	file := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"trusted, with a certificate", []string{"-ca", file("ca.pem"), "-cert", file("anna.crt"), "-key", file("anna.key")}, exitAnswered, ""},
		{"trusted, without one", []string{"-ca", file("ca.pem")}, exitFailed, "UNAVAILABLE"},
		{"not trusted", []string{"-ca", file("other.pem")}, exitFailed, "certificate signed by unknown authority"},
		{"trust in nothing", []string{"-ca", file("empty.pem")}, exitUsage, "empty.pem has no certificate, want one or more in PEM"},
		{"no such file", []string{"-ca", file("nowhere.pem")}, exitUsage, "flag -ca: open"},
		{"the key of another", []string{"-cert", file("ca.pem"), "-key", file("anna.key")}, exitUsage, "flags -cert and -key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			args := append([]string{"-tls", "-addr", listener.Addr().String(), "-timeout=10s"}, c.args...)
			assert.Equal(t, c.code, Main(t.Context(), args, &out, &errs), "%s", &errs)
			assert.Contains(t, errs.String(), c.stderr)
		})
	}
}
