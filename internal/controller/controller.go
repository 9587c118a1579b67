// Package controller is the main loop of the daemon: it moves nginx to the newest
// configuration, and reports what nginx serves.
//
// One goroutine owns the state. It applies a change at once if there was none
// shortly before, and lets the changes that follow settle first. One apply runs at a
// time; of the configurations that arrive meanwhile it applies only the latest. The loop
// retries configurations that nginx does not accept, corrects drift, and pins a generation
// that an operator rolled back to, until resume.
package controller

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

// Source delivers configurations.
type Source interface {
	// Updates delivers complete configurations, the latest only.
	Updates() <-chan render.Configuration
	Status() render.Status
	// NginxAccepted is called with the entries that nginx serves now.
	NginxAccepted(entries []endpoints.Entry)
	// QuarantineCulprits finds the services or the policy that made nginx reject a
	// configuration; Updates then delivers one without their changes. test is nil if nginx -t
	// passed and the reload failed. QuarantineCulprits returns when ctx is done, at the latest.
	QuarantineCulprits(ctx context.Context, cfg render.Configuration, why string, test render.Test) render.Culprits
}

// Server is the nginx that serves the configurations.
type Server interface {
	// Apply stores, tests and activates files as a new generation. If it fails, nginx
	// serves what it served before, unless the error says otherwise. ctx cancels it only
	// before it has changed anything.
	Apply(ctx context.Context, files map[string][]byte, note nginx.Note) (nginx.Generation, error)
	// Activate moves nginx to a generation on disk, with the same guarantees as Apply.
	Activate(ctx context.Context, number int) (nginx.Generation, error)
	// Serving asks nginx which generation it serves.
	Serving(ctx context.Context) (int, error)
	// Current returns the generation that nginx should serve; its Number is 0 before
	// the first.
	Current() (nginx.Generation, error)
	Generations() ([]nginx.Generation, error)
	// Files returns the files of a generation, as they were given to Apply.
	Files(number int) (map[string][]byte, error)
	// Marked reports whether generation.conf of a generation is as lbctl wrote it. With
	// that file nginx answers with the number of the generation that it serves.
	Marked(number int) bool
	// Test runs nginx -t; it changes nothing.
	Test(ctx context.Context, files map[string][]byte) error
	Processes() (nginx.Processes, error)
	EndLeftovers() (pids []int, err error)
	Build() nginx.Build
	// RotateLog limits the size of the error log.
	RotateLog(ctx context.Context) error
	// WriteBootstrapServers writes the bootstrap servers, given as lines by upstream.
	// failed has the errors of single upstreams; err means that no file was written.
	WriteBootstrapServers(servers map[string]string) (failed map[string]error, err error)
	// BootstrapServers returns the bootstrap servers that nginx has read, and uses until
	// Reload: lines by upstream, empty if lbctl doesn't know them.
	BootstrapServers(ctx context.Context) (map[string]string, error)
	Reload(ctx context.Context) error
}

// Options configure the loop. StateDir is required. A duration of zero means the one of
// DefaultOptions.
type Options struct {
	StateDir string // directory of history.jsonl and frozen.json
	Version  string // version of lbctl, for Status
	// PolicyKeys and AccessKeys are what the keys of the operator's documents begin with, for Status.
	PolicyKeys, AccessKeys string

	// Endpoints answers nginx's questions for servers. It is nil if nginx doesn't ask;
	// EndpointsNote says why.
	Endpoints     Endpoints
	EndpointsNote string
	// Marks says when nginx itself considers a server failed, as in the templates.
	Marks nginx.Marks

	// WorkersNote says why nginx has fewer workers than the machine has cores; empty if it
	// has as many, or if an operator set their number.
	WorkersNote string

	// SettleMin is how long no further change may come before the waiting changes are
	// applied, except after a quiet time, see SettleMax.
	SettleMin time.Duration
	// SettleMax is the longest time that changes wait while further changes keep coming.
	// After half of it without an apply (a quiet time), a change is applied at once.
	SettleMax time.Duration
	// PauseMax limits how long old workers delay an apply. While n old workers are still
	// there, an apply begins n seconds after the previous one, but at most PauseMax after
	// it. There is never more than one apply per second.
	PauseMax time.Duration
	// RetryMin is the pause before a failed configuration is tried again. The pause
	// doubles with each attempt, up to RetryMax.
	RetryMin, RetryMax time.Duration
	// CheckEvery is how often the loop checks whether nginx serves the current generation.
	// While nginx does not answer, the loop checks once a second.
	CheckEvery time.Duration

	// Recorded gets each event that is added to the history, after that, from several goroutines;
	// default none. It must not block.
	Recorded func(history.Event)
	Logger   *slog.Logger // default slog.Default()
}

// DefaultOptions are the default durations of a loop.
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

// Controller runs the loop, and passes commands to it.
type Controller struct {
	opts     Options
	source   Source
	server   Server
	started  time.Time
	commands chan func(*loop)
	ended    chan struct{}
	history  *history.Log
	restored []endpoints.Entry // of the source's snapshot
	storePin func(*Pin) error  // writePin
	counted  counted

	mu   sync.Mutex
	view view
}

// How long the loop waits.
const (
	applyTimeout = time.Minute // package nginx has shorter timeouts
	askTimeout   = 2 * time.Second
)

// New makes a controller; nothing happens before Run. Call it before the source runs: the
// entries that the source has then are those that nginx got from an earlier lbctl.
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
	c := &Controller{
		opts:     opts,
		source:   source,
		server:   server,
		started:  time.Now(),
		commands: make(chan func(*loop)),
		ended:    make(chan struct{}),
		history:  history.New(filepath.Join(opts.StateDir, "history.jsonl")),
		restored: source.Status().Entries,
		storePin: func(f *Pin) error { return writePin(opts.pinPath(), f) },
	}
	c.history.Added = opts.Recorded
	return c
}

// Run runs the loop until ctx is done. Before it returns, it waits for the running apply
// and writes the history to disk. It returns an error only if the state directory can't be
// read at the start. Call it once.
func (c *Controller) Run(ctx context.Context) error {
	defer close(c.ended)
	l, err := c.load(ctx)
	if err != nil {
		return err
	}
	flush := c.history.Start(c.opts.Logger)
	l.run()
	flush()
	return nil
}

// History returns the last thousand events, newest first, including those of earlier
// processes.
func (c *Controller) History() []history.Event { return c.history.NewestFirst() }

// Reread adds an event to the history: lbctl has read the token file, the certificates and
// the templates again. err is nil if all of them can be used.
func (c *Controller) Reread(err error) {
	reason := "read token file, certificates and templates again"
	if err != nil {
		reason += "; those with errors keep their former content: " + err.Error()
	}
	c.history.Add(history.Event{Time: time.Now(), Kind: history.Reread, Generation: c.shown().current.Number, Reason: reason})
}

// errEnded is the error of commands after the loop has ended.
var errEnded = errors.New("lbctl is stopping")

// Rollback moves nginx to generation number and pins that generation. Until Resume,
// changes in Consul stay pending, even when lbctl restarts. If nginx does not accept the
// generation, nothing changes. If ctx is done first, the rollback still continues.
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

// Resume removes the pin, so that the loop applies the pending configuration. It does
// nothing if no generation is pinned.
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

// command passes a function to the loop, and waits for its result.
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
		case result = <-results: // the loop ran the command before it ended
			return result, nil
		default:
			return result, errEnded
		}
	case <-ctx.Done():
		return result, ctx.Err()
	}
}
