//go:build bench

package bench

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// startFabio runs fabio, whose path is in FABIO.
func startFabio(t *testing.T, s *site) balancer {
	t.Helper()
	free := func() int { return nginxtest.FreePort(t) }
	at, dir := freeFronts(free), nginxtest.Dir(t)
	pid := startProcess(t, dir, "fabio", os.Getenv("FABIO"),
		"-registry.consul.addr", s.lbs.Addr,
		"-registry.consul.register.enabled=false",
		"-ui.addr", fmt.Sprintf("127.0.0.1:%d", free()),
		"-proxy.cs", fmt.Sprintf("cs=bench;type=file;cert=%s;key=%s", s.identity.cert, s.identity.key),
		"-proxy.addr", strings.Join([]string{
			at[grpcPlain] + ";proto=grpc",
			at[httpPlain] + ";proto=http",
			at[grpcTLS] + ";proto=grpcs;cs=bench",
			at[httpTLS] + ";proto=https;cs=bench",
		}, ","))
	awaitListening(t, at)
	return &proxy{at: at, pids: []int{pid}, counts: never}
}

// startTraefik runs Traefik, whose path is in TRAEFIK.
func startTraefik(t *testing.T, s *site) balancer {
	t.Helper()
	at, dir := freeFronts(func() int { return nginxtest.FreePort(t) }), nginxtest.Dir(t)
	certificates := filepath.Join(dir, "tls.yaml")
	require.NoError(t, os.WriteFile(certificates, fmt.Appendf(nil,
		"tls:\n  stores:\n    default:\n      defaultCertificate: {certFile: %q, keyFile: %q}\n", s.identity.cert, s.identity.key), 0o644))
	command := []string{os.Getenv("TRAEFIK"),
		"--global.checknewversion=false",
		"--global.sendanonymoususage=false",
		"--providers.consulcatalog.endpoint.address=" + s.lbs.Addr,
		"--providers.consulcatalog.exposedbydefault=false",
		"--providers.consulcatalog.watch=true",
		"--providers.file.filename=" + certificates,
	}
	for front, name := range entryPoints {
		command = append(command, fmt.Sprintf("--entrypoints.%s.address=%s", name, at[front]))
	}
	pid := startProcess(t, dir, "traefik", command...)
	awaitListening(t, at)
	return &proxy{at: at, pids: []int{pid}, counts: never}
}

func awaitListening(t *testing.T, at fronts) {
	t.Helper()
	for _, address := range at {
		lbtest.Eventually(t, address+" is listened on", func() error {
			conn, err := net.DialTimeout("tcp", address, time.Second)
			if err == nil {
				conn.Close()
			}
			return err
		})
	}
}
