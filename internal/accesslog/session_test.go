package accesslog

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// sessionLine returns the line of a session.
func sessionLine(service, status, addresses, connects, listener string) string {
	return fmt.Sprintf("%s\t1700000000.123\t61.500\t%s\t-\t%s\t100\t200\t10.0.0.9\t%s\t%s\t%s\t%s", sessionVersion, service, status, addresses, connects, connects, listener)
}

func TestParseSession(t *testing.T) {
	for _, test := range []struct{ name, line, want string }{
		{"a session", sessionLine("db", "200", "10.0.0.1:80", "0.001", "-"), "db 200 session  10.0.0.1:80=success"},
		{"a second try", sessionLine("db", "200", "10.0.0.1:80, 10.0.0.2:80", "-, 0.001", "-"), "db 200 session  10.0.0.1:80=connect 10.0.0.2:80=success"},
		{"no instance answers", sessionLine("db", "502", "10.0.0.1:80", "-", "-"), "db 502 own 502 session unreachable 10.0.0.1:80=connect"},
		{"no instance", sessionLine("db", "502", "127.0.0.1:0", "-", "-"), "db 502 own 502 session no-instance 127.0.0.1:0=no-instance"},
		{"all have enough connections", sessionLine("db", "502", "tcp-db", "-", "-"), "db 502 own 502 session max-conns tcp-db=busy"},
		{"the client leaves", sessionLine("db", "200", "10.0.0.1:80", "-", "-"), "db 200 session client-left 10.0.0.1:80=cancelled"},
		{"the client says nothing", sessionLine("-", "200", "-", "-", "shared"), " 200 session client-left"},
		{"the client names no host", sessionLine("-", "500", "-", "-", "shared"), " 500 own 404 session no-route"},
		{"denied on a shared port", sessionLine("db", "500", "-", "-", "shared"), "db 500 own 403 session denied"},
		{"denied", sessionLine("db", "403", "-", "-", "-"), "db 403 own 403 session denied"},
		{"no TLS", sessionLine("db", "500", "-", "-", "tls"), "db 500 own 400 session bad-request"},
		{"no certificate", sessionLine("db", "500", "-", "-", "clients"), "db 500 own 496 session client-certificate"},
		{"too many connections", sessionLine("db", "503", "-", "-", "tls"), "db 503 own 429 session rate-limit"},
		{"nginx fails", sessionLine("db", "500", "-", "-", "-"), "db 500 own 500 session internal"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r Record
			require.True(t, r.parse([]byte(test.line)))
			assert.Equal(t, test.want, r.String())
			assert.Equal(t, []int64{1700000000123, 61500, 100, 200}, []int64{r.Time.UnixMilli(), r.Took.Milliseconds(), r.RequestBytes, r.ResponseBytes})
			for cut := 1; cut < len(test.line); cut++ {
				assert.False(t, r.parse([]byte(test.line[:cut]+test.line)), "a torn line")
			}
		})
	}
}

// nginx does not count sessions among its requests: their lines must not stand for lost ones.
func TestSessionsHaveNoPartInWhatIsLost(t *testing.T) {
	dir := nginxtest.MemoryDir(t)
	for _, test := range []struct {
		line   string
		counts bool
	}{{sessionLine("db", "200", "10.0.0.1:80", "0.001", "-"), false}, {string(line(tries("web", "10.0.0.1:80", "200", "0.001"))), true}} {
		require.NoError(t, os.WriteFile(Path(dir), []byte(test.line+"\n"), 0o600))
		r, err := New(Options{Dir: dir, Reopen: func() error { return nil }})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		r.Run(ctx, func(*Record) { cancel() })
		assert.Equal(t, int64(1), r.Stats().Lines)
		assert.Equal(t, test.counts, r.losses.any)
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.Mkdir(dir, 0o755))
	}
}
