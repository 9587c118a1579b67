package accesslog

import (
	"bytes"
	"cmp"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// values has the values of some of nginx's variables, "" for "-".
type values map[string]string

// line returns a line. What values lacks has a common value, or none.
func line(of values) []byte {
	common := values{"$msec": "1700000000.123", "$request_time": "0.005", "$status": "200", "$request_length": "100", "$bytes_sent": "200", "$remote_addr": "10.0.0.9"}
	texts := make([]string, len(fields))
	for n, f := range fields {
		value, given := of[f.text]
		switch {
		case f.text == version:
			texts[n] = cmp.Or(of["version"], version)
		case given:
			texts[n] = cmp.Or(value, "-")
		default:
			texts[n] = cmp.Or(common[f.text], "-")
		}
	}
	return []byte(strings.Join(texts, "\t"))
}

// tries returns the values of the tries of a request.
func tries(service, addresses, statuses, headers string) values {
	connects := strings.ReplaceAll(headers, "0.004", "0.001")
	return values{
		"$lb_service": service, "$upstream_addr": addresses, "$upstream_status": statuses,
		"$upstream_connect_time": connects, "$upstream_header_time": headers, "$upstream_response_time": headers,
	}
}

// with returns the values with others.
func (v values) with(others values) values {
	all := maps.Clone(v)
	maps.Copy(all, others)
	return all
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name   string
		values values
		want   string
	}{
		{"an answer over HTTP", tries("web", "10.0.0.1:80", "200", "0.001"), "web 200 grpc -1 10.0.0.1:80=200"},
		{"a gRPC call with a trailer", tries("cart", "[fd00::1]:80", "200", "0.001").with(values{"$sent_trailer_grpc_status": "0"}),
			"cart 200 grpc 0 [fd00::1]:80=200"},
		{"a gRPC answer without a message", tries("cart", "10.0.0.1:80", "200", "0.001").with(values{"$sent_http_grpc_status": "14"}),
			"cart 200 grpc 14 10.0.0.1:80=200"},
		{"a second try", tries("web", "10.0.0.1:80, 10.0.0.2:80", "502, 200", "-, 0.004"),
			"web 200 grpc -1 10.0.0.1:80=502 unanswered 10.0.0.2:80=200"},
		{"a request that moved to another location", tries("web", "10.0.0.1:80 : 10.0.0.2:80", "404 : 200", "0.001 : 0.004"),
			"web 200 grpc -1 10.0.0.1:80=404 10.0.0.2:80=200"},
		{"a client that did not wait", tries("web", "10.0.0.1:80", "-", "-").with(values{"$status": "499"}),
			"web 499 grpc -1 10.0.0.1:80=0 unanswered"},
		{"no instance could be tried", tries("web", "http_web", "502", "-").with(values{"$status": "502", "$lb_own_error": "502"}),
			"web 502 own 502 grpc -1 http_web=502 unanswered"},
		{"nginx answered itself", values{"$status": "404"}, " 404 own 404 grpc -1"},
		{"nginx answered a gRPC call itself", values{"$lb_service": "cart", "$lb_own_error": "429", "$sent_http_grpc_status": "8"},
			"cart 200 own 429 grpc 8"},
		{"an instance's grpc-status that is no number",
			tries("cart", "10.0.0.1:80", "200", "0.001").with(values{"$sent_trailer_grpc_status": `1\x0A4`}),
			"cart 200 grpc -1 10.0.0.1:80=200"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r Record
			require.True(t, r.parse(line(test.values)))
			assert.Equal(t, test.want, r.String())
			assert.Equal(t, int64(1700000000123), r.Time.UnixMilli())
		})
	}
}

func TestParseRefusesWhatIsNoLine(t *testing.T) {
	good := line(tries("web", "10.0.0.1:80", "200", "0.001"))
	var r Record
	require.True(t, r.parse(good))
	for cut := range good { // a line that nginx could not complete, and the next one
		torn := append(append([]byte{}, good[:cut]...), good...)
		assert.False(t, cut > 0 && r.parse(torn), "%q", torn)
		if cut <= bytes.LastIndexByte(good, '\t') { // the last field can be empty
			assert.False(t, r.parse(good[:cut]), "%q", good[:cut])
		}
	}
	for _, bad := range [][]byte{
		line(tries("web", "10.0.0.1:80", "200", "0.001").with(values{"version": "1"})),
		line(tries("web", "10.0.0.1:80", "200", "0.001").with(values{"$msec": "1700000000"})),
		line(tries("web", "10.0.0.1:80", "200", "0.001").with(values{"$status": "2000"})),
		line(tries("web", "10.0.0.1:80", "200", "0.001").with(values{"$request_length": "1x"})),
		line(tries("web", "10.0.0.1:80", "200", "0.001").with(values{"$upstream_status": "200, 200"})),
		line(tries("web", "10.0.0.1:80", "200", "0.001").with(values{"$upstream_addr": "10.0.0.1:80, 10.0.0.2:80"})),
		line(tries("web", "10.0.0.1:80", "200", "0.001").with(values{"$upstream_addr": "-"})),
		line(tries("web", "10.0.0.1:80", "200", "0.001").with(values{"$upstream_status": "20x"})),
		line(tries("web", "10.0.0.1:80", "200", "0.001").with(values{"$upstream_connect_time": "1"})),
		append(line(tries("web", "10.0.0.1:80", "200", "0.001")), "\t-"...),
		[]byte(""),
	} {
		assert.False(t, r.parse(bad), "%q", bad)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(line(tries("web", "10.0.0.1:80, 10.0.0.2:80", "502, 200", "-, 0.004").with(values{"$lb_route": `*/\x22`})))
	f.Add(line(tries("web", "10.0.0.1:80 : ", "502 : ", "- :")))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if !r.parse(b) {
			return
		}
		for _, try := range r.Tries {
			if try.Status < 0 || try.Status > 999 {
				t.Errorf("status %d of %q", try.Status, b)
			}
		}
	})
}

