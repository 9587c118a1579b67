package certificates_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/certificates"
	"lbctl/internal/certificates/certificatestest"
)

// policyFiles are the files of a policy in a directory of their own, and its Store.
type policyFiles struct {
	*store
	certificates.Named
}

func namePolicyFiles(t *testing.T) policyFiles {
	dir := t.TempDir()
	n := certificates.Named{CA: filepath.Join(dir, "ca.pem"), Pair: certificates.PairPaths{Certificate: filepath.Join(dir, "lb.crt"), Key: filepath.Join(dir, "lb.key")}}
	s := &store{t: t, copies: filepath.Join(t.TempDir(), "copies")} // there is no directory of certificates
	s.reopen()
	return policyFiles{s, n}
}

func (f policyFiles) write(ca []byte, p certificatestest.Pair) {
	dir := filepath.Dir(f.CA)
	certificatestest.Write(f.t, dir, "ca.pem", ca)
	p.Write(f.t, dir, "lb")
}

func (f policyFiles) read(now time.Time) (certificates.NamedAuthorities, certificates.NamedPair) {
	f.t.Helper()
	set := f.Read(now, f.Named)
	assert.Empty(f.t, set.Problems)
	assert.True(f.t, set.Knows(f.Named))
	return set.NamedAuthorities[f.CA], set.NamedPairs[f.Pair]
}

// serial returns the serial number of the certificate that nginx has.
func (f policyFiles) serial(p certificates.NamedPair) string {
	f.t.Helper()
	text, err := os.ReadFile(p.File)
	require.NoError(f.t, err)
	return certificatestest.Pair{Chain: text, Key: text}.Serial(f.t)
}

func TestRenewedFilesOfPolicies(t *testing.T) {
	f := namePolicyFiles(t)
	ca, next := certificatestest.NewAuthority(t, "ca"), certificatestest.NewAuthority(t, "next")
	first, second := ca.Issue(t, long, "lb"), ca.Issue(t, long, "lb")
	f.write(ca.PEM, first)
	authorities, pair := f.read(time.Now())
	assert.Equal(t, certificates.NamedAuthorities{PEM: ca.PEM}, authorities)
	assert.Equal(t, first.Serial(t), f.serial(pair))
	info, err := os.Stat(pair.File)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	f.write(slices.Concat(ca.PEM, next.PEM), second)
	renewed, renewedPair := f.read(time.Now())
	assert.Equal(t, slices.Concat(ca.PEM, next.PEM), renewed.PEM)
	assert.Equal(t, second.Serial(t), f.serial(renewedPair))
	assert.Equal(t, pair.File, renewedPair.File, "nginx needs no other configuration")
	assert.NotEqual(t, pair.Sum, renewedPair.Sum)

	inOne := f.Pair.Certificate
	certificatestest.Write(t, filepath.Dir(inOne), filepath.Base(inOne), slices.Concat(first.Key, first.Chain))
	f.Named.Pair.Key = inOne
	_, pair = f.read(time.Now())
	assert.Empty(t, pair.Problem)
	assert.Equal(t, first.Serial(t), f.serial(pair))
}

