package statuspage

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/admin"
	"lbctl/internal/endpoints"
	"lbctl/internal/lbtest"
)

// A watcher follows a feed as a program.
type watcher struct {
	t      *testing.T
	body   io.ReadCloser
	lines  *bufio.Scanner
	closed func()
}

func watch(t *testing.T, page string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page+"v1/events", nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	t.Cleanup(cancel)
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 64<<20)
	return &watcher{t: t, body: response.Body, lines: lines, closed: cancel}
}

// A said is an event of a feed.
type said struct {
	name string
	size int
	data struct {
		Now        int64
		Sections   map[string]json.RawMessage
		Rows       []row
		Gone       []int
		Reset      bool
		End        int64
		Series     map[string]json.RawMessage
		Points     []float64
		PointEnd   int64
		TotalPoint []float64
	}
	text string // of an event that is no object
}

func (w *watcher) next() said {
	w.t.Helper()
	var s said
	for w.lines.Scan() {
		line := w.lines.Text()
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			s.name = name
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			s.size = len(data)
			if data[0] == '"' {
				require.NoError(w.t, json.Unmarshal([]byte(data), &s.text))
			} else {
				require.NoError(w.t, json.Unmarshal([]byte(data), &s.data), data)
			}
		}
		if line == "" && s.name != "" {
			return s
		}
	}
	w.t.Fatalf("the feed ended: %v", w.lines.Err())
	return s
}

// until returns the first event of which a condition holds.
func (w *watcher) until(what string, condition func(said) bool) said {
	w.t.Helper()
	for deadline := time.Now().Add(lbtest.Patience); time.Now().Before(deadline); {
		if s := w.next(); condition(s) {
			return s
		}
	}
	w.t.Fatalf("no event: %s", what)
	return said{}
}

func TestFeed(t *testing.T) {
	d := newDemo(time.Now())
	d.add("api", endpoints.GRPC, "/api/", 2, 10)
	d.add("web", endpoints.HTTP, "/web", 3, 0)
	page := serve(t, Options{Source: d.source(), Node: "lb-1", Interval: quick})
	w := watch(t, page.URL)
	s := w.next()
	assert.Equal(t, "snapshot", s.name)
	require.Len(t, s.data.Rows, 2)
	api, web := s.data.Rows[0], s.data.Rows[1]
	assert.Equal(t, []any{"api", endpoints.GRPC, []string{"*/api/"}, 2, 2, "uu"}, []any{api.Name, api.Protocol, api.Routes, api.InRotation, api.Registered, api.Pips})
	assert.Len(t, s.data.Sections, len(sectionNames))
	assert.Contains(t, string(s.data.Series[fmt.Sprint(api.ID)]), ",")

	t.Run("what does not change is not said again", func(t *testing.T) {
		s := w.next()
		assert.Equal(t, "update", s.name)
		assert.Empty(t, s.data.Sections)
		assert.Empty(t, s.data.Rows)
		assert.Less(t, s.size, 300)
	})
	t.Run("a new point is one point", func(t *testing.T) {
		s := w.until("points", func(s said) bool { return s.data.PointEnd != 0 })
		assert.Equal(t, float64(api.ID), s.data.Points[0])
		assert.Len(t, s.data.Points, 7, "%s has no requests, and so no point", web.Name)
		assert.Len(t, s.data.TotalPoint, 6)
		assert.Empty(t, s.data.Series)
	})
	t.Run("a changed service is said, with a new one and a gone one", func(t *testing.T) {
		d.mu.Lock()
		d.find("api").Instances[0].InRotation = false
		d.find("api").Instances[0].Ejected = true
		d.find("api").InRotation = 1
		d.services = d.services[:1]
		d.add("zebra", endpoints.GRPC, "/zebra/", 1, 5)
		d.mu.Unlock()
		s := w.until("a change", func(s said) bool { return len(s.data.Rows) > 0 })
		require.Len(t, s.data.Rows, 2)
		assert.Equal(t, "xu", s.data.Rows[0].Pips)
		assert.Equal(t, warn, s.data.Rows[0].Level)
		assert.Equal(t, "zebra", s.data.Rows[1].Name)
		assert.Equal(t, []int{web.ID}, s.data.Gone)
		assert.Contains(t, s.data.Series, fmt.Sprint(s.data.Rows[1].ID), "a new service comes with its curves")
	})
	t.Run("one who comes later gets a snapshot of the same", func(t *testing.T) {
		s := watch(t, page.URL).next()
		assert.Equal(t, "snapshot", s.name)
		require.Len(t, s.data.Rows, 2)
		assert.Equal(t, "xu", s.data.Rows[0].Pips)
	})
	t.Run("missing points are all said again", func(t *testing.T) {
		d.mu.Lock()
		d.now = func() time.Time { return time.Now().Add(time.Minute) }
		d.mu.Unlock()
		s := w.until("a reset", func(s said) bool { return s.data.Reset })
		assert.Len(t, s.data.Series, 2)
	})
	t.Run("the end is told", func(t *testing.T) {
		page.stop()
		s := w.until("the end", func(s said) bool { return s.name == "end" })
		assert.Equal(t, "lbctl ends", s.text)
	})
}

