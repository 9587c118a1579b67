package certificates_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/certificates"
	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/nginxtest"
)

const long = 100 * 24 * time.Hour

// store is a Store with its directories.
type store struct {
	*certificates.Store
	t           *testing.T
	dir, copies string
}

func open(t *testing.T) *store {
	s := &store{t: t, dir: t.TempDir(), copies: filepath.Join(t.TempDir(), "copies")}
	s.reopen()
	return s
}

// reopen is a restart.
func (s *store) reopen() {
	s.t.Helper()
	var err error
	s.Store, err = certificates.Open(certificates.Options{Dir: s.dir, Copies: s.copies, Group: -1})
	require.NoError(s.t, err)
}

// serials returns the serial number of each copy.
func (s *store) serials(set certificates.Set) map[string]string {
	s.t.Helper()
	found := map[string]string{}
	for _, c := range set.Certificates {
		text, err := os.ReadFile(c.File)
		require.NoError(s.t, err)
		found[c.Name] = certificatestest.Pair{Chain: text, Key: text}.Serial(s.t)
	}
	return found
}

func messages(set certificates.Set) []string {
	var all []string
	for _, p := range set.Problems {
		all = append(all, p.Name+": "+p.Message)
	}
	return all
}

func TestHostNamesComeFromTheCertificates(t *testing.T) {
	s := open(t)
	ca := certificatestest.NewAuthority(t, "test")
	shop, wild := ca.Issue(t, long, "Shop.example.com", "www.shop.example.com"), ca.Issue(t, long+time.Hour, "*.example.com", "shop.example.com", "127.0.0.1")
	shop.Write(t, s.dir, "shop")
	certificatestest.Write(t, s.dir, "wild.pem", slices.Concat(wild.Key, wild.Chain))
	certificatestest.Write(t, s.dir, "README", []byte("not a certificate"))
	certificatestest.Write(t, s.dir, ".hidden.crt", []byte("not a certificate"))
	set := s.Read(time.Now())
	assert.Empty(t, messages(set))
	require.Len(t, set.Certificates, 2)
	assert.Equal(t, []string{"shop.example.com", "www.shop.example.com"}, set.Certificates[0].Hosts)
	assert.Equal(t, map[string]string{"shop": shop.Serial(t), "wild": wild.Serial(t)}, s.serials(set))
	shopFile, wildFile := set.Certificates[0].File, set.Certificates[1].File
	assert.Equal(t, shopFile, set.Default, "the first by name")
	// wild is valid for longer.
	assert.Equal(t, []certificates.HostCertificate{
		{Host: "*.example.com", File: wildFile}, {Host: "shop.example.com", File: wildFile}, {Host: "www.shop.example.com", File: shopFile},
	}, set.Hosts)

	info, err := os.Stat(shopFile)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode(), "others can't read the key")
	info, err = os.Stat(s.copies)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	wild.Write(t, s.dir, "default")
	assert.Equal(t, filepath.Join(s.copies, "default.pem"), s.Read(time.Now()).Default)
}

func TestTheGroupCanReadTheCopies(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to another group")
	}
	s := &store{t: t, dir: t.TempDir(), copies: filepath.Join(nginxtest.Dir(t), "state", "copies")}
	openFor := func(group int) certificates.Set {
		var err error
		s.Store, err = certificates.Open(certificates.Options{Dir: s.dir, Copies: s.copies, Group: group})
		require.NoError(t, err)
		return s.Read(time.Now())
	}
	certificatestest.NewAuthority(t, "test").Issue(t, long, "a.test").Write(t, s.dir, "a")
	for _, group := range []int{12345, 23456} {
		set := openFor(group)
		assert.Empty(t, messages(set))
		for path, mode := range map[string]os.FileMode{s.copies: 0o750, set.Default: 0o640} {
			info, err := os.Stat(path)
			require.NoError(t, err)
			assert.Equal(t, mode, info.Mode().Perm(), path)
			assert.Equal(t, uint32(group), info.Sys().(*syscall.Stat_t).Gid, path)
		}
	}
	require.NoError(t, os.Chmod(filepath.Dir(s.copies), 0o700))
	assert.Contains(t, messages(openFor(12345))[0], "nginx's workers can't enter")
	require.NoError(t, os.Chown(filepath.Dir(s.copies), -1, 12345))
	require.NoError(t, os.Chmod(filepath.Dir(s.copies), 0o710))
	assert.Empty(t, messages(openFor(12345)))
}

