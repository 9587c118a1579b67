package nginx

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAtLeast(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		have, want string
		is         bool
	}{
		{"1.30.6", "1.25.1", true},
		{"1.25.1", "1.25.1", true},
		{"1.25.0", "1.25.1", false},
		{"1.22.1", "1.25.1", false},
		{"1.9.15", "1.10.0", false},
		{"2.0.0", "1.30.6", true},
	} {
		is, err := AtLeast(c.have, c.want)
		require.NoError(t, err)
		assert.Equal(t, c.is, is, "%s at least %s", c.have, c.want)
	}
	for _, c := range [][2]string{{"1.30.6", "1.30"}, {"", "1.30.6"}, {"1.30.6", "new"}} {
		_, err := AtLeast(c[0], c[1])
		assert.ErrorContains(t, err, `want three numbers like "1.25.1"`)
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain/word-1.2:*":  "plain/word-1.2:*",
		"":                  `""`,
		`unix:/a b/"c"\d;}`: `"unix:/a b/\"c\"\\d;}"`,
	} {
		got, err := Quote(text)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for text, want := range map[string]string{
		"a$b":  `want text without "$", which starts a variable in nginx and can't be escaped`,
		"a\nb": "want text without control characters",
	} {
		_, err := Quote(text)
		assert.ErrorContains(t, err, want)
	}
}

// A path with a "$" would go into generation.conf, where it can't be quoted.
func TestDirectoriesThatCannotBeQuoted(t *testing.T) {
	t.Parallel()
	_, err := New(Options{StateDir: t.TempDir() + "/a$b", RunDir: t.TempDir()})
	assert.ErrorContains(t, err, `state directory: quote`)
	_, err = New(Options{StateDir: t.TempDir(), RunDir: t.TempDir() + "/a$b"})
	assert.ErrorContains(t, err, `run directory: quote`)
}
