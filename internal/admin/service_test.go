package admin

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
)

func TestReasonsNameNoOthersWhereThereAreNone(t *testing.T) {
	instance := func(id string, status endpoints.Status) endpoints.Instance {
		return endpoints.Instance{ID: id, Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1, Status: status}
	}
	entry := func(instances ...endpoints.Instance) endpoints.Entry {
		return endpoints.Entry{
			Service:   endpoints.Service{Name: "web", Spec: endpoints.Spec{Protocol: endpoints.HTTP, Default: true}, OK: true, Instances: instances},
			Panicking: true,
		}
	}
	unreachable := func(e endpoints.Entry) endpoints.Entry {
		e.Ejections = []endpoints.Ejection{{Node: "n", ID: "a", By: endpoints.ByProbe, Reason: "connection refused", Kept: true}}
		return e
	}
	tests := []struct {
		name  string
		entry endpoints.Entry
		want  string
	}{
		{"the only instance is critical", entry(instance("a", endpoints.Critical)),
			"gets traffic though a check is critical, because no other instance can serve"},
		{"the other one is in maintenance", entry(instance("a", endpoints.Critical), instance("b", endpoints.Maintenance)),
			"gets traffic though a check is critical, because no other instance can serve"},
		{"both are critical", entry(instance("a", endpoints.Critical), instance("b", endpoints.Critical)),
			"gets traffic though a check is critical, because too few others pass"},
		{"the only instance can't be reached", unreachable(entry(instance("a", endpoints.Passing))),
			"stays in rotation, because no other instance can serve: connection refused"},
		{"another one is left", unreachable(entry(instance("a", endpoints.Passing), instance("b", endpoints.Passing))),
			"stays in rotation, because too few others are left: connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, serviceOf(tt.entry, controller.Pinned{}).Instances[0].Reason)
		})
	}
}
