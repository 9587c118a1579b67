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
