package cli

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/history"
)

func TestHistoryNamesEjectedInstancesFirst(t *testing.T) {
	event := history.Event{Kind: history.Ejected, Change: "hello: hello-1 on n", Reason: "no answer in time"}
	assert.Equal(t, "hello: hello-1 on n (no answer in time)", changeText(event))
}

func TestHistoryNamesInstancesThatLeft(t *testing.T) {
	event := history.Event{Kind: history.Moved, Change: "hello -1", Left: []history.Departure{{Service: "hello", ID: "hello-2", Node: "n", Reason: "in maintenance"}}}
	assert.Equal(t, "hello -1 (hello-2 on n: in maintenance)", changeText(event))
	event = history.Event{Kind: history.Applied, Reason: "Consul or a template changed", Change: "hello -1", Left: event.Left}
	assert.Equal(t, "hello -1 (hello-2 on n: in maintenance)", changeText(event))
}

func TestEachKindOfEventHasWords(t *testing.T) {
	manual, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	_, manual, _ = bytes.Cut(manual, []byte("\n## history\n"))
	manual, _, _ = bytes.Cut(manual, []byte("\n## "))
	for _, kind := range history.Kinds() {
		word, _ := kindText(kind)
		assert.NotContains(t, word, "_", kind)
		assert.Contains(t, string(manual), "`"+string(kind)+"`")
		assert.Contains(t, string(manual), word, "the table's word")
		_, words := history.Event{Kind: kind}.Words()
		assert.NotEmpty(t, words, kind)
	}
}
