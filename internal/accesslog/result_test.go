package accesslog

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// parsed is the record of a request with these tries: the values of $upstream_addr and so on.
func parsed(t *testing.T, status, own, grpcStatus, completion, addresses, statuses, connects, headers string) *Record {
	t.Helper()
	r := &Record{GRPCStatus: -1, Completed: completion == "OK"}
	var err error
	r.Status, err = strconv.Atoi(status)
	require.NoError(t, err)
	require.True(t, isNone([]byte(own)) || parseStatus(&r.OwnError, []byte(own)))
	parseGRPCStatus(r, []byte(grpcStatus))
	require.True(t, parseAddresses(r, []byte(addresses)) && parseStatuses(r, []byte(statuses)) &&
		parseTimes(func(t *Try) *time.Duration { return &t.Connect })(r, []byte(connects)) &&
		parseTimes(func(t *Try) *time.Duration { return &t.Header })(r, []byte(headers)))
	return r
}

// expired lets a request take as long as its client waits.
func expired(r *Record) *Record {
	r.Timeout, r.Took = time.Second, time.Second
	return r
}

func TestResultAndReason(t *testing.T) {
	for _, test := range []struct {
		name        string
		record      *Record
		grpc        bool
		maintenance bool
		results     []string
		reason      string
	}{
		{"an answer", parsed(t, "200", "-", "-", "OK", "10.0.0.1:80", "200", "0.001", "0.002"), false, false, []string{"success"}, ""},
		{"an error of the instance", parsed(t, "503", "-", "-", "OK", "10.0.0.1:80", "503", "0.001", "0.002"), false, false, []string{"5xx"}, ""},
		{"a status of the instance", parsed(t, "404", "-", "-", "OK", "10.0.0.1:80", "404", "0.001", "0.002"), false, false, []string{"success"}, ""},
		{"a second try after a refused connection", parsed(t, "200", "-", "-", "OK", "10.0.0.1:80, 10.0.0.2:80", "502, 200", "-, 0.001", "-, 0.002"), false, false, []string{"connect", "success"}, ""},
		{"a second try after a timeout", parsed(t, "200", "-", "-", "OK", "10.0.0.1:80, 10.0.0.2:80", "504, 200", "0.001, 0.001", "-, 0.002"), false, false, []string{"timeout", "success"}, ""},
		{"a second try after a status", parsed(t, "200", "-", "-", "OK", "10.0.0.1:80, 10.0.0.2:80", "429, 200", "0.001, 0.001", "0.001, 0.002"), false, false, []string{"4xx", "success"}, ""},
		{"broken off in the answer", parsed(t, "200", "-", "-", "-", "10.0.0.1:80", "200", "0.001", "0.002"), false, false, []string{"cancelled"}, ""},
		{"broken off before the answer", parsed(t, "502", "502", "-", "OK", "10.0.0.1:80", "502", "0.001", "-"), false, false, []string{"reset"}, "no-answer"},
		{"unreachable", parsed(t, "502", "502", "-", "OK", "10.0.0.1:80", "502", "-", "-"), false, false, []string{"connect"}, "unreachable"},
		{"no connection in time", parsed(t, "504", "504", "-", "OK", "10.0.0.1:80", "504", "-", "-"), false, false, []string{"connect"}, "connect-timeout"},
		{"no answer in time", parsed(t, "504", "504", "-", "OK", "10.0.0.1:80", "504", "0.001", "-"), false, false, []string{"timeout"}, "timeout"},
		{"the sentinel", parsed(t, "503", "502", "-", "OK", "127.0.0.1:0", "502", "-", "-"), false, false, []string{"no-instance"}, "no-instance"},
		{"all busy", parsed(t, "503", "502", "-", "OK", "http_web", "502", "-", "-"), false, false, []string{"busy"}, "max-conns"},
		{"in maintenance", parsed(t, "503", "503", "-", "OK", "-", "-", "-", "-"), false, true, nil, "maintenance"},
		{"no instance in a location", parsed(t, "503", "503", "-", "OK", "-", "-", "-", "-"), false, false, nil, "no-instance"},
		{"no route", parsed(t, "404", "404", "-", "OK", "-", "-", "-", "-"), false, false, nil, "no-route"},
		{"the client left early", parsed(t, "499", "499", "-", "-", "-", "-", "-", "-"), false, false, nil, "client-left"},
		{"the client left the try", parsed(t, "499", "-", "-", "-", "10.0.0.1:80", "-", "0.001", "-"), true, false, []string{"cancelled"}, "client-left"},
		{"nobody can say who calls", parsed(t, "503", "500", "-", "OK", "-", "-", "-", "-"), false, false, nil, "auth-unavailable"},
		{"nobody can say who calls by gRPC", parsed(t, "200", "500", "14", "OK", "-", "-", "-", "-"), true, false, nil, "auth-unavailable"},
		{"nginx failed", parsed(t, "500", "500", "-", "OK", "-", "-", "-", "-"), false, false, nil, "internal"},
		{"an unknown own error", parsed(t, "418", "418", "-", "OK", "-", "-", "-", "-"), false, false, nil, "internal"},

		{"a gRPC call", parsed(t, "200", "-", "0", "OK", "10.0.0.1:80", "200", "0.001", "0.002"), true, false, []string{"success"}, ""},
		{"a gRPC error of the server", parsed(t, "200", "-", "14", "OK", "10.0.0.1:80", "200", "0.001", "0.002"), true, false, []string{"UNAVAILABLE"}, ""},
		{"a gRPC status that is the client's fault", parsed(t, "200", "-", "5", "OK", "10.0.0.1:80", "200", "0.001", "0.002"), true, false, []string{"success"}, ""},
		{"a gRPC call without an end", parsed(t, "200", "-", "-", "-", "10.0.0.1:80", "200", "0.001", "0.002"), true, false, []string{"cancelled"}, ""},
		{"a gRPC answer without a status", parsed(t, "200", "-", "-", "OK", "10.0.0.1:80", "200", "0.001", "0.002"), true, false, []string{"UNKNOWN"}, ""},
		{"no answer of gRPC", parsed(t, "404", "-", "-", "OK", "10.0.0.1:80", "404", "0.001", "0.002"), true, false, []string{"4xx"}, ""},
		{"a gRPC call at its deadline", expired(parsed(t, "499", "-", "-", "-", "10.0.0.1:80", "-", "0.001", "-")), true, false, []string{"timeout"}, "client-left"},
		{"a gRPC call that the server breaks off at its deadline", expired(parsed(t, "200", "502", "14", "OK", "10.0.0.1:80", "502", "0.001", "-")), true, false, []string{"timeout"}, "no-answer"},
		{"a gRPC call without a connection until its deadline", expired(parsed(t, "200", "502", "14", "OK", "10.0.0.1:80", "502", "-", "-")), true, false, []string{"connect"}, "unreachable"},
		{"a gRPC stream at its deadline", expired(parsed(t, "200", "-", "-", "-", "10.0.0.1:80", "200", "0.001", "0.002")), true, false, []string{"timeout"}, ""},
		{"a gRPC call that nginx answers", parsed(t, "200", "502", "14", "OK", "10.0.0.1:80", "502", "-", "-"), true, false, []string{"connect"}, "unreachable"},
		{"denied", parsed(t, "200", "403", "7", "OK", "-", "-", "-", "-"), true, false, nil, "denied"},
		{"no client certificate", parsed(t, "403", "496", "-", "OK", "-", "-", "-", "-"), false, false, nil, "client-certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var results []string
			for n := range test.record.Tries {
				results = append(results, test.record.Result(n, test.grpc))
			}
			assert.Equal(t, test.results, results)
			assert.Equal(t, test.reason, test.record.OwnReason(test.maintenance))
			if test.reason != "" {
				assert.Contains(t, Reasons(), test.reason)
			}
		})
	}
}

func TestGRPCStatusName(t *testing.T) {
	assert.Equal(t, "OK", GRPCStatusName(0))
	assert.Equal(t, "UNAUTHENTICATED", GRPCStatusName(16))
	assert.Equal(t, "OTHER", GRPCStatusName(17))
	assert.Empty(t, GRPCStatusName(-1))
	assert.Len(t, GRPCStatusNames(), 17)
	assert.Equal(t, 4, expired(&Record{GRPCStatus: -1}).ClientGRPCStatus())
	assert.Equal(t, 0, expired(&Record{GRPCStatus: 0}).ClientGRPCStatus())
	assert.Equal(t, 4, expired(&Record{GRPCStatus: 14, OwnError: 502}).ClientGRPCStatus(), "it came too late")
	assert.Equal(t, 14, (&Record{GRPCStatus: 14, OwnError: 502}).ClientGRPCStatus())
	assert.Equal(t, -1, (&Record{GRPCStatus: -1}).ClientGRPCStatus())
	for _, reason := range ownReasons {
		assert.Contains(t, Reasons(), reason)
	}
}
