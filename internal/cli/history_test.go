package cli

import (
	"testing"

	"github.com/stretchr/testify/assert"

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
