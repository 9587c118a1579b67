package controller

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

func TestChanges(t *testing.T) {
	type es []endpoints.Entry
	moved := entry("hello", 2)
	moved.Instances[0].Weight = 5
	elsewhere := entry("hello", 2)
	elsewhere.Instances[1].Port++
	released := entry("hello", 2)
	released.Instances[1].Version = "2"
	grown := entry("hello", 3)
	grown.Instances[0].Weight = 5
	grown.Routes = nil
	grown.Default = true
	routed := entry("hello", 2)
	routed.Routes = nil
	routed.Default = true
	held := entry("hello", 1)
	held.Held = entry("hello", 2).Instances[1:]
	unserved := entry("hello", 2)
	unserved.Protocol = ""
	tests := []struct {
		name          string
		before, after es
		want          string
	}{
		{"more instances", es{entry("hello", 1)}, es{entry("hello", 5)}, "hello +4"},
		{"several services", es{entry("api", 2), entry("hello", 1)}, es{entry("api", 1), entry("hello", 5)}, "api -1, hello +4"},
		{"a new service and a removed one", es{entry("a", 1)}, es{entry("b", 2)}, "service a gone -1, new service b +2"},
		{"a service without instances", nil, es{entry("a", 0)}, "new service a"},
		{"another weight", es{entry("hello", 2)}, es{moved}, "hello 1 with a new weight"},
		{"another address", es{entry("hello", 2)}, es{elsewhere}, "hello 1 at a new address"},
		{"another version", es{entry("hello", 2)}, es{released}, "hello 1 with a new version"},
		{"another weight, and more instances and routes", es{entry("api", 1), entry("hello", 2)}, es{entry("api", 2), grown},
			"api +1, hello +1, 1 with a new weight, routes"},
		{"another route", es{entry("hello", 2)}, es{routed}, "hello routes"},
		{"held instances are in rotation", es{entry("hello", 2)}, es{held}, noChange},
		{"a service that can't be served counts as removed", es{entry("hello", 2)}, es{unserved}, "service hello gone -2"},
		{"equal entries", es{entry("hello", 2)}, es{entry("hello", 2)}, noChange},
		{"many services", nil, es{entry("a", 1), entry("b", 1), entry("c", 1), entry("d", 1), entry("e", 1), entry("f", 1)},
			"new service a +1, new service b +1, new service c +1, new service d +1, and 2 services more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, changes(tt.before, tt.after))
		})
	}
}

// After a rollback the entries of the generation are not known, only how many there were.
func TestChangeFromAGenerationOnDisk(t *testing.T) {
	l := &loop{latest: &render.Configuration{Entries: []endpoints.Entry{entry("hello", 2)}}}
	assert.Equal(t, "1 service, 2 instances", l.change())
	l.current = nginx.Generation{Number: 1, Note: nginx.Note{Services: 1, Instances: 1}}
	assert.Equal(t, "1 service, 2 instances; before: 1 service, 1 instance", l.change())
	l.current.Instances = 2
	assert.Equal(t, noChange, l.change())
}
