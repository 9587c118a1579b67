package doctor

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/daemon"
)

func TestCertificates(t *testing.T) {
	fine(t, Examine(t.Context(), local(t, nil)), "certificates")

	authority := certificatestest.NewAuthority(t, "test")
	s := local(t, nil)
	s.Config.Nginx.Certificates = t.TempDir()
	fires(t, Examine(t.Context(), s), "certificates", Failed, "has no certificate")
	authority.Issue(t, 90*24*time.Hour, "good.example.com").Write(t, s.Config.Nginx.Certificates, "good")
	fine(t, Examine(t.Context(), s), "certificates")

	authority.Issue(t, 24*time.Hour, "soon.example.com").Write(t, s.Config.Nginx.Certificates, "soon")
	fires(t, Examine(t.Context(), s), "certificates", Warning, "certificate soon: it expires at", "in less than two weeks")
	authority.IssueFrom(t, time.Now().Add(-48*time.Hour), -24*time.Hour, "old.example.com").Write(t, s.Config.Nginx.Certificates, "old")
	fires(t, Examine(t.Context(), s), "certificates", Failed, "certificate old: it expired at")
	require.NoError(t, os.WriteFile(filepath.Join(s.Config.Nginx.Certificates, "good.key"), []byte("no key"), 0o600))
	fires(t, Examine(t.Context(), s), "certificates", Failed, "certificate good: ")
}

// TestCertificateOfWorkers takes the right to read a copy away from nginx's workers.
func TestCertificateOfWorkers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives nginx's workers another user")
	}
	dir := t.TempDir()
	certificatestest.NewAuthority(t, "test").Issue(t, 90*24*time.Hour, "example.com").Write(t, dir, "example")
	b := startBalancer(t, "--certificates", dir,
		"--listener", "grpcs=grpcs://"+freeAddress(t), "--listener", "https=https://"+freeAddress(t))
	s := b.subject(t)
	s.Config.Nginx.Certificates = dir
	fine(t, Examine(t.Context(), s), "certificates")
	copies, err := filepath.Glob(filepath.Join(daemon.CertificatesDir(b.StateDir), "*.pem"))
	require.NoError(t, err)
	require.Len(t, copies, 1)
	require.NoError(t, os.Chmod(copies[0], 0o600))
	report := Examine(t.Context(), s)
	fires(t, report, "certificates", Failed, "may not read "+copies[0], "the mode -rw-------")
	assert.Contains(t, findings(report, "certificates")[0].Mend, "start lbctl run again")
	require.NoError(t, os.Chmod(filepath.Dir(copies[0]), 0o700))
	fires(t, Examine(t.Context(), s), "certificates", Failed, filepath.Dir(copies[0])+" is closed for it")
}
