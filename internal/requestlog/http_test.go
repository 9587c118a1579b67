package requestlog

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/history"
)

// limit is the server's time limit for a request, which the admin API has too.
const limit = time.Second

// api serves a log at a unix socket.
func api(t *testing.T, l *Log) *http.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "lb") // t.TempDir's path is too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "admin.sock")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	server := &http.Server{Handler: l, ReadTimeout: limit, WriteTimeout: limit}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
}

// stream is an answer that is read line by line.
type stream struct {
	t     *testing.T
	body  io.ReadCloser
	lines *bufio.Scanner
}

func open(t *testing.T, client *http.Client, query string) *stream {
	t.Helper()
	response, err := client.Get("http://lbctl/v1/logs?" + query)
	require.NoError(t, err)
	t.Cleanup(func() { response.Body.Close() })
	require.Equal(t, http.StatusOK, response.StatusCode)
	s := &stream{t, response.Body, bufio.NewScanner(response.Body)}
	s.lines.Buffer(nil, 1<<20)
	return s
}

// next returns the next line that is not empty; false if there is none.
func (s *stream) next() (line Line, ok bool) {
	s.t.Helper()
	for s.lines.Scan() {
		if len(s.lines.Bytes()) > 0 {
			require.NoError(s.t, json.Unmarshal(s.lines.Bytes(), &line))
			return line, true
		}
	}
	return line, false
}

func TestServeHTTP(t *testing.T) {
	l := newLog(t, Options{})
	take(l, 0, 300)
	client := api(t, l)
	s := open(t, client, "")
	for n := 200; n < 300; n++ {
		line, ok := s.next()
		require.True(t, ok)
		require.Equal(t, fmt.Sprintf("GET /%d 200", n), line.Msg)
	}
	_, ok := s.next()
	assert.False(t, ok, "it ends")

	line, ok := open(t, client, "limit=1&status=2xx&service=web").next()
	assert.True(t, ok)
	assert.Equal(t, "GET /299 200", line.Msg)
	_, ok = open(t, client, "service=other").next()
	assert.False(t, ok)

	for query, want := range map[string]string{
		"status=6xx": `status \"6xx\": want HTTP statuses`, "limit=-1": `limit \"-1\": want a whole number`,
		"limit=1000000": "want a whole number from 0 to 100000", "follow=x": `follow \"x\": want 1 or 0`, "type=x": "want request or event",
	} {
		response, err := client.Get("http://lbctl/v1/logs?" + query)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		assert.Equal(t, http.StatusBadRequest, response.StatusCode)
		assert.Contains(t, string(body), want)
		response.Body.Close()
	}
}

func TestTheNoteIsAHeader(t *testing.T) {
	response, err := api(t, newLog(t, Options{Note: "there are no requests"})).Get("http://lbctl/")
	require.NoError(t, err)
	defer response.Body.Close()
	assert.Equal(t, "there are no requests", response.Header.Get(NoteHeader))
}

// Everyone on the machine can ask over TCP, and requests are not for everyone.
func TestNotOverTCP(t *testing.T) {
	l := newLog(t, Options{})
	take(l, 0, 1)
	server := httptest.NewServer(l)
	defer server.Close()
	for _, query := range []string{"", "?follow=1", "?type=event"} {
		response, err := http.Get(server.URL + query)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		response.Body.Close()
		assert.Equal(t, http.StatusForbidden, response.StatusCode)
		assert.Contains(t, string(body), "unix socket")
		assert.NotContains(t, string(body), "GET /0")
	}
}

// TestFollow follows for longer than the server's time limit.
func TestFollow(t *testing.T) {
	var mu sync.Mutex
	var events []history.Event
	l := newLog(t, Options{Events: func() []history.Event {
		mu.Lock()
		defer mu.Unlock()
		return append([]history.Event{}, events...)
	}})
	happen := func(change string) {
		e := history.Event{Time: noon.Add(time.Second), Kind: history.Applied, Change: change}
		mu.Lock()
		events = append(events, e)
		mu.Unlock()
		l.Event(e)
	}
	take(l, 0, 2)
	happen("one")
	client := api(t, l)
	all, slow := open(t, client, "follow=1&limit=2"), open(t, client, "follow=1&slower_than_seconds=0.5")
	line, _ := all.next()
	assert.Equal(t, "GET /1 200", line.Msg)
	line, _ = all.next()
	assert.Equal(t, "one", line.Change)
	for began := time.Now(); time.Since(began) < limit+limit/2; time.Sleep(limit / 20) {
		take(l, 2, 1)
		line, ok := all.next()
		require.True(t, ok)
		require.Equal(t, "GET /2 200", line.Msg)
	}
	happen("two")
	line, _ = all.next()
	assert.Equal(t, "two", line.Change)
	l.Take(with(func(r *accesslog.Record) { r.Took, r.Path = time.Second, []byte("/slow") }))
	line, _ = slow.next()
	assert.Equal(t, "GET /slow 200", line.Msg, "the others and the events do not match")

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	cancel()
	<-done
	line, ok := all.next() // of the slow request
	require.True(t, ok)
	assert.Equal(t, "GET /slow 200", line.Msg)
	_, ok = all.next()
	assert.False(t, ok, "it ends with the daemon")
}

// An event that was added while a client asked comes once.
func TestAnEventComesOnce(t *testing.T) {
	e := history.Event{Time: noon, Kind: history.Applied, Change: "web +1"}
	l := newLog(t, Options{})
	l.opts.Events = func() []history.Event { // the client has its position, but not the events yet
		if l.position() == (cursor{}) {
			l.Event(e)
		}
		return []history.Event{e}
	}
	s := open(t, api(t, l), "follow=1")
	line, _ := s.next()
	assert.Equal(t, "web +1", line.Change)
	take(l, 0, 1)
	line, _ = s.next()
	assert.Equal(t, "GET /0 200", line.Msg)
}

// A client that does not read delays nobody, and is told how many lines it lacks.
func TestASlowClient(t *testing.T) {
	l := newLog(t, Options{Memory: MinMemory})
	s := open(t, api(t, l), "follow=1")
	const n = 50_000
	take(l, 0, n)
	got, dropped := 0, 0
	for {
		line, ok := s.next()
		require.True(t, ok)
		if line.Type == TypeDropped {
			dropped += int(line.Dropped)
			continue
		}
		require.Equal(t, fmt.Sprintf("GET /%d 200", got+dropped), line.Msg, "in order, and each one is missing or there")
		if got++; got+dropped == n {
			break
		}
	}
	assert.NotZero(t, dropped)
}

func TestFollowersAreBounded(t *testing.T) {
	l := newLog(t, Options{})
	client := api(t, l)
	for range maxFollowers {
		open(t, client, "follow=1")
	}
	response, err := client.Get("http://lbctl/v1/logs?follow=1")
	require.NoError(t, err)
	response.Body.Close()
	assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	open(t, client, "") // the last lines are there for everyone
}
