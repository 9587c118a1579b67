package render

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul-template/template"
	"github.com/hashicorp/consul-template/watch"
	"github.com/hashicorp/consul/api"
)

const (
	// queryWait is how long a blocking query waits for a change. It bounds how
	// long a query can hang on a server that was cut off from the others.
	queryWait = 30 * time.Second
	retryMin  = 250 * time.Millisecond
	retryMax  = 5 * time.Second
	// queryErrorTTL is how long a failed query counts: it is sent again within
	// retryMax, and fails again when nothing has changed.
	queryErrorTTL = 12 * time.Second
)

// watches is the set of blocking queries at Consul, with consul-template's
// Watcher doing the work, and the brain that has their answers.
type watches struct {
	watcher *watch.Watcher
	brain   *template.Brain
	own     map[string]dependency.Dependency // the loop's
	native  map[string]dependency.Dependency // the templates', by functions like key
	broken  func()                           // called when a query ends without an answer

	mu          sync.Mutex
	failed      error // the last query that failed
	failedAt    time.Time
	failedSince time.Time
}

func newWatches(config *api.Config, broken func()) (*watches, error) {
	clients := dependency.NewClientSet()
	if err := clients.CreateConsulClient(clientInput(config)); err != nil {
		return nil, fmt.Errorf("make a Consul client: %w", err)
	}
	return &watches{
		watcher: watch.NewWatcher(&watch.NewWatcherInput{
			Clients: clients,
			// No MaxStale: a server that just started and knows nothing yet
			// would answer with an empty catalog.
			BlockQueryWaitTime: queryWait,
			RetryFuncConsul:    retry,
			RetryFuncDefault:   retry,
		}),
		brain:  template.NewBrain(),
		own:    map[string]dependency.Dependency{},
		native: map[string]dependency.Dependency{},
		broken: broken,
	}, nil
}

// clientInput is consul/api's configuration in consul-template's words.
func clientInput(c *api.Config) *dependency.CreateConsulClientInput {
	input := &dependency.CreateConsulClientInput{
		Address:    c.Address,
		Namespace:  c.Namespace,
		Token:      c.Token,
		TokenFile:  c.TokenFile,
		SSLEnabled: c.Scheme == "https" || strings.HasPrefix(c.Address, "https://"),
		SSLVerify:  !c.TLSConfig.InsecureSkipVerify,
		SSLCert:    c.TLSConfig.CertFile,
		SSLKey:     c.TLSConfig.KeyFile,
		SSLCACert:  c.TLSConfig.CAFile,
		SSLCAPath:  c.TLSConfig.CAPath,
		ServerName: c.TLSConfig.Address,

		TransportDialTimeout:         5 * time.Second,
		TransportDialKeepAlive:       15 * time.Second,
		TransportTLSHandshakeTimeout: 5 * time.Second,
		TransportIdleConnTimeout:     90 * time.Second,
		// There is a connection for every query, and each is idle for a moment
		// between two.
		TransportMaxIdleConns:        4096,
		TransportMaxIdleConnsPerHost: 4096,
	}
	if c.HttpAuth != nil {
		input.AuthEnabled = true
		input.AuthUsername = c.HttpAuth.Username
		input.AuthPassword = c.HttpAuth.Password
	}
	return input
}

// retry never gives up, and spreads the attempts of many queries.
func retry(n int) (bool, time.Duration) {
	wait := retryMax
	if n < 8 {
		wait = min(retryMin<<n, retryMax)
	}
	return true, wait - time.Duration(rand.Int64N(int64(wait)/4))
}

// stop ends the queries. What is under way ends with its answer, within
// queryWait.
func (w *watches) stop() { w.watcher.Stop() }

// drain takes the errors of queries for as long as there may be any: a query
// whose error nobody takes stands still.
func (w *watches) drain(ctx context.Context) error {
	done := ctx.Done()
	var end <-chan time.Time
	for {
		select {
		case err := <-w.watcher.ServerErrCh():
			w.note(err)
		case err := <-w.watcher.ErrCh():
			w.note(err)
		case <-done:
			// Queries that are failing right now still have theirs to give.
			done, end = nil, time.After(100*time.Millisecond)
		case <-end:
			return ctx.Err()
		}
	}
}

func (w *watches) note(err error) {
	if !errors.As(err, new(api.StatusError)) {
		w.broken()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.failed == nil || now.Sub(w.failedAt) > queryErrorTTL {
		w.failedSince = now
	}
	w.failed, w.failedAt = err, now
}

// lastError is the last query that failed after the given time, if that was
// lately, and since when some do.
func (w *watches) lastError(now, after time.Time) (since time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil || now.Sub(w.failedAt) > queryErrorTTL || w.failedAt.Before(after) {
		return time.Time{}, nil
	}
	return w.failedSince, w.failed
}

// receive takes an answer, and reports which query it is of; false when the
// query isn't wanted any longer.
func (w *watches) receive(view *watch.View) (string, bool) {
	d := view.Dependency()
	name := d.String()
	if w.own[name] == nil && w.native[name] == nil {
		return "", false
	}
	w.brain.Remember(d, view.Data())
	return name, true
}

// add watches d for the loop itself.
func (w *watches) add(d dependency.Dependency) error {
	w.own[d.String()] = d
	return w.start(d)
}

// remove ends what add began.
func (w *watches) remove(name string) {
	d := w.own[name]
	if d == nil {
		return
	}
	delete(w.own, name)
	w.end(d)
}

// restart asks everything anew, from the beginning. What the loop itself
// watches keeps its last answers until then; what the templates do, they have
// to ask for again.
func (w *watches) restart(remake func(name string) (dependency.Dependency, error)) error {
	native := w.native
	w.native = map[string]dependency.Dependency{}
	for _, d := range native {
		w.end(d)
	}
	var errs []error
	for name, d := range w.own {
		w.watcher.Remove(d)
		again, err := remake(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		w.own[name] = again
		errs = append(errs, w.start(again))
	}
	return errors.Join(errs...)
}

// setNative says what the templates need now: the rest is ended and forgotten.
// With failed templates nobody knows all they need, so nothing is ended.
func (w *watches) setNative(needs map[string]dependency.Dependency, complete bool) error {
	var errs []error
	for name, d := range needs {
		if w.native[name] == nil {
			w.native[name] = d
			errs = append(errs, w.start(d))
		}
	}
	if !complete {
		return errors.Join(errs...)
	}
	for name, d := range w.native {
		if needs[name] == nil {
			delete(w.native, name)
			w.end(d)
		}
	}
	return errors.Join(errs...)
}

func (w *watches) start(d dependency.Dependency) error {
	if _, err := w.watcher.Add(d); err != nil {
		return fmt.Errorf("watch %s: %w", d, err)
	}
	return nil
}

func (w *watches) end(d dependency.Dependency) {
	if name := d.String(); w.own[name] != nil || w.native[name] != nil {
		return // the other needs it still
	}
	w.watcher.Remove(d)
	w.brain.Forget(d)
}
