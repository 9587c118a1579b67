package consul

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
)

func TestARefusedPolicyForAllServicesKeepsItsLastGoodVersion(t *testing.T) {
	table, err := endpoints.Open("", endpoints.Options{})
	require.NoError(t, err)
	p := policies{prefix: "lb/", table: table}
	answer := func(index uint64, text string) {
		p.update(documents{prefix: "lb/", index: index, all: []Document{{Key: "lb/default", Value: []byte(text), Index: index}}})
	}
	// observe returns timeout.read of a service that says nothing: "0ms" if no policy does.
	observe := func() string {
		s := endpoints.Service{Name: "cart", Spec: endpoints.Spec{Protocol: endpoints.GRPC}, OK: true}
		s.Policy = p.of(s)
		entries := table.Observe(time.Now(), []endpoints.Service{s})
		if p.refused == nil {
			table.NginxAccepted(entries)
		}
		return s.Policy.General().Timeout.Read.String()
	}
	refuse := func(index uint64) {
		table.RefuseDefaultPolicy(time.Now(), index, "nginx -t: no")
		assert.True(t, p.reconsiderDefault(time.Now()))
		assert.False(t, p.reconsiderDefault(time.Now()), "it is the same again")
	}
	kept := []Problem{{Key: "lb/default", Message: "lb/default: it is refused: nginx -t: no; its last good version is kept"}}

	answer(1, `{"timeout.read": "2s"}`)
	refuse(1)
	assert.Equal(t, []Problem{{Key: "lb/default", Message: "lb/default: it is refused: nginx -t: no; it is left out, because there is no earlier good version"}}, p.refused)
	assert.Equal(t, "0ms", observe())

	answer(2, `{"timeout.read": "1s"}`)
	assert.Empty(t, p.refused)
	assert.Equal(t, "1s", observe())

	answer(3, `{"timeout.read": "3s"}`)
	refuse(3)
	assert.Equal(t, "1s", observe())
	assert.Equal(t, kept, p.refused)
	answer(3, `{"timeout.read": "3s"}`) // another document has changed
	assert.Equal(t, "1s", observe())
	assert.Equal(t, kept, p.refused)

	// While it is tried again, it is not good yet.
	table.RetryRefused()
	assert.True(t, p.reconsiderDefault(time.Now()))
	assert.Equal(t, "3s", observe())
	assert.Equal(t, kept, p.refused)
	refuse(3)

	answer(4, `{"timeout.read": "4x"}`)
	assert.Equal(t, "1s", observe(), "the version before was not good")
	assert.Empty(t, p.refused)
	require.Len(t, p.problems, 1)
	assert.Contains(t, p.problems[0].Message, `timeout.read "4x", want a duration`)
	assert.Contains(t, p.problems[0].Message, "its last good version is kept")

	answer(5, `{"timeout.read": "5s"}`)
	refuse(5)
	assert.Equal(t, kept, p.refused)
	p.update(documents{prefix: "lb/", index: 6})
	assert.Empty(t, p.refused)
	assert.Equal(t, "0ms", observe())
	assert.Zero(t, table.NextDeadline())
}