func TestABadFileOfAPolicyNeverReplacesAGoodOne(t *testing.T) {
	ca := certificatestest.NewAuthority(t, "ca")
	good, other := ca.Issue(t, long, "lb"), ca.Issue(t, long, "lb")
	cut := slices.Concat(ca.PEM, certificatestest.NewAuthority(t, "next").PEM)
	cut = cut[:len(cut)-100]
	below := ca.Intermediate(t, "intermediate").Issue(t, long, "lb")
	below.Chain = below.Chain[:len(below.Chain)-100]
	for name, c := range map[string]struct {
		ca               []byte
		pair             certificatestest.Pair
		wantCA, wantPair string // the problems

	}{
		"nothing":                {nil, certificatestest.Pair{}, "it has no certificate of an authority", "has no certificate in PEM"},
		"a bundle that is cut":   {cut, certificatestest.Pair{Chain: good.Chain, Key: good.Key}, "only 1 of its 2 parts in PEM are whole", ""},
		"a chain that is cut":    {ca.PEM, below, "", "only 1 of its 2 parts in PEM are whole"},
		"the key of another":     {ca.PEM, certificatestest.Pair{Chain: other.Chain, Key: good.Key}, "", "its key belongs to another certificate"},
		"two keys":               {ca.PEM, certificatestest.Pair{Chain: good.Chain, Key: slices.Concat(good.Key, other.Key)}, "", "has 2 keys, want one"},
		"a key among them":       {slices.Concat(ca.PEM, good.Key), good, "it has a private key", ""},
		"an expired certificate": {ca.PEM, ca.Issue(t, -time.Minute, "lb"), "", "the new certificate: it expired at"},
	} {
		t.Run(name, func(t *testing.T) {
			f := namePolicyFiles(t)
			f.write(ca.PEM, good)
			f.read(time.Now())
			f.write(c.ca, c.pair)
			for range 2 {
				authorities, pair := f.read(time.Now())
				assert.Equal(t, ca.PEM, authorities.PEM)
				assert.Equal(t, good.Serial(t), f.serial(pair))
				for _, p := range [][3]string{{authorities.Problem, c.wantCA, "; the former authorities stay in use"},
					{pair.Problem, c.wantPair, "; the former certificate, which is valid until "}} {
					if p[1] == "" {
						assert.Empty(t, p[0])
						continue
					}
					assert.Contains(t, p[0], p[1])
					assert.Contains(t, p[0], p[2])
				}
				f.reopen() // the copies outlive a restart
			}
			f.write(ca.PEM, other)
			authorities, pair := f.read(time.Now())
			assert.Empty(t, authorities.Problem+pair.Problem)
			assert.Equal(t, other.Serial(t), f.serial(pair))
		})
	}
}

func TestFilesOfPoliciesThatWereNeverGood(t *testing.T) {
	f := namePolicyFiles(t)
	authorities, pair := f.read(time.Now())
	assert.Equal(t, certificates.NamedAuthorities{Problem: "it can't be read: no such file or directory"}, authorities)
	assert.Equal(t, certificates.NamedPair{Problem: `"` + f.Pair.Certificate + `" can't be read: no such file or directory`}, pair)
	before := f.Read(time.Now(), f.Named)

	ca := certificatestest.NewAuthority(t, "ca")
	expired := ca.Issue(t, -time.Minute, "lb")
	f.write(ca.PEM, expired)
	// A policy that nginx has refused is not among the wanted.
	after := f.Read(time.Now().Add(time.Minute))
	assert.True(t, after.Mends(before))
	assert.False(t, f.Read(time.Now()).Mends(after))
	_, pair = f.read(time.Now())
	assert.Contains(t, pair.Problem, "it expired at ", "without a better one it is used")
	assert.Equal(t, expired.Serial(t), f.serial(pair))

	later := f.Read(time.Now().Add(2 * time.Hour))
	assert.False(t, later.Knows(f.Named), "no policy names it any more")
	assert.FileExists(t, pair.File, "an earlier configuration may need it")
	f.Read(time.Now().Add(40 * 24 * time.Hour))
	assert.NoFileExists(t, pair.File)
}

func TestExpiryOfShortLivedCertificates(t *testing.T) {
	f := namePolicyFiles(t)
	ca := certificatestest.NewAuthority(t, "ca")
	now := time.Now()
	f.write(ca.PEM, ca.IssueFrom(t, now, 24*time.Hour, "lb"))
	_, pair := f.read(now)
	assert.Empty(t, pair.Problem)
	_, pair = f.read(now.Add(15 * time.Hour))
	assert.Empty(t, pair.Problem)
	_, pair = f.read(now.Add(17 * time.Hour))
	assert.Contains(t, pair.Problem, "it expires at "+pair.NotAfter.Format("2006-01-02 15:04 UTC")+", which is in less than a third of its time")
}
