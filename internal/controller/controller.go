// Package controller is the daemon's one loop: it moves nginx to the newest
// configuration, knows what nginx serves, and says so.
//
// One goroutine owns the state. It applies a change at once when there was none
// shortly before, and lets the changes that follow settle first. One apply runs at a
// time; of the configurations that arrive meanwhile only the latest counts. The loop
// retries what nginx does not take, puts right what drifts, and keeps a generation that
// an operator rolled back to until it is resumed.
package controller

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

// Source is where configurations come from.
type Source interface {
	// Updates delivers complete configurations, the latest only.
	Updates() <-chan render.Configuration
	Status() render.Status
	// Took says what nginx serves now.
	Took(entries []endpoints.Entry)
	// Refused finds the services because of which nginx did not take a
	// configuration; Updates then delivers one without their changes. test is nil
	// when nginx -t does not find the fault. Refused ends with ctx at the latest.
	Refused(ctx context.Context, cfg render.Configuration, why string, test render.Test) render.Culprits
}

// Server is the nginx that serves them.
type Server interface {
	// Apply stores, tests and activates files as a new generation. If it fails, nginx
	// serves what it served before, unless the error says otherwise. ctx ends it only
	// while nothing has been changed.
	Apply(ctx context.Context, files map[string][]byte, note nginx.Note) (nginx.Generation, error)
	// Activate moves to an earlier generation, under the same promises.
	Activate(ctx context.Context, number int) (nginx.Generation, error)
	// Serving asks which generation answers now.
	Serving(ctx context.Context) (int, error)
	// Current is the generation that is to be served; its Number is 0 before
	// the first.
	Current() (nginx.Generation, error)
	Generations() ([]nginx.Generation, error)
	// Files is what Apply was given for a generation.
	Files(number int) (map[string][]byte, error)
	// Marked reports whether a generation's generation.conf, by which nginx answers with
	// the generation's number, is as lbctl writes it.
	Marked(number int) bool
	// Test is nginx -t: it changes nothing.
	Test(ctx context.Context, files map[string][]byte) error
	Processes() (nginx.Processes, error)
	Build() nginx.Build
	// RotateLog keeps the error log bounded.
	RotateLog(ctx context.Context) error
	// WriteBootstrapServers says with which servers the upstreams start that nginx
	// asks for. failed is by upstream; the error is about all of them.
	WriteBootstrapServers(servers map[string]string) (failed map[string]error, err error)
	// BootstrapServers is which of them nginx has read, and keeps until Reload: lines
	// by upstream, which are empty where they are not known.
	BootstrapServers(ctx context.Context) (map[string]string, error)
	Reload(ctx context.Context) error
}

// Options say how the loop works. StateDir is required; durations that are zero are those of
// DefaultOptions.
type Options struct {
	StateDir string // of history.jsonl and frozen.json
	Version  string // lbctl's, for Status

	// Endpoints is what nginx asks for servers; nil when it doesn't, for the
	// reason that EndpointsNote says.
	Endpoints     Endpoints
	EndpointsNote string
	// Marks is when nginx itself takes a server for failed, as the templates have it.
	Marks nginx.Marks

	// WorkersNote says why nginx has fewer workers than it could; empty when it
	// doesn't, or was told how many.
	WorkersNote string

	// SettleMin is how long changes must pause before they are applied, when
	// they don't come after quiet.
	SettleMin time.Duration
	// SettleMax is how long changes that never pause wait at most. Half
	// of it without an apply is quiet: the next change goes at once.
	SettleMax time.Duration
	// PauseMax is how far apart old workers may keep two applies: with n of them
	// still there, the second begins n seconds after the first, but at most
	// PauseMax after it. Whatever it is, there is no more than one
	// apply a second.
	PauseMax time.Duration
	// RetryMin and RetryMax bound the pause before a configuration that
	// failed is tried again; it doubles each time.
	RetryMin, RetryMax time.Duration
	// CheckEvery is how often the loop looks whether nginx serves what it
	// should; once a second while nginx does not answer.
	CheckEvery time.Duration

	Logger *slog.Logger // default slog.Default()
}

// DefaultOptions are the durations that a loop has unless told otherwise.
func DefaultOptions() Options {
	return Options{
		SettleMin:  200 * time.Millisecond,
		SettleMax:  2 * time.Second,
		PauseMax:   30 * time.Second,
		RetryMin:   time.Second,
		RetryMax:   time.Minute,
		CheckEvery: 5 * time.Second,
	}
}

