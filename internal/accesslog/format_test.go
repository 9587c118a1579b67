package accesslog

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// line joins the fields of a line.
func line(fields ...string) []byte { return []byte(strings.Join(fields, "\t")) }

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name string
		line []byte
		want string
	}{
		{"an answer over HTTP",
			line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80", "200", "0.001", "-", "-"),
			"web 200 grpc -1 10.0.0.1:80=200"},
		{"a gRPC call with a trailer",
			line("1", "1700000000.123", "0.005", "cart", "200", "-", "[fd00::1]:80", "200", "0.001", "-", "0"),
			"cart 200 grpc 0 [fd00::1]:80=200"},
		{"a gRPC answer without a message",
			line("1", "1700000000.123", "0.005", "cart", "200", "-", "10.0.0.1:80", "200", "0.001", "14", "-"),
			"cart 200 grpc 14 10.0.0.1:80=200"},
		{"a second try",
			line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80, 10.0.0.2:80", "502, 200", "-, 0.004", "-", "-"),
			"web 200 grpc -1 10.0.0.1:80=502 unanswered 10.0.0.2:80=200"},
		{"a request that moved to another location",
			line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80 : 10.0.0.2:80", "404 : 200", "0.001 : 0.004", "-", "-"),
			"web 200 grpc -1 10.0.0.1:80=404 10.0.0.2:80=200"},
		{"a client that did not wait",
			line("1", "1700000000.123", "0.005", "web", "499", "-", "10.0.0.1:80", "-", "-", "-", "-"),
			"web 499 grpc -1 10.0.0.1:80=0 unanswered"},
		{"no instance could be tried",
			line("1", "1700000000.123", "0.005", "web", "502", "-", "http_web", "502", "-", "-", "-"),
			"web 502 grpc -1 http_web=502 unanswered"},
		{"nginx answered itself",
			line("1", "1700000000.123", "0.005", "", "404", "-", "-", "-", "-", "-", "-"),
			" 404 grpc -1"},
		{"an instance's grpc-status that is no number",
			line("1", "1700000000.123", "0.005", "cart", "200", "-", "10.0.0.1:80", "200", "0.001", "-", `1\x0A4`),
			"cart 200 grpc -1 10.0.0.1:80=200"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r Record
			require.True(t, r.parse(test.line))
			assert.Equal(t, test.want, r.String())
			assert.Equal(t, int64(1700000000123), r.Time.UnixMilli())
		})
	}
}

func TestParseRefusesWhatIsNoLine(t *testing.T) {
	good := line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80", "200", "0.001", "-", "-")
	var r Record
	require.True(t, r.parse(good))
	for cut := range good { // a line that nginx could not complete, and the next one
		torn := append(append([]byte{}, good[:cut]...), good...)
		assert.False(t, cut > 0 && r.parse(torn), "%q", torn)
		if cut < len(good)-1 { // the last field is a single "-"
			assert.False(t, r.parse(good[:cut]), "%q", good[:cut])
		}
	}
	for _, bad := range [][]byte{
		line("2", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80", "200", "0.001", "-", "-"),
		line("1", "1700000000", "0.005", "web", "200", "-", "10.0.0.1:80", "200", "0.001", "-", "-"),
		line("1", "1700000000.123", "0.005", "web", "2000", "-", "10.0.0.1:80", "200", "0.001", "-", "-"),
		line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80", "200, 200", "0.001", "-", "-"),
		line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80, 10.0.0.2:80", "200", "0.001", "-", "-"),
		line("1", "1700000000.123", "0.005", "web", "200", "-", "-", "200", "-", "-", "-"),
		line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80", "20x", "0.001", "-", "-"),
		line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80", "200", "0.001", "-", "-", "-"),
		[]byte(""),
	} {
		assert.False(t, r.parse(bad), "%q", bad)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80, 10.0.0.2:80", "502, 200", "-, 0.004", "-", "0"))
	f.Add(line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80 : ", "502 : ", "- :", "-", "0"))
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
	text := line("1", "1700000000.123", "0.005", "web", "200", "-", "10.0.0.1:80, 10.0.0.2:80", "502, 200", "-, 0.004", "-", "-")
	var r Record
	require.True(t, r.parse(text))
	assert.Zero(t, testing.AllocsPerRun(100, func() { r.parse(text) }))
}

func BenchmarkParse(b *testing.B) {
	text := line("1", "1700000000.123", "0.005", "hello_server", "200", "10.0.0.1:7777", "200", "0.001", "-", "0")
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
		require.True(t, r.parse(line("1", "1700000000.123", "0.005", "cart", "200", text, "10.0.0.1:80", "200", "0.001", "-", "0")))
		assert.Equal(t, want, r.Timeout, text)
		assert.Equal(t, 5*time.Millisecond, r.Took)
	}
}
