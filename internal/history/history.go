// Package history keeps what happened: the last events, in memory and on disk.
package history

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"lbctl/internal/disk"
)

// Kind is what happened.
type Kind string

// The kinds of an Event.
const (
	Applied              Kind = "applied"     // nginx serves a new generation
	Moved                Kind = "moved"       // nginx has fetched other servers, without a new generation
	Rejected             Kind = "rejected"    // nginx -t refused a configuration
	RolledBack           Kind = "rolled_back" // nginx did not accept a generation, and serves the one before
	NoWayBack            Kind = "no_way_back" // nginx did not accept a generation, and doesn't serve the one before either
	Failed               Kind = "failed"      // any other failure, such as of the disk, or a timeout
	NginxDown            Kind = "nginx_down"
	NginxUp              Kind = "nginx_up"
	MasterGone           Kind = "nginx_master_gone" // nginx's workers serve without their master process, and take no change
	MasterBack           Kind = "nginx_master_back"
	Drift                Kind = "drift"           // something other than lbctl changed nginx's files or what it serves
	RolledBackByOperator Kind = "rollback"        // an operator's rollback
	Resumed              Kind = "resume"          // an operator's resume
	Reread               Kind = "reread"          // lbctl read files again after SIGHUP, see Controller.Reread
	Ejected              Kind = "ejected"         // lbctl takes instances out of rotation: it can't reach them, or their calls fail
	Readmitted           Kind = "readmitted"      // ejected instances return
	Panic                Kind = "panic"           // too few instances of services are in rotation, so all get traffic
	Held                 Kind = "held"            // instances vanished from Consul and are kept in rotation
	Quarantined          Kind = "quarantined"     // the data of services is invalid or refused; their last good state is kept
	Stale                Kind = "stale"           // Consul no longer answers for services; its last answer is kept
	LastKnownGood        Kind = "last_known_good" // Consul answers, but not for services; its last answer for them is kept
	Recovered            Kind = "recovered"       // services are again as Consul has them
	ConsulDown           Kind = "consul_down"     // Consul does not answer, has no leader, or refuses lbctl
	ConsulUp             Kind = "consul_up"
	Started              Kind = "started" // lbctl itself
	Stopped              Kind = "stopped" // lbctl was told to end; nginx goes on
)

// Kinds returns all kinds of events.
func Kinds() []Kind {
	return []Kind{
		Applied, Moved, Rejected, RolledBack, NoWayBack, Failed, NginxDown, NginxUp, MasterGone, MasterBack,
		Drift, RolledBackByOperator, Resumed, Reread,
		Ejected, Readmitted, Panic, Held, Quarantined, Stale, LastKnownGood, Recovered, ConsulDown, ConsulUp, Started, Stopped,
	}
}

// NamesServices reports whether Change of an event names services or instances, and Reason says why
// they are as they are.
func (k Kind) NamesServices() bool {
	switch k {
	case Ejected, Readmitted, Panic, Held, Quarantined, Stale, LastKnownGood, Recovered:
		return true
	}
	return false
}

// Event is one thing that happened. A failure that repeats is recorded once.
type Event struct {
	Time        time.Time `json:"time"` // when it was over; it may be added some seconds later
	Kind        Kind      `json:"kind"`
	Generation  int       `json:"generation"`             // the current one after it
	From        int       `json:"from,omitempty"`         // the current one before it
	TookSeconds float64   `json:"took_seconds,omitempty"` // of nginx, its master and Consul: how long they were away
	Change      string    `json:"change,omitempty"`       // "hello_server +1"
	Reason      string    `json:"reason,omitempty"`
	// Left are instances that get no traffic any more, at most MaxLeft.
	Left []Departure `json:"left,omitempty"`
}

// MaxLeft bounds Left of an Event.
const MaxLeft = 20

// A Departure is an instance that gets no traffic any more.
type Departure struct {
	Service string `json:"service" printable:"name"`
	ID      string `json:"id" printable:"name"`
	Node    string `json:"node" printable:"name"`
	Reason  string `json:"reason"`
}

