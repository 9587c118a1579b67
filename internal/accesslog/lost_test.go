package accesslog

import (
	"context"
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

// ownLost is how many of the reader's own requests may have no line, from its start until it has made
// room.
const ownLost = 10

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

// asksMore waits until nginx has been asked n times from now on.
func (b *balancer) asksMore(n int) {
	b.t.Helper()
	b.mu.Lock()
	want := len(b.asked) + n
	b.mu.Unlock()
	eventually(b.t, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.asked) < want {
			return fmt.Errorf("nginx was asked %d times, want %d", len(b.asked), want)
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
		b.waitLost(10_400, ownLost)
		assert.Positive(t, b.reader.Stats().Lost)
		assert.Equal(t, int64(1), b.reader.Stats().Full)
		b.settled()
		b.waitLost(10_400, ownLost)

		b.stopReader() // the number goes on
		b.startReader()
		b.call("/", 400)
		b.settled()
		b.waitLost(10_800, ownLost)
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
	b.waitLost(6400, ownLost)
	assert.Positive(t, b.reader.Stats().Lost)
	b.call("/", 400)
	b.settled()
	b.waitLost(6800, ownLost)
}

// A caller calls nginx until stop or the end of the test, also while it does not answer.
type caller struct {
	cancel   context.CancelFunc
	answered chan []time.Time // when it got each answer
}

func (b *balancer) startCaller() *caller {
	ctx, cancel := context.WithCancel(b.t.Context())
	c := &caller{cancel, make(chan []time.Time, 1)}
	go func() {
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		var answered []time.Time
		for ctx.Err() == nil {
			answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/own", b.port))
			if err != nil {
				continue // its worker was killed
			}
			answer.Body.Close()
			answered = append(answered, time.Now())
		}
		c.answered <- answered
	}()
	return c
}

func (c *caller) stop() []time.Time {
	c.cancel()
	return <-c.answered
}

// TestTheLinesThatAKilledNginxHadAreLost kills nginx with lines in the memory of its workers. What
// ended after the last question is not known.
func TestTheLinesThatAKilledNginxHadAreLost(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startAsking(t, binary, 0)
		b.call("/", 400)
		b.waitLines(400)
		b.settled()
		called, after := 400, 0
		for range 2 {
			c := b.startCaller()
			b.asksMore(5)
			b.mu.Lock()
			b.nginx.Kill()
			told, heard := b.told, b.heard.Add(clockSlack)
			b.mu.Unlock()
			answered := c.stop()
			called += len(answered)
			for _, at := range answered {
				if at.After(told) {
					after++
				}
				if at.After(told) && at.Before(heard) {
					after++ // its line can stand for one that is lost: nobody knows when nginx had answered
				}
			}
			b.startNginx()
		}
		b.settled()
		b.mu.Lock()
		defer b.mu.Unlock()
		lost := int(b.reader.Stats().Lost)
		assert.LessOrEqual(t, b.lines+lost, called+3, "the last request can end without an answer")
		assert.LessOrEqual(t, b.lines, called+3, "a line was taken twice")
		assert.GreaterOrEqual(t, b.lines+lost, called-after-3, "more is unknown than what ended after the last question")
		t.Logf("%d called, %d lines taken, %d known to be lost, %d after the last question", called, b.lines, lost, after)
	})
}

// TestTheLinesThatAKilledWorkerHadAreKnownToBeLost kills workers: the master starts others, and
// nginx's numbers go on.
func TestTheLinesThatAKilledWorkerHadAreKnownToBeLost(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startAsking(t, binary, 0)
		b.call("/", 400)
		b.waitLines(400)
		b.settled()
		called := 400
		for range 2 {
			b.mu.Lock()
			lines := b.lines
			b.mu.Unlock()
			c := b.startCaller()
			b.reached(lines + 500)
			for _, pid := range b.nginx.Workers() {
				require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			}
			b.reached(lines + 1000)
			called += len(c.stop())
		}
		b.call("/", 400)
		called += 400
		const last = 2 // one a round can be answered, and not have ended in nginx's numbers
		b.waitLost(called-last, last+4)
		b.settled()
		b.waitLost(called-last, last+4)
		t.Logf("%d called, %d known to be lost", called, b.reader.Stats().Lost)
		assert.Positive(t, b.reader.Stats().Lost)
	})
}

func TestTheLogTellsOfLostRequests(t *testing.T) {
	var told strings.Builder
	r := &Reader{opts: Options{Dir: nginxtest.MemoryDir(t), Logger: slog.New(slog.NewTextHandler(&told, nil))}, told: 3}
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
