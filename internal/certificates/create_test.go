package certificates_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/certificates"
)

func TestCreate(t *testing.T) {
	s := open(t)
	own := certificates.Own{Dir: s.dir, Name: "localhost", Hosts: []string{"LocalHost", "*.lb.test", "127.0.0.1", "::1"}, Valid: 20 * 24 * time.Hour}
	_, ok := own.Current()
	assert.False(t, ok)
	made, err := own.Create(false)
	require.NoError(t, err)
	assert.Equal(t, []string{"*.lb.test", "localhost"}, made.Hosts)
	info, err := os.Stat(own.KeyFile())
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	set := s.Read(time.Now())
	assert.Empty(t, messages(set))
	assert.Equal(t, made.NotAfter, set.Certificates[0].NotAfter)

	_, err = own.Create(false)
	require.ErrorIs(t, err, certificates.ErrExists)
	current, ok := own.Current()
	assert.True(t, ok)
	assert.Equal(t, made, current)
	own.Hosts = append(own.Hosts, "other.test")
	_, ok = own.Current()
	assert.False(t, ok, "it has not all hosts")
	own.Valid = 13 * 24 * time.Hour
	_, err = own.Create(true)
	require.NoError(t, err)
	_, ok = own.Current()
	assert.False(t, ok, "it will expire soon")

	_, err = certificates.Own{Dir: s.dir, Name: "../x", Hosts: []string{"a b", "ok.test"}, Valid: time.Hour}.Create(true)
	assert.ErrorContains(t, err, `name "../x", want letters`)
	assert.ErrorContains(t, err, `host name "a b", want one like`)
	_, err = certificates.Own{Dir: s.dir, Name: "x"}.Create(true)
	assert.ErrorContains(t, err, "no host name, want one or more")
}