// String returns the departure for people: "hello-1 on node-1: in maintenance".
func (d Departure) String() string { return fmt.Sprintf("%s on %s: %s", d.ID, d.Node, d.Reason) }

// leftListed is how many departures LeftText names.
const leftListed = 4

// LeftText names the instances that left, and why; "" if there are none.
func (e Event) LeftText() string {
	var words []string
	for n, d := range e.Left {
		if n == leftListed {
			words = append(words, "and others")
			break
		}
		words = append(words, d.String())
	}
	return strings.Join(words, "; ")
}

// Log logs the event: what needs an operator as an error or a warning.
func (e Event) Log(logger *slog.Logger) {
	took := "took"
	if e.Kind == NginxDown || e.Kind == MasterGone {
		took = "for" // it is no work of lbctl or nginx
	}
	args := []any{"generation", e.Generation, took, time.Duration(e.TookSeconds * float64(time.Second)).Round(time.Millisecond)}
	if e.Change != "" {
		args = append(args, "change", e.Change)
	}
	if e.Reason != "" {
		args = append(args, "reason", e.Reason)
	}
	if left := e.LeftText(); left != "" {
		args = append(args, "left", left)
	}
	level, message := e.Words()
	if message == notApplied {
		args = append(args, "outcome", e.Kind)
	}
	logger.Log(context.Background(), level, message, args...)
}

// notApplied is what the log says of all failures.
const notApplied = "configuration not applied"

// Words returns the event in a few words, and how much it needs an operator.
func (e Event) Words() (slog.Level, string) {
	switch e.Kind {
	case Applied:
		return slog.LevelInfo, "configuration applied"
	case Moved:
		return slog.LevelInfo, "servers fetched by nginx"
	case NginxUp:
		return slog.LevelInfo, "nginx answers again"
	case MasterBack:
		return slog.LevelInfo, "nginx has a master process again"
	case RolledBackByOperator:
		return slog.LevelInfo, "rolled back by an operator"
	case Resumed:
		return slog.LevelInfo, "resumed by an operator"
	case Reread:
		return slog.LevelInfo, "files read again"
	case Readmitted:
		return slog.LevelInfo, "instances readmitted"
	case Recovered:
		return slog.LevelInfo, "services as in Consul again"
	case ConsulUp:
		return slog.LevelInfo, "Consul answers again"
	case Started:
		return slog.LevelInfo, "lbctl has started"
	case Stopped:
		return slog.LevelInfo, "lbctl ends"
	case Ejected:
		return slog.LevelWarn, "instances ejected"
	case Panic:
		return slog.LevelWarn, "services in panic"
	case Held:
		return slog.LevelWarn, "instances held"
	case Quarantined:
		return slog.LevelWarn, "services quarantined"
	case Stale:
		return slog.LevelWarn, "services stale"
	case LastKnownGood:
		return slog.LevelWarn, "services as last known"
	case ConsulDown:
		return slog.LevelWarn, "Consul does not answer"
	case NginxDown:
		return slog.LevelWarn, "nginx does not answer"
	case MasterGone:
		return slog.LevelWarn, "nginx has no master process"
	case Drift:
		return slog.LevelWarn, "drift corrected"
	default:
		return slog.LevelError, notApplied
	}
}

// The history keeps its last events, as many as keep. The file may have slack more
// before it is rewritten.
const (
	keep  = 1000
	slack = 200
	most  = 256 << 20 // bytes of a file that is read
)

// Log keeps the last events, in memory and in a file with one JSON object per line.
// One goroutine writes the file, so adding an event doesn't wait for the disk.
type Log struct {
	// Append appends to the file. It is disk.Append, unless a test has a disk that hangs.
	Append func(path string, content []byte) error
	// Added gets each event that is added, after that; default none. It must not block.
	Added func(Event)

	path  string
	added chan struct{} // signals an event that must be written

	mu     sync.Mutex
	events []Event
	total  int // how many events were added

	// Only Load and the writing goroutine use these.
	written int  // how many of total are in the file
	lines   int  // in the file
	torn    bool // the file lacks events, and may end in half a line
}

