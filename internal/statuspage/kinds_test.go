package statuspage

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/history"
)

func TestThePageHasWordsForEachKindOfEvent(t *testing.T) {
	script, err := files.ReadFile("page/80-changes.js")
	require.NoError(t, err)
	for _, kind := range history.Kinds() {
		assert.Regexp(t, `\b`+string(kind)+`: \['`, string(script))
		if kind.NamesServices() {
			assert.Regexp(t, `OF_SERVICES = \[[^]]*'`+string(kind)+`'`, string(script))
		}
	}
}
