package requestlog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/history"
)

func TestFilter(t *testing.T) {
	statuses := func(given string) []StatusRange {
		all, err := ParseStatuses(given)
		require.NoError(t, err)
		return all
	}
	grpc := func(given string) []string {
		all, err := ParseGRPCStatuses(given)
		require.NoError(t, err)
		return all
	}
	client := func(given string) Filter {
		network, err := ParseClient(given)
		require.NoError(t, err)
		return Filter{Client: network}
	}
	l := newLog(t, Options{Events: func() []history.Event {
		return []history.Event{
			{Time: noon, Kind: history.Applied, Change: "web +1"},
			{Time: noon, Kind: history.Moved, Change: "web-2 -1, shop +1", Left: []history.Departure{{Service: "web-2", ID: "web-2-1", Node: "n"}}},
			{Time: noon, Kind: history.Ejected, Change: "web: web-1 on node"},
		}
	}})
	names := []string{"an answer", "a second try", "no route", "a gRPC call", "a gRPC call that the client broke off", "no instance"}
	for n, name := range names {
		r := *records[name]
		r.Time = noon.Add(time.Duration(n) * time.Second)
		l.Take(&r)
	}
	for _, test := range []struct {
		name   string
		filter Filter
		want   []int // of names
		events int
	}{
		{"everything", Filter{}, []int{0, 1, 2, 3, 4, 5}, 3},
		{"a service", Filter{Service: "web"}, []int{0, 1, 5}, 2},
		{"an instance of any try", Filter{Instance: "web-2"}, []int{1}, 1},
		{"an instance by its address", Filter{Instance: "10.0.1.1:80"}, []int{3}, 0},
		{"an address that the table does not know", Filter{Instance: "10.0.9.9:80"}, []int{4}, 0},
		{"a route", Filter{Route: "web/api"}, []int{0, 1, 3, 4, 5}, 0},
		{"statuses", Filter{Statuses: statuses("404,500-503")}, []int{2, 5}, 0},
		{"a class of statuses", Filter{Statuses: statuses("4xx")}, []int{2, 4}, 0},
		{"a gRPC status", Filter{GRPCStatuses: grpc("unavailable")}, []int{3}, 0},
		{"gRPC's errors", Filter{GRPCStatuses: grpc("OK,error")}, []int{3}, 0},
		{"slow", Filter{SlowerThan: 12 * time.Millisecond}, []int{3}, 0},
		{"a trace", Filter{Trace: "4bf9"}, []int{0, 1, 3, 5}, 0},
		{"a request id", Filter{RequestID: "b9c0e1"}, []int{0, 1, 3, 4, 5}, 0},
		{"a network", client("192.0.2.0/24"), []int{0, 1, 2, 3, 4, 5}, 0},
		{"an address", client("192.0.2.8"), nil, 0},
		{"since", Filter{Since: noon.Add(4 * time.Second)}, []int{4, 5}, 0},
		{"requests", Filter{Type: TypeRequest}, []int{0, 1, 2, 3, 4, 5}, 0},
		{"events", Filter{Type: TypeEvent}, nil, 3},
		{"events of a service", Filter{Type: TypeEvent, Service: "web-2"}, nil, 1},
		{"all together", Filter{Service: "web", Instance: "web-1", Statuses: statuses("2xx"), SlowerThan: time.Millisecond}, []int{0, 1}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			again, err := parseFilter(test.filter.Values())
			require.NoError(t, err)
			require.Equal(t, test.filter, again, "as the parameters of a URL")
			events := 0
			var got []int
			for _, line := range lines(t, l, again, 100) {
				if line.Event != nil {
					events++
					continue
				}
				got = append(got, int(line.Time.Sub(noon)/time.Second))
			}
			assert.Equal(t, test.want, got)
			assert.Equal(t, test.events, events)
		})
	}
}

func TestFilterOfAMistake(t *testing.T) {
	for _, given := range []string{"", "6xx", "99", "600", "503-500", "5x", "200,", "a-b", "-"} {
		_, err := ParseStatuses(given)
		assert.ErrorContains(t, err, "5xx", given)
	}
	for _, given := range []string{"", "OKAY", "OK,", "14", "ok, error"} {
		_, err := ParseGRPCStatuses(given)
		assert.ErrorContains(t, err, "UNAVAILABLE", given)
	}
	for _, given := range []string{"", "10.0.0", "10.0.0.0/33", "localhost", "fe80::1%eth0"} {
		_, err := ParseClient(given)
		assert.ErrorContains(t, err, "10.0.0.0/8", given)
	}
	for name, given := range map[string]string{
		paramStatus: "6xx", paramGRPCStatus: "?", paramClient: "?", paramSlowerThan: "-1", paramSince: "10m", paramType: "?",
	} {
		_, err := parseFilter(map[string][]string{name: {given}})
		assert.ErrorContains(t, err, name+` "`+given+`"`)
	}
}
