package cli

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// TestAccessWait has a real daemon and nginx.
func TestAccessWait(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		r := startDaemon(t, binary)
		r.register("one")
		require.Eventually(t, func() bool { return r.served() == "one" }, patience, often)
		done := func(what string, args ...string) {
			t.Helper()
			got := r.lbctl(append(args, "--wait", "30s")...)
			require.Equal(t, exitOK, got.code, got.err)
			assert.Regexp(t, `(^|\n)done: `+what+`\n$`, got.err, args)
		}
		done(servingRules, "deny", "203.0.113.7", "198.51.100.0/24")
		assert.Contains(t, nginxFile(t, r, "networks.geo"), "203.0.113.7/32 all;")
		done(servingRules, "allow", "203.0.113.7")
		assert.NotContains(t, nginxFile(t, r, "networks.geo"), "203.0.113.7")
		done(servingRules, "allow", "198.51.100.0/24")
		got := r.lbctl("allow", "203.0.113.7", "--wait", "30s")
		assert.Equal(t, exitOK, got.code, got.err)
		assert.Empty(t, got.err, "there is nothing to wait for")
		done(knowingKeys, "key", "create", "shop")
		written := r.status().Access.Index
		done(knowingKeys, "key", "revoke", "shop")
		assert.Greater(t, r.status().Access.Index, written)

		require.Equal(t, exitOK, r.lbctl("rollback").code)
		done(knowingKeys, "key", "create", "web") // keys need no generation
		got = r.lbctl("deny", "203.0.113.7", "--kv-prefix", "other", "--wait", "30s")
		assert.Equal(t, exitProblem, got.code)
		assert.Contains(t, got.err, `below "other-access/" in Consul, but the daemon follows what is below "lb-access/"`)
		got = r.lbctl("deny", "203.0.113.8", "--wait", "30s")
		assert.Equal(t, exitProblem, got.code)
		assert.Contains(t, got.err, "the rules are written, but a generation is pinned")
		got = r.lbctl("deny", "203.0.113.9", "--wait", "10ms", "--run-dir", shortDir(t))
		assert.Equal(t, exitUnreachable, got.code)
		assert.Equal(t, "203.0.113.9 is denied for every service.\n", got.out, "it is written")
	})
}