func BenchmarkReadUnchanged(b *testing.B) {
	dir := b.TempDir()
	ca := certificatestest.NewAuthority(b, "test")
	for n := range 1000 {
		ca.Issue(b, long, fmt.Sprintf("%d.test", n)).Write(b, dir, fmt.Sprint(n))
	}
	s, err := certificates.Open(certificates.Options{Dir: dir, Copies: filepath.Join(b.TempDir(), "copies"), Group: -1})
	require.NoError(b, err)
	s.Read(time.Now())
	for b.Loop() {
		s.Read(time.Now())
	}
}

func TestARenewedCertificateKeepsItsFile(t *testing.T) {
	s := open(t)
	ca := certificatestest.NewAuthority(t, "test")
	first, second := ca.Issue(t, long, "a.test"), ca.Issue(t, long, "a.test")
	first.Write(t, s.dir, "a")
	before := s.Read(time.Now())

	certificatestest.Write(t, s.dir, "a.crt", second.Chain) // the key is still the old one
	half := s.Read(time.Now())
	assert.Equal(t, []string{"a: a.crt with a.key: its key belongs to another certificate; the former certificate, which is valid until " +
		before.Certificates[0].NotAfter.Format("2006-01-02 15:04 UTC") + ", stays in use"}, messages(half))
	assert.Equal(t, first.Serial(t), s.serials(half)["a"])

	second.Write(t, s.dir, "a")
	after := s.Read(time.Now())
	assert.Empty(t, messages(after))
	assert.Equal(t, second.Serial(t), s.serials(after)["a"])
	assert.Equal(t, before.Hosts, after.Hosts, "nginx needs no other configuration")
}

func TestABadCertificateNeverReplacesAGoodOne(t *testing.T) {
	ca := certificatestest.NewAuthority(t, "test")
	other := certificatestest.NewAuthority(t, "other")
	intermediate := ca.Intermediate(t, "intermediate")
	good, good2 := ca.Issue(t, long, "a.test"), ca.Issue(t, long, "a.test")
	below := intermediate.Issue(t, long, "a.test")
	expired := ca.Issue(t, -time.Minute, "a.test")
	future := ca.IssueFrom(t, time.Now().Add(time.Hour), long, "a.test")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.test"}, NotAfter: time.Now().Add(long)}
	weakCertificate, err := x509.CreateCertificate(rand.Reader, template, template, &weak.PublicKey, weak)
	require.NoError(t, err)
	weakText := slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: weakCertificate}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)}))
	block, _ := pem.Decode(good.Key)
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: block.Bytes})

	for name, c := range map[string]struct {
		crt, key []byte
		want     string
	}{
		"an empty file":                {[]byte{}, good.Key, "it has no certificate"},
		"no PEM":                       {[]byte("hello"), good.Key, "it has no certificate"},
		"a broken certificate":         {[]byte("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"), good.Key, "certificate 1 of its chain can't be read"},
		"the key of another":           {good2.Chain, good.Key, "its key belongs to another certificate"},
		"two keys":                     {slices.Concat(good.Chain, good.Key), good.Key, "it has 2 keys"},
		"no key":                       {good.Chain, nil, "it has 0 keys"},
		"a key with a passphrase":      {good.Chain, encrypted, "its key has a passphrase"},
		"the wrong order":              {slices.Concat(intermediate.PEM, below.Chain), below.Key, "certificate 2 of its chain belongs to the key, want that one first"},
		"a chain that does not follow": {slices.Concat(good.Chain, other.PEM), good.Key, `certificate 1 of its chain is not from certificate 2 ("CN=other")`},
		"an RSA key of 1024 bits":      {weakText, nil, "has an RSA key of 1024 bits, want 2048 or more"},
		"an expired one":               {expired.Chain, expired.Key, "the new certificate: it expired at "},
		"one that is not valid yet":    {future.Chain, future.Key, "the new certificate: it is not valid before "},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			good.Write(t, s.dir, "a")
			require.Empty(t, messages(s.Read(time.Now())))
			certificatestest.Write(t, s.dir, "a.crt", c.crt)
			if c.key == nil {
				require.NoError(t, os.Remove(filepath.Join(s.dir, "a.key")))
			} else {
				certificatestest.Write(t, s.dir, "a.key", c.key)
			}
			check := func() {
				t.Helper()
				set := s.Read(time.Now())
				require.Len(t, set.Problems, 1)
				assert.Equal(t, "a", set.Problems[0].Name)
				assert.Contains(t, set.Problems[0].Message, c.want)
				assert.Contains(t, set.Problems[0].Message, "the former certificate, which is valid until")
				assert.Equal(t, good.Serial(t), s.serials(set)["a"])
			}
			check()
			s.reopen()
			check()
			below.Write(t, s.dir, "a")
			set := s.Read(time.Now())
			assert.Empty(t, messages(set))
			assert.Equal(t, below.Serial(t), s.serials(set)["a"])
		})
	}
}

