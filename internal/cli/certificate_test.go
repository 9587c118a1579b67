package cli

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCertificateCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	create := func(args ...string) result {
		return command(t.Context(), Terminal{}, nil, append([]string{"certificate", "create", "--out", dir}, args...)...)
	}
	made := create("localhost", "127.0.0.1")
	require.Equal(t, exitOK, made.code, made.err)
	day := time.Now().Add(365 * 24 * time.Hour).UTC().Format(time.DateOnly)
	assert.Equal(t, filepath.Join(dir, "localhost.crt")+" and "+filepath.Join(dir, "localhost.key")+": written, for localhost, 127.0.0.1 until "+day+"\n", made.out)

	again := create("localhost")
	assert.Equal(t, exitFailure, again.code)
	assert.Contains(t, again.err, "localhost.crt exists already; --replace replaces it")
	assert.Contains(t, create("--if-needed", "localhost").out, ": still valid, for localhost until "+day)
	assert.Contains(t, create("--if-needed", "localhost", "other.test").out, ": written, for localhost, other.test until ")

	var document struct {
		Created         bool
		Name            string
		Hosts           []string
		CertificateFile string `json:"certificate_file"`
	}
	programs := create("--replace", "--name", "mine", "*.lb.test", "-o", "json")
	require.NoError(t, json.Unmarshal([]byte(programs.out), &document))
	assert.True(t, document.Created)
	assert.Equal(t, []string{"*.lb.test"}, document.Hosts)
	assert.FileExists(t, document.CertificateFile)
}