// Controller runs the loop, and answers for it.
type Controller struct {
	opts     Options
	source   Source
	server   Server
	started  time.Time
	commands chan func(*loop)
	ended    chan struct{}
	history  *history
	storePin func(*Freeze) error // writeFreeze

	mu   sync.Mutex
	view view
}

// Bounds of what the loop waits for.
const (
	applyTimeout = time.Minute // nginx has shorter ones of its own
	askTimeout   = 2 * time.Second
)

// New makes a controller; nothing happens before Run.
func New(opts Options, source Source, server Server) *Controller {
	defaults := DefaultOptions()
	opts.SettleMin = cmp.Or(opts.SettleMin, defaults.SettleMin)
	opts.SettleMax = cmp.Or(opts.SettleMax, defaults.SettleMax)
	opts.PauseMax = cmp.Or(opts.PauseMax, defaults.PauseMax)
	opts.RetryMin = cmp.Or(opts.RetryMin, defaults.RetryMin)
	opts.RetryMax = cmp.Or(opts.RetryMax, defaults.RetryMax)
	opts.CheckEvery = cmp.Or(opts.CheckEvery, defaults.CheckEvery)
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return &Controller{
		opts:     opts,
		source:   source,
		server:   server,
		started:  time.Now(),
		commands: make(chan func(*loop)),
		ended:    make(chan struct{}),
		history:  newHistory(opts.historyPath()),
		storePin: func(f *Freeze) error { return writeFreeze(opts.freezePath(), f) },
	}
}

// Run is the loop. It returns nil when ctx is done, the apply in flight, if any, is over
// and the history is on disk; an error only when the state directory can't be read at the
// start. It is called once.
func (c *Controller) Run(ctx context.Context) error {
	defer close(c.ended)
	l, err := c.load(ctx)
	if err != nil {
		return err
	}
	flush := c.history.start(c.opts.Logger)
	l.run()
	flush()
	return nil
}

// History is what happened, the newest first; the last thousand events, across
// restarts.
func (c *Controller) History() []Event { return c.history.newestFirst() }

// Reread adds an event to the history: an operator had the token file, the certificates
// and the templates read again. err is nil if all of them can be used.
func (c *Controller) Reread(err error) {
	reason := "read token file, certificates and templates again"
	if err != nil {
		reason += "; those with errors keep their former content: " + err.Error()
	}
	c.history.add(Event{Time: time.Now(), Kind: Reread, Generation: c.shown().current.Number, Reason: reason})
}

// errEnded is the error of commands when the loop has ended.
var errEnded = errors.New("lbctl is stopping")

// Rollback moves nginx to generation number and pins it there: what Consul says
// is shown as pending until Resume, across restarts too. When nginx refuses, all
// stays as it was. The work goes on when ctx ends first.
func (c *Controller) Rollback(ctx context.Context, number int) (nginx.Generation, error) {
	type result struct {
		generation nginx.Generation
		err        error
	}
	results := make(chan result, 1)
	r, err := command(ctx, c, results, func(l *loop) {
		l.rollback(number, func(g nginx.Generation, err error) {
			l.publish() // the next Status shows the result
			results <- result{g, err}
		})
	})
	return r.generation, errors.Join(err, r.err)
}

// Resume ends what Rollback began: the pending configuration is applied. It does
// nothing when nothing is pinned.
func (c *Controller) Resume(ctx context.Context) error {
	results := make(chan error, 1)
	resumeErr, err := command(ctx, c, results, func(l *loop) {
		l.resume(func(err error) {
			l.publish()
			results <- err
		})
	})
	return errors.Join(err, resumeErr)
}

// command has the loop do something, and waits for the result.
func command[T any](ctx context.Context, c *Controller, results <-chan T, do func(*loop)) (result T, err error) {
	select {
	case c.commands <- do:
	case <-c.ended:
		return result, errEnded
	case <-ctx.Done():
		return result, ctx.Err()
	}
	select {
	case result = <-results:
		return result, nil
	case <-c.ended:
		select {
		case result = <-results: // the loop's last act
			return result, nil
		default:
			return result, errEnded
		}
	case <-ctx.Done():
		return result, ctx.Err()
	}
}
