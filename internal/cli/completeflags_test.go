package cli

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFlagCompletion: a shell offers the names of files only where a file is wanted.
func TestFlagCompletion(t *testing.T) {
	const files, nothing, dirs = ":0\n", ":4\n", ":16\n"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"policy", "apply", "-f", ""}, files},
		{[]string{"policy", "apply", "--file=pol"}, files},
		{[]string{"policy", "apply", ""}, nothing},
		{[]string{"policy", "apply", "--wait", ""}, nothing},
		{[]string{"policy", "schema", ""}, nothing},
		{[]string{"deny", "--file", ""}, files},
		{[]string{"deny", ""}, nothing},
		{[]string{"history", ""}, nothing},
		{[]string{"certificate", "create", "--out", ""}, dirs},
		{[]string{"run", "--templates", ""}, dirs},
		{[]string{"run", "--nginx", ""}, files},
		{[]string{"run", "--workers", ""}, nothing},
		{[]string{"run", "--log-level", ""}, "debug\ninfo\nwarn\nerror\n" + nothing},
		{[]string{"run", "--endpoints", ""}, "auto\ndns\nreload\n" + nothing},
		{[]string{"run", "--probe", ""}, "on\noff\n" + nothing},
		{[]string{"status", "-o", ""}, "text\njson\nyaml\n" + nothing},
	} {
		got := command(t.Context(), Terminal{}, nil, append([]string{"__complete"}, tt.args...)...)
		require.Equal(t, exitOK, got.code, got.err)
		assert.Equal(t, tt.want, got.out, tt.args)
	}
}

func TestServiceAndKeyCompletion(t *testing.T) {
	o := newOperator(t)
	complete := func(args ...string) string {
		got := command(t.Context(), Terminal{}, nil, append([]string{"__complete"}, args...)...)
		require.Equal(t, exitOK, got.code, got.err)
		return got.out
	}
	assert.Equal(t, "cart\nconsul\nstock\n:4\n", complete("deny", "10.0.0.0/8", "--service", ""))
	assert.Equal(t, "cart,consul\ncart,stock\n:4\n", complete("key", "create", "shop", "--services", "cart,"))

	require.Equal(t, exitOK, command(t.Context(), Terminal{}, nil, "key", "create", "shop", "--services", "cart").code)
	assert.Equal(t, "shop\tfor cart\n:36\n", complete("key", "revoke", ""))
	assert.Equal(t, ":36\n", complete("key", "revoke", "shop", ""))
	o.consul.Stop()
	assert.Equal(t, ":4\n", complete("deny", "10.0.0.0/8", "--service", ""))
}
