package outlier

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy/policytest"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// bench is a table with a service, and a detector of its outliers.
type bench struct {
	t        *testing.T
	table    *endpoints.Table
	detector *Detector
	service  endpoints.Service
	now      time.Time
	dns      []string // the addresses of db.example
}

// newBench has n instances at 10.0.0.1:80 and so on.
func newBench(t *testing.T, protocol endpoints.Protocol, n int, policy ...string) *bench {
	t.Helper()
	table, err := endpoints.Open("", endpoints.Options{})
	require.NoError(t, err)
	b := &bench{t: t, table: table, now: noon, dns: []string{"10.0.9.1", "fd00::0009"}}
	b.detector = New(table, func(host string) []string {
		if host == "db.example" {
			return b.dns
		}
		return nil
	})
	b.service = endpoints.Service{Name: "web", OK: true, Spec: endpoints.Spec{Protocol: protocol, Default: true, Policy: policytest.Settings(policy...)}}
	for i := range n {
		b.service.Instances = append(b.service.Instances, endpoints.Instance{
			ID: fmt.Sprintf("web-%d", i+1), Node: "n", Address: fmt.Sprintf("10.0.0.%d", i+1), Port: 80, Weight: 1, Status: endpoints.Passing,
		})
	}
	b.pass(0)
	return b
}

// pass lets time pass, as Run does in steps of a second.
func (b *bench) pass(d time.Duration) {
	for end := b.now.Add(d); ; b.now = b.now.Add(time.Second) {
		b.observe()
		b.detector.sweep(b.now)
		if !b.now.Before(end) {
			break
		}
	}
	b.observe()
}

func (b *bench) observe() { b.table.Observe(b.now, []endpoints.Service{b.service}) }

// take takes n requests with these tries: "10.0.0.1:80=503".
func (b *bench) take(n int, grpc int, tries ...string) {
	for range n {
		b.now = b.now.Add(time.Millisecond)
		r := &accesslog.Record{Time: b.now, Service: []byte("web"), Status: 200, GRPCStatus: grpc}
		for _, try := range tries {
			address, status, _ := strings.Cut(try, "=")
			var t accesslog.Try
			t.Address = []byte(address)
			fmt.Sscan(status, &t.Status)
			if strings.HasSuffix(status, "!") || t.Status == 0 {
				t.Header = -1
			}
			r.Tries = append(r.Tries, t)
		}
		b.detector.take(b.now, r)
	}
	b.observe()
}

// out returns the ejected instances with the reasons; those that are kept in rotation in
// parentheses.
func (b *bench) out() []string {
	var all []string
	for _, x := range b.table.Entries()[0].Ejections {
		text := x.ID + ": " + x.Reason
		if x.Kept {
			text = "(" + text + ")"
		}
		all = append(all, text)
	}
	return all
}

func (b *bench) rotation() string {
	var all []string
	for _, i := range b.table.Entries()[0].Rotation() {
		all = append(all, strings.TrimPrefix(i.ID, "web-"))
	}
	return strings.Join(all, " ")
}

func TestConsecutiveErrors(t *testing.T) {
	b := newBench(t, endpoints.HTTP, 3, "outlier.consecutive-errors", "3")
	b.take(2, -1, "10.0.0.2:80=503")
	b.take(1, -1, "10.0.0.2:80=200")
	b.take(2, -1, "10.0.0.2:80=503")
	assert.Empty(t, b.out(), "never three in a row")
	b.take(1, -1, "10.0.0.2:80=502!")
	assert.Equal(t, []string{"web-2: 3 of the last 3 calls failed: 503, no answer"}, b.out())
	assert.Equal(t, "1 3", b.rotation())
	x := b.table.Entries()[0].Ejections[0]
	assert.Equal(t, endpoints.ByOutlier, x.By)
	assert.Equal(t, 30*time.Second, x.Until.Sub(x.Since))
	b.take(9, -1, "10.0.0.2:80=503") // calls that were in flight
	b.pass(29 * time.Second)
	assert.Equal(t, "1 3", b.rotation())
	b.pass(3 * time.Second)
	assert.Equal(t, "1 2 3", b.rotation())
	b.take(2, -1, "10.0.0.2:80=503")
	assert.Empty(t, b.out(), "it begins anew")
}