func TestOneWhoLagsGetsASnapshot(t *testing.T) {
	d := newDemo(time.Now())
	f := newFeed(Options{Source: d.source()})
	for range keepFrames + 4 {
		f.add(lookAt(context.Background(), f.opts))
	}
	frames, seq, _, _ := f.since(6)
	assert.Equal(t, keepFrames+4, seq)
	assert.Len(t, frames, seq-6, "all that he has not got is kept")
	frames, seq, _, _ = f.since(2)
	assert.Equal(t, keepFrames+4, seq)
	require.Len(t, frames, 1, "frame 3 is kept no more")
	assert.Contains(t, string(frames[0]), "event: snapshot\n")
}

func TestNothingIsAskedWhileNobodyWatches(t *testing.T) {
	d := newDemo(time.Now())
	looks := func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.looks
	}
	page := serve(t, Options{Source: d.source(), Interval: 20 * time.Millisecond})
	assert.Zero(t, looks())
	var all []*watcher
	for range 5 {
		all = append(all, watch(t, page.URL))
	}
	for _, w := range all {
		w.next()
	}
	before := looks()
	for range 10 {
		all[0].next()
	}
	assert.LessOrEqual(t, looks()-before, 12, "each look is for all")
	for _, w := range all {
		w.closed()
	}
	lbtest.Eventually(t, "nobody watches", func() error {
		page.page.feed.mu.Lock()
		defer page.page.feed.mu.Unlock()
		if page.page.feed.known != nil {
			return fmt.Errorf("%d watch", page.page.feed.watchers)
		}
		return nil
	})
	before = looks()
	assert.Equal(t, "snapshot", watch(t, page.URL).next().name)
	assert.LessOrEqual(t, looks()-before, 3, "it starts again when somebody comes")
}

func TestTheNumberOfWatchersIsBounded(t *testing.T) {
	page := serve(t, Options{Source: newDemo(time.Now()).source(), Interval: quick, MaxWatchers: 2})
	first, second := watch(t, page.URL), watch(t, page.URL)
	first.next()
	second.next()
	response, err := http.Get(page.URL + "v1/events")
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	assert.Contains(t, string(body), "2 watch already, which is the most that lbctl serves")
	first.closed()
	lbtest.Eventually(t, "there is room again", func() error {
		response, err := http.Head(page.URL + "v1/events")
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", response.Status)
		}
		return nil
	})
}

// One who takes nothing must not hold what the feed says for ever, nor slow down others.
func TestASlowWatcherIsDropped(t *testing.T) {
	d := newDemo(time.Now())
	d.noFigures = "it is off"
	d.many(1500)
	for n := range d.services { // a snapshot is more than the buffers of a connection hold
		d.services[n].Name += strings.Repeat("x", 8<<10)
	}
	page := serve(t, Options{Source: d.source(), Interval: quick, WriteTimeout: 3 * time.Second})
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(page.URL, "http://"), "/"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4096))
	fmt.Fprintf(conn, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	watchers := func() int {
		page.page.feed.mu.Lock()
		defer page.page.feed.mu.Unlock()
		return page.page.feed.watchers
	}
	lbtest.Eventually(t, "it watches", func() error {
		if watchers() != 1 {
			return fmt.Errorf("%d watch", watchers())
		}
		return nil
	})
	other := watch(t, page.URL)
	assert.Len(t, other.next().data.Rows, 1500)
	lbtest.Eventually(t, "the slow one is dropped", func() error {
		if n := watchers(); n != 1 {
			return fmt.Errorf("%d watch", n)
		}
		return nil
	})
	other.next()
}

// A feed outlives the timeouts of the API's server.
func TestAFeedOutlivesTheServersTimeouts(t *testing.T) {
	page := New(Options{Source: newDemo(time.Now()).source(), Interval: quick})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go page.Run(ctx)
	mux := http.NewServeMux()
	for pattern, handler := range page.Handlers() {
		mux.Handle(pattern, handler)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: mux, ReadTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond}
	go server.Serve(listener)
	defer server.Close()
	w := watch(t, "http://"+listener.Addr().String()+"/")
	for range 8 {
		w.next()
	}
}

