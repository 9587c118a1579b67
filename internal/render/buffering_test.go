package render

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

func init() {
	maps.Copy(fieldTests, map[string]func(*testing.T, nginxtest.Binary){
		"buffering.request":         testRequestBuffering,
		"buffering.request-memory":  testRequestMemory,
		"buffering.response":        testedIn("testResponseBuffering"),
		"buffering.response-memory": testResponseBuffering,
		"keepalive.connections":     testKeepaliveConnections,
		"keepalive.requests":        testKeepaliveRequests,
		"keepalive.timeout":         testKeepaliveTimeout,
	})
}

// happens reports whether something arrives within a time that is short for a person, and long
// for nginx on this machine.
func happens(c <-chan bool) bool {
	select {
	case <-c:
		return true
	case <-time.After(300 * time.Millisecond):
		return false
	}
}

func testRequestBuffering(t *testing.T, binary nginxtest.Binary) {
	began := make(chan bool, 1)
	web := handler(t, func(w http.ResponseWriter, r *http.Request) {
		began <- true
		io.Copy(w, r.Body)
	})
	b := startBalancer(t, binary, nil, one("web", web, tags("http_server"), meta("lb-paths", `{"/on": {"buffering.request": true}}`)))
	for path, buffered := range map[string]bool{"/": false, "/on": true} {
		body, write := io.Pipe()
		answered := make(chan bool, 1)
		go func() {
			response, err := http.Post("http://"+b.http+path, "text/plain", body)
			if assert.NoError(t, err) {
				all, err := io.ReadAll(response.Body)
				response.Body.Close()
				assert.NoError(t, err)
				assert.Equal(t, "a part and the rest", string(all))
			}
			answered <- true
		}()
		io.WriteString(write, "a part ")
		if buffered {
			assert.False(t, happens(began), "the instance gets nothing before the end")
		} else {
			<-began
		}
		io.WriteString(write, "and the rest")
		write.Close()
		if buffered {
			<-began
		}
		<-answered
	}
}

func testRequestMemory(t *testing.T, binary nginxtest.Binary) {
	paths := `{"/large": {"buffering.request-memory": "256k"}}`
	b := startBalancer(t, binary, nil, one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), meta("lb-buffering-request", "on", "lb-paths", paths)))
	written := func(path string) int {
		response, err := http.Post("http://"+b.http+path, "text/plain", strings.NewReader(strings.Repeat("x", 200<<10)))
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		require.NoError(t, err)
		assert.Equal(t, "web POST "+path+" 204800", string(body))
		log, err := os.ReadFile(b.errorLog)
		require.NoError(t, err)
		return strings.Count(string(log), "a client request body is buffered to a temporary file")
	}
	assert.Equal(t, 0, written("/large"))
	assert.Equal(t, 1, written("/small"))
}

func testResponseBuffering(t *testing.T, binary nginxtest.Binary) {
	done := make(chan bool, 1)
	// Linux buffers up to 32 MB of what nginx receives, and 4 MB of what each process sends.
	const size = 60 << 20
	web := handler(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", size))
		done <- true
	})
	b := startBalancer(t, binary, nil, one("web", web, tags("http_server"), meta(
		"lb-buffering-response-memory", "64m", "lb-paths", `{"/on": {"buffering.response": "on"}, "/little": {"buffering.response": "on", "buffering.response-memory": "default"}}`)))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		}
		return conn, err
	}}}
	for path, buffered := range map[string]bool{"/on": true, "/little": false, "/off": false} {
		response, err := client.Get("http://" + b.http + path)
		require.NoError(t, err)
		finished := buffered
		if buffered {
			<-done
		} else {
			finished = happens(done)
			assert.False(t, finished, "%s: the instance waits for the client", path)
		}
		// Through a window smaller than a packet of the loopback interface, which is 64 KiB, the
		// rest takes a minute.
		response.Body.Close()
		if !finished {
			<-done
		}
	}
}

// connections counts the connections of an HTTP server that answers when all of n requests have
// arrived.
type connections struct {
	mu         sync.Mutex
	open, made int
}

func (c *connections) serve(t *testing.T, atOnce int) (port int) {
	var wait sync.WaitGroup
	wait.Add(atOnce)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if atOnce > 0 {
			wait.Done()
			wait.Wait()
		}
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch state {
		case http.StateNew:
			c.made++
			c.open++
		case http.StateClosed:
			c.open--
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}

func (c *connections) now() (open, made int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open, c.made
}

func testKeepaliveConnections(t *testing.T, binary nginxtest.Binary) {
	const atOnce = 6
	var few, many connections
	b := startBalancerWith(t, binary, func(s *Settings) { s.Workers = 1 }, nil,
		one("few", few.serve(t, atOnce), tags("http_server"), meta("lb-keepalive-connections", "2", "lb-keepalive-timeout", "1h")),
		one("many", many.serve(t, atOnce), meta("lb-protocol", "http", "lb-path", "/many", "lb-keepalive-timeout", "1h")),
	)
	for _, path := range []string{"/", "/many"} {
		var wait sync.WaitGroup
		for range atOnce {
			wait.Go(func() {
				response, err := http.Get("http://" + b.http + path)
				if assert.NoError(t, err) {
					response.Body.Close()
				}
			})
		}
		wait.Wait()
	}
	assert.Eventually(t, func() bool { open, _ := few.now(); return open == 2 }, 20*time.Second, 5*time.Millisecond)
	open, _ := many.now()
	assert.Equal(t, atOnce, open)
}

func testKeepaliveRequests(t *testing.T, binary nginxtest.Binary) {
	var web connections
	b := startBalancerWith(t, binary, func(s *Settings) { s.Workers = 1 }, nil,
		one("web", web.serve(t, 0), tags("http_server"), meta("lb-keepalive-requests", "3", "lb-keepalive-timeout", "1h")))
	for range 9 {
		get(t, http.DefaultClient, "http://"+b.http)
	}
	_, made := web.now()
	assert.Equal(t, 3, made)
}

func testKeepaliveTimeout(t *testing.T, binary nginxtest.Binary) {
	var short, long connections
	b := startBalancer(t, binary, nil,
		one("short", short.serve(t, 0), tags("http_server"), meta("lb-keepalive-timeout", "50ms")),
		one("long", long.serve(t, 0), meta("lb-protocol", "http", "lb-path", "/long", "lb-keepalive-timeout", "1h")),
	)
	get(t, http.DefaultClient, "http://"+b.http+"/long")
	get(t, http.DefaultClient, "http://"+b.http)
	began := time.Now()
	assert.Eventually(t, func() bool { open, _ := short.now(); return open == 0 }, time.Second, 5*time.Millisecond, "the default is 1.5 seconds")
	assert.Less(t, time.Since(began), 1400*time.Millisecond)
	open, _ := long.now()
	assert.Equal(t, 1, open)
}
