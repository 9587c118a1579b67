package accesslog

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// waitLost waits until what the reader says is lost, with the lines that were taken, is all that the
// client called, and at most some of the reader's own requests.
func (b *balancer) waitLost(called, own int) {
	b.t.Helper()
	eventually(b.t, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if lost := b.reader.Stats().Lost; b.lines+int(lost) < called || b.lines+int(lost) > called+own {
			return fmt.Errorf("%d lines taken and %d lost, want %d in all", b.lines, lost, called)
		}
		return nil
	})
}

// settled waits until two answers of nginx from now on have been judged.
func (b *balancer) settled() {
	b.t.Helper()
	begin := time.Now()
	eventually(b.t, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		asked := slices.Clone(b.asked)
		asked = slices.DeleteFunc(asked, func(at time.Time) bool { return at.Before(begin) })
		// Before it asks again, the reader judges those that are old enough.
		if len(asked) < 3 || asked[len(asked)-1].Sub(asked[1]) < testSettle+2*pollInterval {
			return fmt.Errorf("nginx was asked %d times", len(asked))
		}
		return nil
	})
}

func TestNothingIsLostUnderLoad(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startAsking(t, binary, 8<<20) // replaced once or twice
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.call("/", 20_000)
		}()
		for n := 1; n <= 4; n++ {
			b.reached(n * 2000)
			b.nginx.Reload()
			b.stopReader()
			b.startReader()
		}
		<-done
		b.waitLines(20_000)
		b.settled()
		assert.Equal(t, int64(0), b.reader.Stats().Lost)
		assert.Equal(t, int64(8<<20), b.reader.Stats().Size)
		assert.Zero(t, b.reader.Stats().Unread)
		assert.Less(t, b.reader.Stats().Lag, 30*time.Second)

		b.nginx.Stop()
		b.startNginx()
		b.call("/", 400)
		b.waitLines(20_400)
		b.settled()
		assert.Equal(t, int64(0), b.reader.Stats().Lost)
	})
}

// TestNginxWritesALineForEachRequest has requests of kinds that may have none: then they would
// look lost.
func TestNginxWritesALineForEachRequest(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startAsking(t, binary, 0)
		address := fmt.Sprintf("127.0.0.1:%d", b.port)
		for _, text := range []string{
			"", "\r\n\r\n", "x", "GET", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /\r\n", "x\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
			"GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			strings.Repeat("GET /own HTTP/1.1\r\nHost: a\r\n\r\n", 20), "GET /" + strings.Repeat("x", 40_000) + " HTTP/1.1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 40_000) + "\r\n\r\n", "\x16\x03\x01\x00\x05hello", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
		} {
			for range 5 {
				c, err := net.Dial("tcp", address)
				require.NoError(t, err)
				_, err = io.WriteString(c, text)
				require.NoError(t, err)
				c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // then it gives up
				io.Copy(io.Discard, c)
				require.NoError(t, c.Close())
			}
		}
		b.call("/", 400)
		_, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		require.Error(t, err)
		b.settled()
		assert.Zero(t, b.reader.Stats().Lost)
		assert.Zero(t, b.reader.Stats().Malformed)
	})
}

func TestWhatAFullFileHadNoRoomForIsLost(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startAsking(t, binary, MinSize)
		b.call("/", 400)
		b.waitLines(400)
		b.settled()
		b.stopReader()
		b.call("/", 10_000)
		b.startReader()
		b.waitLost(10_400, 3)
		assert.Positive(t, b.reader.Stats().Lost)
		assert.Equal(t, int64(1), b.reader.Stats().Full)
		b.settled()
		b.waitLost(10_400, 3)

		b.stopReader() // the number goes on
		b.startReader()
		b.call("/", 400)
		b.settled()
		b.waitLost(10_800, 3)
	})
}

func TestWhatAFullFileSystemHadNoRoomForIsLost(t *testing.T) {
	t.Parallel()
	binary := nginxtest.Binaries(t)[0]
	b := prepare(t, binary, 1<<20, 2)
	b.asks = true
	small := nginxtest.Dir(t)
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=256k,mode=755"); err != nil {
		t.Skipf("can't mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(small, syscall.MNT_DETACH) })
	conf, err := os.ReadFile(b.conf)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(b.conf, []byte(strings.ReplaceAll(string(conf), b.dir, small)), 0o644))
	b.dir = small
	b.startReader()
	t.Cleanup(func() { b.stopReader() })
	b.startNginx()
	b.call("/", 400)
	b.waitLines(400)
	b.settled()
	b.stopReader()
	b.call("/", 6000) // some 900 kB
	b.startReader()
	b.waitLost(6400, 3)
	assert.Positive(t, b.reader.Stats().Lost)
	b.call("/", 400)
	b.settled()
	b.waitLost(6800, 3)
}

// TestTheLinesOfKilledWorkersAreLost kills nginx with lines in the memory of its workers.
func TestTheLinesOfKilledWorkersAreLost(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startAsking(t, binary, 0)
		b.call("/", 400)
		b.waitLines(400)
		b.settled()
		called := 400
		for range 2 {
			done := make(chan int)
			client := &http.Client{Timeout: 5 * time.Second}
			go func() {
				n := 0
				defer func() { done <- n }()
				for {
					answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/own", b.port))
					if err != nil {
						return // nginx is killed
					}
					answer.Body.Close()
					n++
				}
			}()
			b.mu.Lock()
			lines := b.lines
			b.mu.Unlock()
			b.reached(lines + 500)
			b.nginx.Kill()
			called += <-done
			client.CloseIdleConnections()
			b.startNginx()
		}
		b.settled()
		b.mu.Lock()
		defer b.mu.Unlock()
		lost := int(b.reader.Stats().Lost)
		assert.LessOrEqual(t, b.lines+lost, called+3, "the last request can end without an answer")
		assert.LessOrEqual(t, b.lines, called+3, "a line was taken twice")
		t.Logf("%d called, %d lines taken, %d known to be lost", called, b.lines, lost)
	})
}

func TestTheLogTellsOfLostRequests(t *testing.T) {
	var told strings.Builder
	r := &Reader{opts: Options{Logger: slog.New(slog.NewTextHandler(&told, nil))}, told: 3}
	now := time.Now()
	for _, lost := range []int64{3, 8, 9, 9} {
		r.losses.lost = lost
		r.tellLost(now)
	}
	assert.Equal(t, int64(9), r.Stats().Lost)
	assert.Equal(t, 1, strings.Count(told.String(), "\n"), "%s", told.String())
	assert.Contains(t, told.String(), "requests=5")
	r.tellLost(now.Add(tellInterval))
	assert.Contains(t, told.String(), "requests=1")
}