func TestRecent(t *testing.T) {
	d := newDemo(time.Now())
	d.add("api", endpoints.GRPC, "/api/", 2, 120)
	d.failing["api"] = .1
	page := serve(t, Options{Source: d.source(), Interval: quick})
	get := func(service string) (int, Recent, string) {
		response, err := http.Get(page.URL + "v1/recent?service=" + service)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		var r Recent
		require.NoError(t, json.Unmarshal(body, &r))
		return response.StatusCode, r, string(body)
	}
	check := func(t *testing.T) {
		status, r, _ := get("api")
		require.Equal(t, http.StatusOK, status)
		require.Len(t, r.Service.Instances, 2)
		require.Len(t, r.Figures, 2)
		assert.Equal(t, .5, r.Figures[0].Share)
		assert.Equal(t, "UNAVAILABLE", r.Figures[0].LastError.What)
		assert.Nil(t, r.Figures[1].LastError)
		status, _, body := get("nobody")
		assert.Equal(t, http.StatusNotFound, status)
		assert.Contains(t, body, `no service \"nobody\" is balanced`)
	}
	t.Run("while nobody watches", check)
	w := watch(t, page.URL)
	w.next()
	t.Run("while somebody watches", check)
	t.Run("many who ask cost one answer", func(t *testing.T) {
		page.page.feed.mu.Lock()
		defer page.page.feed.mu.Unlock()
		assert.Contains(t, page.page.feed.details, "api")
		assert.NotContains(t, page.page.feed.details, "nobody", "names of others would need memory")
	})
	t.Run("without figures", func(t *testing.T) {
		d := newDemo(time.Now())
		d.noFigures = "it is off"
		d.add("api", endpoints.GRPC, "/api/", 2, 120)
		page = serve(t, Options{Source: d.source(), Interval: quick})
		_, r, _ := get("api")
		assert.Nil(t, r.Figures)
		assert.Len(t, r.Service.Instances, 2)
	})
}

func TestTheSizeOfAFeed(t *testing.T) {
	d := newDemo(time.Now())
	d.many(1000)
	page := serve(t, Options{Source: d.source(), Interval: quick})
	w := watch(t, page.URL)
	snapshot := w.next()
	update := w.until("no points", func(s said) bool { return s.data.PointEnd == 0 })
	points := w.until("points", func(s said) bool { return s.data.PointEnd != 0 })
	t.Logf("of 1,000 services: snapshot %d bytes, update %d, update with points %d", snapshot.size, update.size, points.size)
	assert.Less(t, snapshot.size, 1_600_000)
	assert.Less(t, update.size, 1000)
	assert.Less(t, points.size, 60_000)
}

func TestJudgement(t *testing.T) {
	instance := func(status endpoints.Status, in bool, reason string) admin.Instance {
		return admin.Instance{Instance: endpoints.Instance{ID: "web-1", Status: status}, InRotation: in, Reason: reason}
	}
	up := instance(endpoints.Passing, true, "")
	for _, tt := range []struct {
		name    string
		service admin.Service
		level   level
		why     string
	}{
		{"all is well", admin.Service{State: endpoints.Fresh, InRotation: 1, Registered: 1, Instances: []admin.Instance{up}}, fine, ""},
		{"an instance is critical", admin.Service{State: endpoints.Fresh, InRotation: 1, Registered: 2, Instances: []admin.Instance{up, instance(endpoints.Critical, false, "a check is critical")}}, warn, "web-1: a check is critical"},
		{"an instance is in maintenance", admin.Service{State: endpoints.Fresh, InRotation: 1, Registered: 2, Instances: []admin.Instance{up, instance(endpoints.Maintenance, false, "in maintenance")}}, fine, ""},
		{"all are in maintenance", admin.Service{State: endpoints.Fresh, Registered: 1, Instances: []admin.Instance{instance(endpoints.Maintenance, false, "in maintenance")}}, bad, "no instance gets traffic: all are in maintenance"},
		{"none is left", admin.Service{State: endpoints.Fresh}, bad, "no instance gets traffic"},
		{"panic", admin.Service{State: endpoints.Panic, Reason: "none passes", InRotation: 1}, bad, "none passes"},
		{"held", admin.Service{State: endpoints.Held, Reason: "2 vanished", InRotation: 1}, warn, "2 vanished"},
		{"a bad value", admin.Service{State: endpoints.Fresh, InRotation: 1, Problems: []string{"lb-path: bad"}}, warn, "lb-path: bad"},
		{"the pinned generation lacks it", admin.Service{State: endpoints.Fresh, Reason: "generation 3 is pinned", LackingGeneration: 3}, bad, "generation 3 is pinned"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			level, why := judge(tt.service)
			assert.Equal(t, []any{tt.level, tt.why}, []any{level, why})
		})
	}
}

func TestTheDocument(t *testing.T) {
	page := serve(t, Options{Source: newDemo(time.Now()).source()})
	response, err := http.Get(page.URL)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	policy := response.Header.Get("Content-Security-Policy")
	assert.Contains(t, policy, "default-src 'none'")
	assert.NotContains(t, policy, "unsafe")
	assert.NotRegexp(t, `(src|href)="(https?:)?//`, string(body), "the page needs nothing from elsewhere")
	assert.NotRegexp(t, `\son[a-z]+=|\sstyle=|innerHTML|insertAdjacentHTML|document\.write|eval\(`, string(body))
	t.Logf("%d bytes", len(body))

	for _, site := range []struct {
		site, mode string
		status     int
	}{{"cross-site", "no-cors", 403}, {"same-site", "cors", 403}, {"cross-site", "navigate", 200}, {"same-origin", "cors", 200}, {"none", "navigate", 200}} {
		request, err := http.NewRequest(http.MethodHead, page.URL+"v1/events", nil)
		require.NoError(t, err)
		request.Header.Set("Sec-Fetch-Site", site.site)
		request.Header.Set("Sec-Fetch-Mode", site.mode)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		response.Body.Close()
		assert.Equal(t, site.status, response.StatusCode, "%+v", site)
	}
}
