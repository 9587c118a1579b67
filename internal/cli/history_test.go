package cli

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/controller"
)

func TestHistoryNamesEjectedInstancesFirst(t *testing.T) {
	event := controller.Event{Kind: controller.Ejected, Change: "hello: hello-1 on n", Reason: "no answer in time"}
	assert.Equal(t, "hello: hello-1 on n (no answer in time)", changeText(event))
}
