package endpoints

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/policy"
)

// reading returns a document that sets timeout.read.
func reading(t *testing.T, timeout string) policy.Document {
	t.Helper()
	var d policy.Document
	require.NoError(t, d.Set("timeout.read", timeout))
	return d
}

// under returns a service with a document as the operator's policy for all services.
func under(s Service, d policy.Document) Service {
	s.Policy = s.Policy.Replace(policy.Layer{Level: policy.LevelDefault, Source: "lb/default", Document: d})
	return s
}

func TestARefusedDefaultPolicy(t *testing.T) {
	good, bad := reading(t, "1s"), reading(t, "2s")
	path := filepath.Join(t.TempDir(), "endpoints.json")
	tb := open(t, path)
	// counts is the document with the index 2 at a time.
	counts := func(at time.Time) (policy.Document, string) {
		counts, refused := tb.DefaultPolicy(at, 2, bad)
		if refused == nil {
			return counts, ""
		}
		return counts, refused.Why
	}
	observe := func(at time.Time, d policy.Document) []Entry {
		return tb.Observe(at, []Service{under(service("api", "a"), d), under(service("web", "x"), d)})
	}
	assert.True(t, tb.AcceptedDefaultPolicy().IsZero())
	tb.NginxAccepted(observe(noon, good))
	got, why := counts(noon)
	assert.Equal(t, bad, got)
	assert.Empty(t, why)
	observe(noon, got)
	assert.Equal(t, good, tb.AcceptedDefaultPolicy())

	assert.True(t, tb.RefuseDefaultPolicy(noon, 2, "nginx -t: no"))
	assert.Len(t, tb.Changed(), 1)
	assert.False(t, tb.RefuseDefaultPolicy(noon, 2, "nginx -t: no"), "the configuration is from before the refusal")
	assert.Zero(t, tb.NextDeadline(), "nobody has asked yet")
	got, why = counts(noon)
	assert.Equal(t, good, got)
	assert.Equal(t, "nginx -t: no", why)
	assert.Equal(t, noon.Add(retrySame), tb.NextDeadline())
	tb.NginxAccepted(observe(noon, got))
	got, _ = counts(noon.Add(retrySame - 1))
	assert.Equal(t, good, got, "what nginx accepts without the refused version doesn't count for it")

	t.Run("it is tried again after pauses that double", func(t *testing.T) {
		at := noon.Add(retrySame)
		got, why := counts(at)
		assert.Equal(t, bad, got)
		assert.Equal(t, "nginx -t: no", why, "it is still refused")
		assert.Zero(t, tb.NextDeadline())
		assert.False(t, tb.RefuseDefaultPolicy(at, 2, "nginx -t: no, still"))
		got, why = counts(at)
		assert.Equal(t, good, got)
		assert.Equal(t, "nginx -t: no, still", why)
		assert.Equal(t, at.Add(2*retrySame), tb.NextDeadline())
	})
	t.Run("the next lbctl knows it", func(t *testing.T) {
		require.NoError(t, tb.Save())
		tb = open(t, path)
		assert.Zero(t, tb.NextDeadline(), "nobody has asked yet")
		got, why := counts(time.Now())
		assert.Equal(t, good, got)
		assert.Equal(t, "nginx -t: no, still", why)
	})
	t.Run("a mended cause is found out at once", func(t *testing.T) {
		now := time.Now()
		tb.RetryRefused()
		got, why := counts(now)
		assert.Equal(t, bad, got)
		assert.NotEmpty(t, why)
		entries := observe(now, good)
		tb.NginxAccepted(entries)
		_, why = counts(now)
		assert.NotEmpty(t, why, "nginx accepted another version")
		tb.NginxAccepted(observe(now, bad))
		got, why = counts(now)
		assert.Equal(t, bad, got)
		assert.Empty(t, why)
	})
	t.Run("a newer version is tried at once", func(t *testing.T) {
		tb.RefuseDefaultPolicy(noon, 2, "nginx -t: no")
		_, why := counts(noon)
		require.NotEmpty(t, why)
		got, refused := tb.DefaultPolicy(noon, 3, bad)
		assert.Equal(t, bad, got)
		assert.Nil(t, refused)
	})
	t.Run("a document that is gone is not refused", func(t *testing.T) {
		tb.RefuseDefaultPolicy(noon, 2, "nginx -t: no")
		tb.ForgetDefaultPolicy()
		_, why := counts(noon)
		assert.Empty(t, why)
	})
	t.Run("services in quarantine may have an older document", func(t *testing.T) {
		tb := table(t)
		observe := func(v string, d policy.Document) []Entry {
			return tb.Observe(noon, []Service{under(version(service("api", "a"), v), d), under(service("web", "x"), d)})
		}
		tb.NginxAccepted(observe("1", bad))
		for range 2 { // the second time it has to wait
			tb.Refuse(noon, find(t, observe("2", good), "api"), Refusal{Reason: "no such version"})
		}
		entries := observe("2", good)
		require.True(t, find(t, entries, "api").Refused)
		tb.NginxAccepted(entries)
		assert.Equal(t, good, tb.AcceptedDefaultPolicy())
	})
}

func TestASuspectAsNginxAcceptedIt(t *testing.T) {
	good, bad := reading(t, "1s"), reading(t, "2s")
	tb := table(t)
	tb.NginxAccepted(tb.Observe(noon, []Service{under(version(service("api", "a"), "1"), good)}))
	suspects := tb.Suspects(tb.Observe(noon, []Service{under(version(service("api", "a", "b"), "2"), bad)}))
	require.Len(t, suspects, 1)
	e := suspects[0].AsAccepted(policy.Layer{Level: policy.LevelDefault, Source: "lb/default", Document: bad})
	assert.Equal(t, "api[a]", rotation([]Entry{e}))
	assert.Equal(t, "1", e.Rotation()[0].Version)
	assert.Equal(t, bad, e.Policy.Layer(policy.LevelDefault))
	assert.Equal(t, good, suspects[0].Last.Policy.Layer(policy.LevelDefault), "it is a copy")
}