func TestParseAllocatesNothing(t *testing.T) {
	text := line(tries("web", "10.0.0.1:80, 10.0.0.2:80", "502, 200", "-, 0.004").with(values{"$lb_route": `web.example.com/\\x22a`}))
	var r Record
	require.True(t, r.parse(text))
	assert.Zero(t, testing.AllocsPerRun(100, func() { r.parse(text) }))
}

func BenchmarkParse(b *testing.B) {
	text := line(tries("hello_server", "10.0.0.1:7777", "200", "0.001").with(values{
		"$lb_route": "*/hello.Greeter/", "$lb_log_method": "POST", "$lb_scheme": "http", "$server_protocol": "HTTP/2.0", "$lb_log_host": "localhost", "$lb_log_path": "/hello.Greeter/SayHello",
		"$sent_trailer_grpc_status": "0", "$request_completion": "OK", "$lb_request_id": "0123456789abcdef0123456789abcdef",
	}))
	var r Record
	for b.Loop() {
		r.parse(text)
	}
}

func TestParseTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"300m": 300 * time.Millisecond, "1S": time.Second, "2M": 2 * time.Minute, "3H": 3 * time.Hour, "99999999u": 99999999 * time.Microsecond, "5n": 5,
		"-": 0, "": 0, "m": 0, "1": 0, "1x": 0, "-1S": 0, "999999999S": 0, "99999999H": 0, "1.5S": 0,
	} {
		var r Record
		require.True(t, r.parse(line(values{"$lb_service": "cart", "$http_grpc_timeout": text})))
		assert.Equal(t, want, r.Timeout, text)
		assert.Equal(t, 5*time.Millisecond, r.Took)
	}
}

func TestParseHTTPVersion(t *testing.T) {
	for text, want := range map[string]string{"HTTP/0.9": "0.9", "HTTP/1.0": "1.0", "HTTP/1.1": "1.1", "HTTP/2.0": "2", "HTTP/3.0": "3", "-": "", "garbage": ""} {
		var r Record
		require.True(t, r.parse(line(values{"$server_protocol": text})))
		assert.Equal(t, want, string(r.HTTPVersion), text)
	}
}

func TestParseTexts(t *testing.T) {
	var r Record
	require.True(t, r.parse(line(tries("web", "10.0.0.1:80, 10.0.0.2:80", "502, 200", "-, 0.004").with(values{
		"$lb_route": `GET *=/a\x22 [x-a=\xC3\xA4]`, "$lb_log_method": "GET", "$lb_scheme": "https", "$server_protocol": "HTTP/1.1", "$lb_log_host": "a.example", "$lb_log_path": `/a\x22\x5Cx41`,
		"$request_completion": "OK", "$request_length": "10", "$bytes_sent": "20", "$remote_addr": "fd00::9", "$lb_request_id": "id-1", "$lb_trace": "a b c 1",
		"$upstream_connect_time": "-, 0.000", "$upstream_response_time": "1.000, 0.005",
	}))))
	assert.Equal(t, []string{`GET *=/a" [x-a=ä]`, "GET", "https", "1.1", "a.example", `/a"\x41`, "fd00::9", "id-1", "a b c 1"},
		[]string{string(r.Route), string(r.Method), string(r.Scheme), string(r.HTTPVersion), string(r.Host), string(r.Path), string(r.Client), string(r.RequestID), string(r.Trace)})
	assert.True(t, r.Completed)
	assert.Equal(t, []int64{10, 20}, []int64{r.RequestBytes, r.ResponseBytes})
	assert.Equal(t, []Try{
		{Address: []byte("10.0.0.1:80"), Status: 502, Connect: -1, Header: -1, Took: time.Second},
		{Address: []byte("10.0.0.2:80"), Status: 200, Connect: 0, Header: 4 * time.Millisecond, Took: 5 * time.Millisecond},
	}, r.Tries)
	assert.False(t, r.Internal())

	require.True(t, r.parse(line(values{"$remote_addr": "unix:"})))
	assert.True(t, r.Internal())
	assert.Empty(t, r.Route)

	for name, service := range map[string]string{"-": "the balancer", "health": "a service with this name"} {
		require.True(t, r.parse(line(values{"$lb_service": name, "$lb_route": "health"})))
		assert.Equal(t, name == "-", r.Health(), service)
	}
}
