package controller

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
	"lbctl/internal/history"
)

func TestDepartures(t *testing.T) {
	type es []endpoints.Entry
	stopped := entry("hello", 2)
	stopped.Instances[1].Status = endpoints.Maintenance
	stopped.CheckOutputs = []endpoints.CheckOutput{{Node: stopped.Instances[1].Node, ID: stopped.Instances[1].ID, Text: "new disk", Maintenance: true}}
	failing := entry("hello", 2)
	failing.Instances[0].Status = endpoints.Critical
	ejected := entry("hello", 2)
	ejected.Ejections = []endpoints.Ejection{{Node: ejected.Instances[1].Node, ID: ejected.Instances[1].ID, By: endpoints.ByProbe, Reason: "connection refused"}}
	unserved := entry("hello", 1)
	unserved.Routes, unserved.Default, unserved.Port = nil, false, 0
	tests := []struct {
		name          string
		before, after es
		want          []string
	}{
		{"one that is no longer registered", es{entry("hello", 2)}, es{entry("hello", 1)}, []string{"hello: hello-1 on n: no longer in Consul"}},
		{"one in maintenance", es{entry("hello", 2)}, es{stopped}, []string{"hello: hello-1 on n: in maintenance: new disk"}},
		{"one whose check fails", es{entry("hello", 2)}, es{failing}, []string{"hello: hello-0 on n: a check is critical"}},
		{"one that is ejected", es{entry("hello", 2)}, es{ejected}, []string{"hello: hello-1 on n: ejected: connection refused"}},
		{"a service that is gone, between others", es{entry("a", 1), entry("b", 1), entry("c", 1)}, es{entry("a", 2), entry("bb", 1), entry("c", 1)},
			[]string{"b: b-0 on n: its service is no longer in Consul, or asks no longer to be balanced"}},
		{"a service that has lost its routes", es{entry("hello", 1)}, es{unserved}, []string{"hello: hello-0 on n: the service has no route"}},
		{"one that did not get traffic before", es{stopped}, es{entry("hello", 1)}, nil},
		{"new ones", es{entry("hello", 1)}, es{entry("hello", 3)}, nil},
		{"nothing known before", nil, es{entry("hello", 3)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, d := range departures(tt.before, tt.after) {
				got = append(got, d.Service+": "+d.String())
			}
			assert.Equal(t, tt.want, got)
		})
	}
	many := departures(es{entry("a", 10), entry("b", 30)}, nil)
	assert.Len(t, many, history.MaxLeft)
	assert.Equal(t, 4, strings.Count(history.Event{Left: many}.LeftText(), " on "), "it names a few")
	assert.Contains(t, history.Event{Left: many}.LeftText(), "; and others")
}
