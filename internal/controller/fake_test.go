package controller

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/consul"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

// fakeServer is an nginx in memory, with its generations.
type fakeServer struct {
	mu            sync.Mutex
	generations   []nginx.Generation
	files         map[int]map[string][]byte
	unmarked      int // the generation whose generation.conf is bad
	current       int
	serving       int
	down          error         // the error of Serving
	masterGone    bool          // only workers are left
	takes         time.Duration // the duration of Apply and Activate
	fail          func(hash string) error
	testFails     error
	applied       []appliedAt
	activated     []int
	old           []nginx.Process // workers
	flying        int
	mostFlying    int
	bootstrap     map[string]string // written
	bootstrapFail error
	bootstrapLeft map[string]error           // by upstream
	read          map[string]string          // read by nginx
	reloads       int                        // by Reload
	known         func(upstream string) bool // whether Reload drops an upstream's bootstrap servers; nil: all
	master        nginx.Process              // zero: process 7
}

type appliedAt struct {
	hash string
	at   time.Duration // since the epoch of the bubble
}

var bubbleEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func newFakeServer() *fakeServer { return &fakeServer{files: map[int]map[string][]byte{}} }

func (s *fakeServer) begin() {
	s.mu.Lock()
	s.flying++
	s.mostFlying = max(s.mostFlying, s.flying)
	takes := s.takes
	s.mu.Unlock()
	time.Sleep(takes)
	s.mu.Lock()
	s.flying--
}

func (s *fakeServer) Apply(_ context.Context, files map[string][]byte, note nginx.Note) (nginx.Generation, error) {
	start := time.Since(bubbleEpoch)
	s.begin()
	defer s.mu.Unlock()
	s.applied = append(s.applied, appliedAt{note.Hash, start})
	var err error
	if s.fail != nil {
		err = s.fail(note.Hash)
	}
	if err != nil && kindOf(err) != history.NginxDown {
		return nginx.Generation{}, err
	}
	g := nginx.Generation{Number: len(s.generations) + 1, Created: time.Now(), Served: time.Now(), Note: note}
	s.generations = append(s.generations, g)
	s.files[g.Number] = maps.Clone(files)
	s.current = g.Number
	if err == nil {
		s.serving = g.Number
	}
	return g, err
}

func (s *fakeServer) Activate(_ context.Context, n int) (nginx.Generation, error) {
	s.begin()
	defer s.mu.Unlock()
	s.activated = append(s.activated, n)
	g := s.generations[n-1]
	if s.fail != nil {
		if err := s.fail(g.Hash); err != nil {
			if kindOf(err) == history.NginxDown {
				s.current = n
			}
			return g, err
		}
	}
	s.current, s.serving = n, n
	return g, nil
}

func (s *fakeServer) Serving(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving, s.down
}

func (s *fakeServer) Current() (nginx.Generation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == 0 {
		return nginx.Generation{}, nil
	}
	return s.generations[s.current-1], nil
}

func (s *fakeServer) Generations() ([]nginx.Generation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.generations)
	slices.Reverse(all)
	return all, nil
}

func (s *fakeServer) Files(n int) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files, ok := s.files[n]
	if !ok {
		return nil, fmt.Errorf("generation %d: %w", n, fs.ErrNotExist)
	}
	return maps.Clone(files), nil
}

func (s *fakeServer) Marked(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return n != s.unmarked
}

func (s *fakeServer) Processes() (nginx.Processes, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil || s.masterGone {
		return nginx.Processes{}, nginx.ErrNotRunning
	}
	master := s.master
	if master == (nginx.Process{}) {
		master.PID = 7
	}
	return nginx.Processes{Master: master, Workers: make([]nginx.Process, 2), OldWorkers: slices.Clone(s.old)}, nil
}

func (s *fakeServer) EndLeftovers() ([]int, error) { return nil, nil }

func (s *fakeServer) Test(context.Context, map[string][]byte) error { return s.testFails }

func (s *fakeServer) reloaded() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloads
}

func (s *fakeServer) bootstrapNow() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.bootstrap)
}

func (s *fakeServer) RotateLog(context.Context) error { return nil }

func (s *fakeServer) WriteBootstrapServers(servers map[string]string) (map[string]error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bootstrapFail == nil {
		s.bootstrap = maps.Clone(servers)
	}
	return s.bootstrapLeft, s.bootstrapFail
}

func (s *fakeServer) BootstrapServers(context.Context) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.read), s.down
}

// start starts nginx with bootstrap servers of these upstreams.
func (s *fakeServer) start(upstreams ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = map[string]string{}
	for _, upstream := range upstreams {
		s.read[upstream] = ""
	}
}

func (s *fakeServer) Reload(context.Context) error {
	s.begin()
	defer s.mu.Unlock()
	s.reloads++
	maps.DeleteFunc(s.read, func(upstream, _ string) bool { return s.known == nil || s.known(upstream) })
	return nil
}