func TestTheErrorRate(t *testing.T) {
	b := newBench(t, endpoints.HTTP, 3, "outlier.error-rate", "50", "outlier.min-requests", "10")
	for range 4 {
		b.take(1, -1, "10.0.0.1:80=500")
		b.take(1, -1, "10.0.0.1:80=200")
	}
	b.take(1, -1, "10.0.0.1:80=500")
	assert.Empty(t, b.out(), "9 answers are not enough")
	b.take(1, -1, "10.0.0.1:80=504!")
	assert.Equal(t, []string{"web-1: 6 of the last 10 calls failed: 500, no answer in time"}, b.out())

	b = newBench(t, endpoints.HTTP, 3, "outlier.error-rate", "50", "outlier.min-requests", "10")
	for range 8 { // 2 errors of 4 in each interval
		b.take(2, -1, "10.0.0.1:80=500")
		b.take(2, -1, "10.0.0.1:80=200")
		b.pass(11 * time.Second)
	}
	assert.Empty(t, b.out(), "too few answers within the interval")
	for range 50 {
		b.take(1, -1, "10.0.0.1:80=500")
		b.take(2, -1, "10.0.0.1:80=200")
	}
	assert.Empty(t, b.out(), "a third are errors")
}

func TestEachTryCountsForItsInstance(t *testing.T) {
	b := newBench(t, endpoints.HTTP, 3, "outlier.consecutive-errors", "3")
	b.take(3, -1, "10.0.0.1:80=502!", "10.0.0.2:80=200")
	assert.Equal(t, []string{"web-1: 3 of the last 3 calls failed: no answer"}, b.out())
}

func TestWhatCounts(t *testing.T) {
	for _, tt := range []struct {
		name     string
		protocol endpoints.Protocol
		grpc     int
		try      string
		want     string // "": success, "-": nothing
	}{
		{"an answer", endpoints.HTTP, -1, "200", ""},
		{"a client's mistake", endpoints.HTTP, -1, "404", ""},
		{"too many requests", endpoints.HTTP, -1, "429", ""},
		{"not implemented", endpoints.HTTP, -1, "501", ""},
		{"an instance that failed", endpoints.HTTP, -1, "500", "500"},
		{"an instance's own gateway error", endpoints.HTTP, -1, "502", "502"},
		{"an unusual status", endpoints.HTTP, -1, "599", "599"},
		{"not reached", endpoints.HTTP, -1, "502!", "no answer"},
		{"too slow for nginx", endpoints.HTTP, -1, "504!", "no answer in time"},
		{"a client that left", endpoints.HTTP, -1, "0!", "-"},
		{"grpc-status over HTTP means nothing", endpoints.HTTP, 14, "200", ""},
		{"OK", endpoints.GRPC, 0, "200", ""},
		{"a client's mistake over gRPC", endpoints.GRPC, 5, "200", ""},
		{"UNIMPLEMENTED", endpoints.GRPC, 12, "200", ""},
		{"DEADLINE_EXCEEDED", endpoints.GRPC, 4, "200", ""},
		{"RESOURCE_EXHAUSTED", endpoints.GRPC, 8, "200", ""},
		{"an unknown status", endpoints.GRPC, 99, "200", ""},
		{"UNKNOWN", endpoints.GRPC, 2, "200", "UNKNOWN"},
		{"INTERNAL", endpoints.GRPCS, 13, "200", "INTERNAL"},
		{"UNAVAILABLE", endpoints.GRPC, 14, "200", "UNAVAILABLE"},
		{"DATA_LOSS", endpoints.GRPC, 15, "200", "DATA_LOSS"},
		{"a proxy in front of the instance", endpoints.GRPC, -1, "503", "503"},
		{"a call without an end", endpoints.GRPC, -1, "200", "-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.protocol, 2, "outlier.consecutive-errors", "3")
			failed := "503"
			b.take(2, -1, "10.0.0.1:80="+failed)
			b.take(1, tt.grpc, "10.0.0.1:80="+tt.try)
			switch tt.want {
			case "":
				b.take(2, -1, "10.0.0.1:80="+failed)
				assert.Empty(t, b.out())
				b.take(1, -1, "10.0.0.1:80="+failed)
				assert.Len(t, b.out(), 1, "it is still judged")
			case "-":
				assert.Empty(t, b.out())
				b.take(1, -1, "10.0.0.1:80="+failed)
				assert.Equal(t, []string{"web-1: 3 of the last 3 calls failed: 503"}, b.out())
			default:
				want := "503, " + tt.want
				if tt.want == failed {
					want = failed
				}
				assert.Equal(t, []string{"web-1: 3 of the last 3 calls failed: " + want}, b.out())
			}
		})
	}
}