func TestExpiryIsToldTwoWeeksBefore(t *testing.T) {
	s := open(t)
	ca := certificatestest.NewAuthority(t, "test")
	p := ca.Issue(t, long, "a.test")
	p.Write(t, s.dir, "a")
	set := s.Read(time.Now())
	assert.Empty(t, messages(set))
	end := set.Certificates[0].NotAfter
	assert.Empty(t, messages(s.Read(end.Add(-certificates.WarnBefore-time.Second))))
	at := end.Format("2006-01-02 15:04 UTC")
	assert.Equal(t, []string{"a: it expires at " + at + ", which is in less than two weeks"}, messages(s.Read(end.Add(-certificates.WarnBefore+time.Second))))
	set = s.Read(end.Add(time.Second))
	assert.Equal(t, []string{"a: it expired at " + at + ", want a new one"}, messages(set))
	assert.NotEmpty(t, set.Default, "without a better one it stays")

	wider := ca.Issue(t, long+time.Hour, "a.test", "b.test")
	wider.Write(t, s.dir, "b")
	set = s.Read(end.Add(time.Second))
	assert.Equal(t, filepath.Join(s.copies, "b.pem"), set.Hosts[0].File, "a valid one goes before an expired one")
}

func TestARemovedCertificateIsGivenUp(t *testing.T) {
	s := open(t)
	ca := certificatestest.NewAuthority(t, "test")
	a, b := ca.Issue(t, long, "a.test"), ca.Issue(t, long, "b.test")
	a.Write(t, s.dir, "a")
	b.Write(t, s.dir, "b")
	now := time.Now()
	require.Len(t, s.Read(now).Certificates, 2)
	remove := func(names ...string) {
		for _, name := range names {
			require.NoError(t, os.Remove(filepath.Join(s.dir, name)))
		}
	}
	remove("b.crt", "b.key")
	assert.Len(t, s.Read(now.Add(time.Second)).Certificates, 2, "it may be on its way back")
	b.Write(t, s.dir, "b")
	assert.Len(t, s.Read(now.Add(time.Minute)).Certificates, 2)
	remove("b.crt", "b.key")
	s.Read(now.Add(2 * time.Minute))
	set := s.Read(now.Add(2*time.Minute + 6*time.Second))
	assert.Len(t, set.Certificates, 1)
	assert.Empty(t, messages(set))
	assert.FileExists(t, filepath.Join(s.copies, "b.pem"), "nginx may still read it")
	s.reopen()
	assert.Len(t, s.Read(now.Add(2*time.Minute+7*time.Second)).Certificates, 1, "a restart does not bring it back")
	s.Read(now.Add(2 * time.Hour))
	assert.NoFileExists(t, filepath.Join(s.copies, "b.pem"))

	remove("a.crt", "a.key")
	s.Read(now.Add(3 * time.Hour))
	set = s.Read(now.Add(4 * time.Hour))
	assert.Len(t, set.Certificates, 1, "the last one stays")
	assert.Contains(t, messages(set)[0], "has no certificate any more; the former ones stay in use")
	require.NoError(t, os.Remove(s.dir))
	set = s.Read(now.Add(5 * time.Hour))
	assert.Len(t, set.Certificates, 1)
	assert.Contains(t, messages(set)[0], "can't be read")
	s.reopen()
	assert.Len(t, s.Read(now.Add(5*time.Hour)).Certificates, 1)
}