func (s *fakeServer) Build() nginx.Build { return nginx.Build{Version: "1.30.6"} }

// with changes the fake under its lock.
func (s *fakeServer) with(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *fakeServer) hashes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var hs []string
	for _, a := range s.applied {
		hs = append(hs, a.hash)
	}
	return hs
}

type fakeSource struct {
	updates chan render.Configuration
	mu      sync.Mutex
	status  render.Status
	took    []string  // names of the services that nginx accepted last
	seen    time.Time // Seen of the configurations of rig.servers
	// refused returns the culprits; nil means no culprits.
	refused func(cfg render.Configuration, why string, test render.Test) render.Culprits
}

func newFakeSource() *fakeSource {
	return &fakeSource{
		updates: make(chan render.Configuration, 1),
		status:  render.Status{Consul: consul.Status{Reachable: true, Leader: "10.0.0.1:8300", Since: time.Now()}},
	}
}

func (s *fakeSource) Updates() <-chan render.Configuration { return s.updates }

func (s *fakeSource) Status() render.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// tell changes the status. The loop may read it at any time.
func (s *fakeSource) tell(change func(s *render.Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

func (s *fakeSource) NginxAccepted(entries []endpoints.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = nil
	for _, e := range entries {
		s.took = append(s.took, e.Name)
	}
}

func (s *fakeSource) QuarantineCulprits(_ context.Context, cfg render.Configuration, why string, test render.Test) render.Culprits {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		return render.Culprits{}
	}
	return s.refused(cfg, why, test)
}

// say delivers a configuration. hash is also the content of its only file.
func (s *fakeSource) say(hash string, entries ...endpoints.Entry) {
	cfg := render.Configuration{
		Hash:    hash,
		Files:   map[string][]byte{"nginx.conf": []byte(hash)},
		Entries: entries,
	}
	for {
		select {
		case s.updates <- cfg:
			return
		default:
		}
		select {
		case <-s.updates:
		default:
		}
	}
}

// entry returns a gRPC service with n instances.
func entry(name string, instances int) endpoints.Entry {
	e := endpoints.Entry{State: endpoints.Fresh}
	e.Name, e.Protocol, e.Routes, e.OK = name, endpoints.GRPC, []endpoints.Route{{Path: "/" + name}}, true
	for n := range instances {
		e.Instances = append(e.Instances, endpoints.Instance{
			ID: fmt.Sprint(name, "-", n), Node: "n", Address: "10.0.0.1", Port: 7000 + n, Weight: 1, Status: endpoints.Passing,
		})
	}
	return e
}

// rig is a controller with its fakes, in a bubble.
type rig struct {
	*testing.T
	dir    string
	asks   Endpoints // nil: instances by reload
	server *fakeServer
	source *fakeSource
	c      *Controller
	log    bytes.Buffer
	end    func()
	adjust func(*Controller) // before it runs; may be nil
	hash   string            // of the configurations of instancesOf; default "same"
}

// bubble runs test with a running controller.
func bubble(t *testing.T, test func(r *rig)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, dir: dir, server: newFakeServer(), source: newFakeSource()}
		r.run()
		defer func() { r.end() }()
		test(r)
	})
}

func (r *rig) run() {
	r.c = New(Options{StateDir: r.dir, Version: "test", Endpoints: r.asks, Logger: slog.New(slog.NewTextHandler(&r.log, nil))}, r.source, r.server)
	if r.adjust != nil {
		r.adjust(r.c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.c.Run(ctx) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		require.NoError(r, <-done)
	})
	synctest.Wait()
}

// restart starts another lbctl with the same state directory and nginx. It has no answer from
// Consul yet.
func (r *rig) restart() {
	r.end()
	r.source = newFakeSource()
	r.run()
}

func (r *rig) say(hash string, entries ...endpoints.Entry) {
	r.source.say(hash, entries...)
	synctest.Wait()
}

func (r *rig) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) status() Status { return r.c.Status(r.Context()) }

// events returns the history, oldest first, as "applied 1", without the starts and ends of lbctl.
func (r *rig) events() []string { return texts(r.c.History()) }

// written returns the events in the file, as events does.
func (r *rig) written() []string {
	h := history.New(filepath.Join(r.dir, "history.jsonl"))
	require.NoError(r, h.Load(slog.New(slog.DiscardHandler)))
	return texts(h.NewestFirst())
}

func texts(newestFirst []history.Event) []string {
	var es []string
	for _, e := range slices.Backward(newestFirst) {
		if e.Kind != history.Started && e.Kind != history.Stopped {
			es = append(es, fmt.Sprintf("%s %d", e.Kind, e.Generation))
		}
	}
	return es
}