// A client with a short deadline ejects nobody, whichever side ends the call.
func TestTheClientsDeadlineCountsForNobody(t *testing.T) {
	b := newBench(t, endpoints.GRPC, 2, "outlier.consecutive-errors", "2")
	for _, status := range []int{502, 200, 504} {
		r := &accesslog.Record{
			Time: noon.Add(time.Second), Service: []byte("web"), GRPCStatus: 14, Took: 48 * time.Millisecond, Timeout: 50 * time.Millisecond,
			Tries: []accesslog.Try{{Address: []byte("10.0.0.1:80"), Status: status}},
		}
		b.detector.take(b.now, r)
		b.detector.take(b.now, r)
	}
	b.observe()
	assert.Empty(t, b.out())
}

func TestEachEjectionIsLonger(t *testing.T) {
	b := newBench(t, endpoints.HTTP, 3, "outlier.consecutive-errors", "1",
		"outlier.base-ejection-time", "10s", "outlier.max-ejection-time", "25s", "outlier.interval", "10s")
	lasts := func() time.Duration {
		b.take(1, -1, "10.0.0.1:80=503")
		x := b.table.Entries()[0].Ejections[0]
		d := x.Until.Sub(x.Since)
		b.pass(d + time.Second)
		require.Empty(t, b.out())
		return d
	}
	assert.Equal(t, 10*time.Second, lasts())
	assert.Equal(t, 20*time.Second, lasts())
	assert.Equal(t, 25*time.Second, lasts(), "at most max-ejection-time")
	assert.Equal(t, 25*time.Second, lasts())
	b.pass(time.Minute) // it is good again
	assert.Equal(t, 10*time.Second, lasts())

	b = newBench(t, endpoints.HTTP, 3, "outlier.consecutive-errors", "1", "outlier.base-ejection-time", "1h", "outlier.max-ejection-time", "1s")
	assert.Equal(t, time.Hour, lasts(), "at least base-ejection-time")
}

func TestNothingIsEmptied(t *testing.T) {
	for _, tt := range []struct {
		name      string
		instances int
		policy    []string
		want      int // left in rotation
	}{
		{"a tenth of ten", 10, nil, 9},
		{"one of three is more than a tenth, and one is always possible", 3, nil, 2},
		{"one of two", 2, []string{"outlier.max-ejection-percent", "100"}, 1},
		{"the only one stays", 1, []string{"outlier.max-ejection-percent", "100"}, 1},
		{"a third of nine", 9, []string{"outlier.max-ejection-percent", "34"}, 6},
		{"never more than --max-ejected", 10, []string{"outlier.max-ejection-percent", "100"}, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, endpoints.HTTP, tt.instances, append(tt.policy, "outlier.consecutive-errors", "5")...)
			for n := range tt.instances {
				b.take(5, -1, fmt.Sprintf("10.0.0.%d:80=503", n+1))
			}
			assert.Len(t, strings.Fields(b.rotation()), tt.want)
			assert.Len(t, b.out(), tt.instances, "all have a reason")
			kept := slices.DeleteFunc(b.out(), func(s string) bool { return s[0] != '(' })
			assert.Len(t, kept, tt.want)
		})
	}
}

// An instance that can't be reached is worse than one whose answers are errors.
func TestAProbeTakesPrecedence(t *testing.T) {
	b := newBench(t, endpoints.HTTP, 2, "outlier.consecutive-errors", "5")
	b.take(5, -1, "10.0.0.1:80=503")
	assert.Equal(t, "2", b.rotation())
	b.table.Eject("web", "10.0.0.2:80", endpoints.Ejection{Node: "n", ID: "web-2", By: endpoints.ByProbe, Reason: "connection refused", Since: b.now})
	b.observe()
	assert.Equal(t, "1", b.rotation())

	// Both eject the same one: it returns when both have readmitted it.
	b.table.Eject("web", "10.0.0.1:80", endpoints.Ejection{Node: "n", ID: "web-1", By: endpoints.ByProbe, Reason: "connection refused", Since: b.now})
	b.table.Readmit("web", "n", "web-2", endpoints.ByProbe)
	b.observe()
	assert.Equal(t, []string{"web-1: connection refused"}, b.out())
	b.table.Readmit("web", "n", "web-1", endpoints.ByProbe)
	b.observe()
	assert.Equal(t, []string{"web-1: 5 of the last 5 calls failed: 503"}, b.out())
	b.pass(31 * time.Second)
	assert.Equal(t, "1 2", b.rotation())
}

