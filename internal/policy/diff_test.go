package policy

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDiff(t *testing.T) {
	before, err := ParseDocument([]byte(`{"timeout.read":"1s","check":"grpc","paths":{"/a":{"timeout.read":"2s"},"/b":{"timeout.send":"1s"}}}`))
	require.NoError(t, err)
	after, err := ParseDocument([]byte(`{"check":"none","timeout.connect":"1s","timeout.read":"1000ms","paths":{"/a":{"timeout.read":"default"},"=/a":{"timeout.send":"1s"}}}`))
	require.NoError(t, err)
	assert.Equal(t, []Difference{
		{Field: "check", Before: "grpc", After: "none"},
		{Field: "timeout.connect", After: "1s"},
		{Path: "/a", Field: "timeout.read", Before: "2s", After: "default"},
		{Path: "/b", Field: "timeout.send", Before: "1s"},
		{Path: "=/a", Field: "timeout.send", After: "1s"},
	}, Diff(before, after), "the same value in another form is no difference")
	assert.Empty(t, Diff(after, after))
}