func TestRemovedClientAuthorities(t *testing.T) {
	s := open(t)
	ca := certificatestest.NewAuthority(t, "test")
	ca.Issue(t, long, "a.test").Write(t, s.dir, "a")
	file := filepath.Join(s.dir, "default.client-ca-optional.pem")
	require.NoError(t, os.WriteFile(file, ca.PEM, 0o600))
	now := time.Now()
	require.NotNil(t, s.Read(now).ClientsOf("a.test"))

	require.NoError(t, os.Remove(file))
	assert.NotNil(t, s.Read(now).ClientsOf("a.test"), "it may be on its way back")
	s.reopen()
	assert.NotNil(t, s.Read(now).ClientsOf("a.test"), "also over a restart")
	set := s.Read(now.Add(6 * time.Second))
	assert.Nil(t, set.ClientsOf("a.test"))
	assert.Empty(t, set.Problems)
	s.reopen()
	assert.Nil(t, s.Read(now.Add(7*time.Second)).ClientsOf("a.test"), "a restart does not bring it back")

	require.NoError(t, os.WriteFile(file, ca.PEM, 0o600))
	require.NotNil(t, s.Read(now).ClientsOf("a.test"))
	for _, name := range []string{file, filepath.Join(s.dir, "a.crt"), filepath.Join(s.dir, "a.key")} {
		require.NoError(t, os.Remove(name))
	}
	s.Read(now)
	assert.NotNil(t, s.Read(now.Add(time.Hour)).ClientsOf("a.test"), "a directory that has lost everything lets nobody in")
}

func TestClientAuthorities(t *testing.T) {
	s := open(t)
	ca, other := certificatestest.NewAuthority(t, "test"), certificatestest.NewAuthority(t, "other")
	ca.Issue(t, long, "a.test").Write(t, s.dir, "a")
	certificatestest.Write(t, s.dir, "API.test.client-ca.pem", ca.PEM)
	certificatestest.Write(t, s.dir, "*.wild.test.client-ca-optional.pem", slices.Concat(ca.PEM, other.PEM))
	set := s.Read(time.Now())
	require.Empty(t, messages(set))
	assert.Equal(t, &certificates.Clients{Host: "api.test", Authorities: ca.PEM}, set.ClientsOf("api.test"))
	assert.Equal(t, &certificates.Clients{Host: "*.wild.test", Optional: true, Authorities: slices.Concat(ca.PEM, other.PEM)}, set.ClientsOf("x.y.wild.test"))
	assert.Nil(t, set.ClientsOf("other.test"))

	certificatestest.Write(t, s.dir, "api.test.client-ca.pem", nil)
	require.NoError(t, os.Remove(filepath.Join(s.dir, "API.test.client-ca.pem")))
	s.reopen()
	set = s.Read(time.Now())
	assert.Equal(t, []string{"api.test: api.test.client-ca.pem: it has no certificate of an authority, want one in PEM (BEGIN CERTIFICATE); the former authorities stay in use"}, messages(set))
	assert.Equal(t, ca.PEM, set.ClientsOf("api.test").Authorities)

	certificatestest.Write(t, s.dir, "default.client-ca.pem", []byte("nothing"))
	set = s.Read(time.Now())
	assert.Equal(t, &certificates.Clients{}, set.ClientsOf("other.test"), "nobody is let in")
	assert.Contains(t, messages(set)[1], "no client of this host is let in")

	certificatestest.Write(t, s.dir, "default.client-ca.pem", other.PEM)
	certificatestest.Write(t, s.dir, "default.client-ca-optional.pem", other.PEM)
	set = s.Read(time.Now())
	assert.False(t, set.ClientsOf("other.test").Optional)
	assert.Contains(t, messages(set)[1], "there are files with both extensions")

	for file, want := range map[string]string{
		"not a host.client-ca.pem": `"not a host" is no host name`,
		"x.client-ca.crt":          `authorities for clients are in a file "x.client-ca.pem"`,
		"-x.crt":                   `want a name of letters, digits`,
	} {
		s := open(t)
		certificatestest.Write(t, s.dir, file, ca.PEM)
		set := s.Read(time.Now())
		assert.Contains(t, messages(set)[1], want)
	}
}