func TestThePolicyMayChange(t *testing.T) {
	b := newBench(t, endpoints.HTTP, 2)
	b.take(9, -1, "10.0.0.1:80=503")
	assert.Empty(t, b.out(), "off")
	b.service.Policy = policytest.Settings("outlier.consecutive-errors", "5")
	b.pass(time.Second)
	b.take(5, -1, "10.0.0.1:80=503")
	assert.Len(t, b.out(), 1)
	b.service.Policy = policytest.Settings()
	b.pass(time.Second)
	assert.Empty(t, b.out())
	assert.Empty(t, b.detector.services)
}

func TestInstancesComeAndGo(t *testing.T) {
	b := newBench(t, endpoints.HTTP, 3, "outlier.consecutive-errors", "3")
	b.take(2, -1, "10.0.0.1:80=503")
	b.service.Instances = append([]endpoints.Instance{}, b.service.Instances...)
	b.service.Instances[0].Status = endpoints.Critical
	b.pass(time.Second)
	b.service.Instances = append([]endpoints.Instance{}, b.service.Instances...)
	b.service.Instances[0].Status = endpoints.Passing
	b.pass(time.Second)
	b.take(2, -1, "10.0.0.1:80=503")
	assert.Empty(t, b.out(), "it begins anew")
	b.take(3, -1, "10.0.0.9:80=503", "http-web=502!", "127.0.0.1:0=502!", "unix:/x=502!")
	assert.Empty(t, b.out(), "none of these is an instance")

	b.service.Instances = append([]endpoints.Instance{}, b.service.Instances...)
	b.service.Instances[0].Address = "db.example"
	b.service.Instances[1].Address = "FD00:0::2"
	b.pass(time.Second)
	b.take(2, -1, "10.0.9.1:80=503")
	b.take(1, -1, "[fd00::9]:80=503")
	assert.Equal(t, []string{"web-1: 3 of the last 3 calls failed: 503"}, b.out(), "nginx knows it by its addresses")
	b.take(3, -1, "[fd00::2]:80=503")
	assert.Len(t, b.out(), 2)

	b.pass(time.Minute)
	require.Empty(t, b.out())
	b.dns = []string{"10.0.9.2"}
	b.pass(time.Second)
	b.take(3, -1, "10.0.9.2:80=503")
	assert.Len(t, b.out(), 1, "the name has another address now")
}

func TestAnswersOfBeforeTheReturnDoNotCount(t *testing.T) {
	b := newBench(t, endpoints.HTTP, 2, "outlier.consecutive-errors", "1")
	b.take(1, -1, "10.0.0.1:80=503")
	before := b.now
	b.pass(31 * time.Second)
	require.Empty(t, b.out())
	b.detector.take(b.now, &accesslog.Record{Time: before, Service: []byte("web"), Tries: []accesslog.Try{{Address: []byte("10.0.0.1:80"), Status: 503}}})
	b.observe()
	assert.Empty(t, b.out())
}

func TestCausesAreBounded(t *testing.T) {
	var c causes
	for n := range 20 {
		c.add(fmt.Sprint(500 + n%7))
	}
	assert.Equal(t, "502, 503, 504, 505", c.String())
	c.add("503")
	assert.Equal(t, "502, 504, 505, 503", c.String())
}

func BenchmarkTake(b *testing.B) {
	table, err := endpoints.Open("", endpoints.Options{})
	require.NoError(b, err)
	d := New(table, nil)
	s := endpoints.Service{Name: "web", OK: true, Spec: endpoints.Spec{Protocol: endpoints.HTTP, Default: true, Policy: policytest.Settings("outlier.consecutive-errors", "5")}}
	s.Instances = []endpoints.Instance{{ID: "web-1", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1, Status: endpoints.Passing}}
	table.Observe(noon, []endpoints.Service{s})
	d.sweep(noon)
	r := &accesslog.Record{Time: noon.Add(time.Hour), Service: []byte("web"), Status: 200, GRPCStatus: -1, Tries: []accesslog.Try{{Address: []byte("10.0.0.1:80"), Status: 200}}}
	b.ReportAllocs()
	for b.Loop() {
		d.take(noon, r)
	}
}
