package controller

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"lbctl/internal/disk"
	"lbctl/internal/nginx"
)

// Kind is what happened.
type Kind string

// The kinds of an Event.
const (
	Applied              Kind = "applied"     // nginx serves a new generation
	Moved                Kind = "moved"       // nginx has fetched other servers, without a new generation
	Rejected             Kind = "rejected"    // nginx -t refused a configuration
	RolledBack           Kind = "rolled_back" // nginx did not take a generation, and serves the one before
	NoWayBack            Kind = "no_way_back" // nor does it serve the one before
	Failed               Kind = "failed"      // anything else: the disk, a timeout
	NginxDown            Kind = "nginx_down"
	NginxUp              Kind = "nginx_up"
	Drift                Kind = "drift"    // something else than us changed what nginx serves or its files
	RolledBackByOperator Kind = "rollback" // an operator's rollback
	Resumed              Kind = "resume"   // an operator's resume
)

// kindOf is what a failed apply is in the history.
func kindOf(err error) Kind {
	switch {
	case errors.Is(err, nginx.ErrDegraded):
		return NoWayBack
	case errors.Is(err, nginx.ErrRejected):
		return Rejected
	case errors.Is(err, nginx.ErrRolledBack):
		return RolledBack
	case errors.Is(err, nginx.ErrNotRunning):
		return NginxDown
	default:
		return Failed
	}
}

// Event is one thing that happened. A failure that repeats is there once.
type Event struct {
	Time        time.Time `json:"time"` // when it was over
	Kind        Kind      `json:"kind"`
	Generation  int       `json:"generation"`             // the current one after it
	From        int       `json:"from,omitempty"`         // the current one before it
	TookSeconds float64   `json:"took_seconds,omitempty"` // for nginx_up: how long it was down
	Change      string    `json:"change,omitempty"`       // "hello_server +1"
	Reason      string    `json:"reason,omitempty"`
}

func (e Event) log(logger *slog.Logger) {
	args := []any{"generation", e.Generation, "took", time.Duration(e.TookSeconds * float64(time.Second)).Round(time.Millisecond)}
	if e.Change != "" {
		args = append(args, "change", e.Change)
	}
	if e.Reason != "" {
		args = append(args, "reason", e.Reason)
	}
	switch e.Kind {
	case Applied:
		logger.Info("configuration applied", args...)
	case Moved:
		logger.Info("servers fetched by nginx", args...)
	case NginxUp:
		logger.Info("nginx answers again", args...)
	case RolledBackByOperator:
		logger.Info("rolled back by an operator", args...)
	case Resumed:
		logger.Info("resumed by an operator", args...)
	case NginxDown:
		logger.Warn("nginx does not answer", args...)
	case Drift:
		logger.Warn("drift put right", args...)
	default:
		logger.Error("configuration not applied", append(args, "outcome", e.Kind)...)
	}
}

// The history keeps its last events; the file may grow to somewhat more between
// two rewrites.
const (
	historyKeep  = 1000
	historySlack = 200
	historyMost  = 256 << 20 // bytes of a file that is read
)

func (o Options) historyPath() string { return filepath.Join(o.StateDir, "history.jsonl") }

// history is the last events, in memory and as a file with one JSON object a
// line.
type history struct {
	path string

	mu     sync.Mutex
	events []Event
	lines  int  // in the file
	torn   bool // the file lacks events, and may end in half a line
}

// load reads the file. A line that is no event is skipped: a crash or a full disk
// may have cut it short. Writing it again is left to add: the disk may still be full.
// What is in the place of the file and is none is moved aside.
func (h *history) load(logger *slog.Logger) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, err := disk.ReadFile(h.path, historyMost)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, disk.ErrUnfit) {
		aside, asideErr := disk.MoveAside(h.path)
		if asideErr != nil {
			return fmt.Errorf("read history: %w; %w", err, asideErr)
		}
		logger.Warn("starting without a history", "reason", err, "now", aside)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read history: %w", err)
	}
	for line := range bytes.Lines(b) {
		h.lines++
		var e Event
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &e) != nil {
			h.torn = true
			continue
		}
		h.events = append(h.events, e)
	}
	return nil
}

func (h *history) add(e Event) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	if h.lines++; h.torn || h.lines > historyKeep+historySlack {
		return h.rewrite()
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	err = disk.Append(h.path, append(line, '\n'))
	h.torn = err != nil
	return err
}

// rewrite makes the file what is to be kept.
func (h *history) rewrite() error {
	h.events = slices.Clone(h.events[max(0, len(h.events)-historyKeep):])
	var b bytes.Buffer
	for _, e := range h.events {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	h.lines = len(h.events)
	err := disk.Replace(h.path, b.Bytes())
	h.torn = err != nil
	return err
}

func (h *history) newestFirst() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	events := slices.Clone(h.events[max(0, len(h.events)-historyKeep):])
	slices.Reverse(events)
	return events
}
