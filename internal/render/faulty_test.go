package render

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"lbctl/internal/consultest"
)

// faulty is a proxy to Consul with faults by path. They begin and end at once, also for
// running queries.
type faulty struct {
	consul *consultest.Server
	done   chan struct{}

	mu      sync.Mutex
	faults  map[string]fault
	asked   map[string]int // the number of requests, by path
	changed chan struct{}  // closed when faults change
}

// fault is what the proxy does to queries; the zero value is no fault.
type fault struct {
	code int    // the status of its answer
	body string // the body of its answer
	// stalls: queries that wait for a change never get an answer.
	stalls bool
}

// throughFaulty puts a faulty proxy between the Source and Consul.
func throughFaulty(t *testing.T, consul *consultest.Server) (*faulty, func(*Options)) {
	t.Helper()
	f := &faulty{consul: consul, done: make(chan struct{}), faults: map[string]fault{}, asked: map[string]int{}, changed: make(chan struct{})}
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		close(f.done)
		server.CloseClientConnections()
		server.Close()
	})
	return f, func(o *Options) { o.Consul.Address = strings.TrimPrefix(server.URL, "http://") }
}

func (f *faulty) set(path string, to fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[path] = to
	close(f.changed)
	f.changed = make(chan struct{})
}

// awaitChecks waits until the monitor has made n more complete checks.
func (f *faulty) awaitChecks(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.asked["/v1/status/leader"]
	}
	end := count() + n + 1 // the last one only has to begin
	consultest.Eventually(t, patience, func() (bool, string) {
		return count() >= end, "the monitor does not ask for the leader"
	})
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked[r.URL.Path]++
	now, changed := f.faults[r.URL.Path], f.changed
	f.mu.Unlock()
	if now.code != 0 {
		http.Error(w, now.body, now.code)
		return
	}
	if now.stalls && r.URL.Query().Has("index") {
		select {
		case <-r.Context().Done():
		case <-f.done:
		}
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		defer cancel()
		select {
		case <-changed:
		case <-f.done:
		case <-ctx.Done():
		}
	}()
	failed := false
	proxy := httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: f.consul.Addr}) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { failed = true },
	}
	proxy.ServeHTTP(w, r.WithContext(ctx))
	if !failed {
		return
	}
	select {
	case <-changed:
		if r.Context().Err() == nil {
			f.ServeHTTP(w, r)
			return
		}
	default:
	}
	panic(http.ErrAbortHandler)
}