// New makes the history whose file is at path. Load reads the file.
func New(path string) *Log {
	return &Log{path: path, Append: disk.Append, added: make(chan struct{}, 1)}
}

// Load reads the file. It skips a line that is not an event: a crash or a full disk may
// have cut it short. It leaves rewriting the file to write, since the disk may still be
// full. If the path is something other than a regular file, it is renamed.
func (h *Log) Load(logger *slog.Logger) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, err := disk.ReadFile(h.path, most)
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
	var events []Event
	for line := range bytes.Lines(b) {
		h.lines++
		var e Event
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &e) != nil {
			h.torn = true
			continue
		}
		events = append(events, e)
	}
	h.events = append(events, h.events...) // some may have been added already
	return nil
}

// flushTimeout is how long a daemon that ends waits until the history is on disk.
const flushTimeout = 10 * time.Second

// Start begins to write events to the file. flush ends that once the last event is
// written, or after flushTimeout; later events are not written.
func (h *Log) Start(logger *slog.Logger) (flush func()) {
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		failing := false
		for last := false; !last; {
			select {
			case <-h.added:
			case <-ending:
				last = true
			}
			err := h.write()
			if err != nil && !failing { // log a lasting failure once
				logger.Warn("history not written", "error", err)
			}
			failing = err != nil
		}
	}()
	return func() {
		close(ending)
		select {
		case <-ended:
		case <-time.After(flushTimeout):
			logger.Warn("the last events of the history are not written: the disk takes too long", "file", h.path, "waited", flushTimeout)
		}
	}
}

// Add stores an event, which is written soon after. If the disk is so slow that more
// events wait than the history keeps, the oldest are never written.
func (h *Log) Add(e Event) {
	h.mu.Lock()
	h.events = append(h.events, e)
	h.total++
	if len(h.events) > keep+slack {
		h.events = h.last(keep)
	}
	h.mu.Unlock()
	select {
	case h.added <- struct{}{}:
	default:
	}
	if h.Added != nil {
		h.Added(e)
	}
}

// last returns a copy of the last n events, or of all if there are fewer.
func (h *Log) last(n int) []Event {
	return slices.Clone(h.events[max(0, len(h.events)-n):])
}

// write writes the events that are not in the file yet. If the file would become too long,
// or may be incomplete, write replaces it with the events that are kept.
func (h *Log) write() error {
	h.mu.Lock()
	total := h.total
	waiting := total - h.written
	whole := h.torn || h.lines+waiting > keep+slack
	count := waiting
	if whole {
		count = keep
	}
	events := h.last(count)
	h.mu.Unlock()
	if waiting == 0 {
		return nil
	}
	var b bytes.Buffer
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	var err error
	if whole {
		err, h.lines = disk.Replace(h.path, b.Bytes()), 0
	} else {
		err = h.Append(h.path, b.Bytes())
	}
	h.lines += len(events)
	if h.torn = err != nil; !h.torn {
		h.written = total
	}
	return err
}

// LastChange returns the newest event about a configuration or about servers that nginx was
// given, or was to be given; nil if there is none.
func (h *Log) LastChange() *Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range slices.Backward(h.events) {
		switch e.Kind {
		case Applied, Moved, Rejected, RolledBack, NoWayBack, Failed, RolledBackByOperator:
			return &e
		}
	}
	return nil
}

// NewestFirst returns a copy of the events that are kept, the newest first.
func (h *Log) NewestFirst() []Event {
	h.mu.Lock()
	events := h.last(keep)
	h.mu.Unlock()
	sortLate(events)
	slices.Reverse(events)
	return events
}

// late is how long after its time an event may be added. A larger difference is one of the clock:
// if that was wrong, what happens now must not disappear among older events.
const late = time.Minute

// sortLate puts events that were added late where their times belong. The others stay in the order
// in which they were added.
func sortLate(events []Event) {
	for n := range events {
		for ; n > 0; n-- {
			if ahead := events[n-1].Time.Sub(events[n].Time); ahead <= 0 || ahead > late {
				break
			}
			events[n-1], events[n] = events[n], events[n-1]
		}
	}
}
