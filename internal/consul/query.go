package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul/api"
)

const (
	// queryWait is how long a blocking query waits for a change: with a thousand of
	// them each that ends in vain costs something. What it would find out by its end,
	// glances find sooner: that it hangs on a server which was cut off from the
	// others, that it is filtered.
	queryWait = 2 * time.Minute
	// An agent goes on with a query until its time is over, also when whoever asked
	// is gone, and lets a client have no more than agentQueries of them, if it is set
	// up as docs/templates.md says. From manyQueries on, which fit into that three times
	// (those of an lbctl before this one, of this one, and once sent anew), they wait
	// for manyWait only.
	agentQueries = 4096
	manyQueries  = 1300
	manyWait     = time.Minute
	// answerTimeout is how long Consul may take to answer what needn't wait for
	// a change.
	answerTimeout = 15 * time.Second
	retryMin      = 250 * time.Millisecond
	retryMax      = 5 * time.Second
	// doubtAfter is how many failures in a row make a query's last answer
	// doubtful: a single one, when a server restarts, is nothing to talk about.
	doubtAfter = 2
	// renewInterval bounds how often a query that seems to have stalled is sent
	// anew.
	renewInterval = 30 * time.Second
)

// query is a dependency that never fails for consul-template: it is sent again
// for as long as it must be, and knows how it stands. consul-template tells
// neither which query an error is of nor that a query succeeds again with
// nothing new to say.
type query struct {
	dependency.Dependency
	// changed is called when the query falls into doubt, changes its reason or
	// comes out of it.
	changed func()
	wait    func() time.Duration // how long for a change; nil: as consul-template says
	again   chan struct{}        // what is under way is given up, and asked anew
	stopped chan struct{}

	mu       sync.Mutex
	giveUp   context.CancelCauseFunc // of what is under way, if that can be given up
	index    uint64                  // of the last answer; 0 before the first
	failures int                     // in a row
	since    time.Time
	err      error
	// renewedAt is when the query was last found to have stalled, with renewedFor
	// the index that it should have come to.
	renewedAt  time.Time
	renewedFor uint64
}

func newQuery(d dependency.Dependency, changed func()) *query {
	return &query{Dependency: d, changed: changed, again: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// Fetch answers when Consul has news, or nothing new after the time that opts
// says. The only error is ErrStopped, as it is: consul-template compares.
func (q *query) Fetch(clients *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	asked := *opts
	for {
		data, meta, err := q.ask(clients, asked)
		switch {
		case err == nil:
			q.succeeded(meta.LastIndex)
			if asked.WaitIndex == 0 && meta.LastIndex == opts.WaitIndex && meta.LastIndex > 0 {
				// A Consul that lost its data may have come to the same index with
				// other content. A lower one has consul-template compare.
				lower := *meta
				lower.LastIndex--
				meta = &lower
			}
			return data, meta, nil
		case errors.Is(err, dependency.ErrStopped):
			return nil, nil, dependency.ErrStopped
		case !errors.Is(err, errRenewed):
			select {
			case <-time.After(retry(q.failed(err))):
			case <-q.again:
			case <-q.stopped:
				return nil, nil, dependency.ErrStopped
			}
		}
		// Without an index Consul answers at once: whether the query is well again
		// shows without waiting for news, and the index may be one from before
		// Consul lost its data.
		asked.WaitIndex = 0
	}
}

var errRenewed = errors.New("the query is sent anew")

// cancellable is a dependency that can be given up before it answers, which those
// of consul-template can't.
type cancellable interface {
	FetchContext(context.Context, *dependency.ClientSet, *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error)
}

// ask sends the query once.
func (q *query) ask(clients *dependency.ClientSet, opts dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	if q.wait != nil {
		opts.WaitTime = q.wait()
	}
	d, ok := q.Dependency.(cancellable)
	if !ok {
		return q.askBeside(clients, opts)
	}
	ctx, giveUp := context.WithCancelCause(context.Background())
	defer giveUp(nil)
	limit := q.limit(opts)
	defer time.AfterFunc(limit, func() { giveUp(noAnswer(limit)) }).Stop()
	q.mu.Lock()
	q.giveUp = giveUp
	q.mu.Unlock()
	select { // what came before giveUp was there
	case <-q.again:
		return nil, nil, errRenewed
	case <-q.stopped:
		return nil, nil, dependency.ErrStopped
	default:
	}
	data, meta, err := d.FetchContext(ctx, clients, &opts)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if errors.Is(err, errRenewed) {
		select {
		case <-q.again:
		default:
		}
	}
	return data, meta, err
}

// askBeside is ask for what can't be cancelled: when it is given up, it ends by
// itself, with its answer or its connection.
func (q *query) askBeside(clients *dependency.ClientSet, opts dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	type answer struct {
		data any
		meta *dependency.ResponseMetadata
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		data, meta, err := q.Dependency.Fetch(clients, &opts)
		answers <- answer{data, meta, err}
	}()
	var late <-chan time.Time
	limit := q.limit(opts)
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case a := <-answers:
		return a.data, a.meta, a.err
	case <-late:
		return nil, nil, noAnswer(limit)
	case <-q.again:
		return nil, nil, errRenewed
	case <-q.stopped:
		return nil, nil, dependency.ErrStopped
	}
}

func noAnswer(limit time.Duration) error {
	return fmt.Errorf("no answer within %s", limit.Round(time.Second))
}

// limit is how long an answer may take; 0 where there is no limit, as for files
// and for those of consul-template's queries that wait on their own.
func (q *query) limit(opts dependency.QueryOptions) time.Duration {
	switch q.Dependency.(type) {
	case cancellable, *dependency.HealthServiceQuery, *dependency.CatalogServicesQuery:
	default:
		return 0
	}
	if opts.WaitIndex == 0 {
		return answerTimeout
	}
	return opts.WaitTime + opts.WaitTime/16 + answerTimeout // Consul adds up to a sixteenth
}

// Stop ends the query.
func (q *query) Stop() {
	close(q.stopped)
	q.cancel(dependency.ErrStopped)
	q.Dependency.Stop()
}

// renew gives up what is under way and asks anew.
func (q *query) renew() {
	notify(q.again)
	q.cancel(errRenewed)
}

func (q *query) cancel(why error) {
	q.mu.Lock()
	giveUp := q.giveUp
	q.mu.Unlock()
	if giveUp != nil {
		giveUp(why)
	}
}

func (q *query) succeeded(index uint64) {
	q.mu.Lock()
	doubted := q.failures >= doubtAfter
	q.index, q.failures, q.err = index, 0, nil
	q.mu.Unlock()
	if doubted {
		q.changed()
	}
}

// failed takes note of an error, and returns how many came before it in a row.
func (q *query) failed(err error) int {
	q.mu.Lock()
	before := q.failures
	if q.failures++; before == 0 {
		q.since = time.Now()
	}
	changed := q.failures == doubtAfter || q.failures > doubtAfter && whatFails(err) != whatFails(q.err)
	q.err = err
	q.mu.Unlock()
	if changed {
		q.changed()
	}
	return before
}

// stalled reports whether the query has been given nothing beyond heard, though
// Consul has come to news, and asks anew then: once for the same news, since
// index and news may come from different counts, when the agent serves
// blocking queries from its own memory (use_streaming_backend).
func (q *query) stalled(heard, news uint64) bool {
	q.mu.Lock()
	now := time.Now()
	stalled := q.index == heard && q.failures == 0 && news != q.renewedFor && now.Sub(q.renewedAt) >= renewInterval
	if stalled {
		q.renewedAt, q.renewedFor = now, news
	}
	q.mu.Unlock()
	if stalled {
		q.renew()
	}
	return stalled
}

// heard is the index of the last answer; false when there is none that counts.
func (q *query) heard() (uint64, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.index, q.index > 0 && q.failures == 0
}

// failing is the query as it fails; false when its last answer is not in doubt.
func (q *query) failing() (failing, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failures < doubtAfter {
		return failing{}, false
	}
	return failing{q.String(), q.since, q.err}, true
}

// retry is how long to wait after a failure, n having come before it in a row.
// It spreads the attempts of many queries.
func retry(n int) time.Duration {
	wait := retryMax
	if n < 8 {
		wait = min(retryMin<<n, retryMax)
	}
	return wait - time.Duration(rand.Int64N(int64(wait)/4))
}

// failing is a query that fails.
type failing struct {
	query string
	since time.Time
	err   error
}

// reason is for a service whose query it is.
func (f failing) reason() string {
	return fmt.Sprintf("%s for it since %s", whatFails(f.err), f.since.Format(time.TimeOnly))
}

// whatFails is the error without what is different each time.
func whatFails(err error) string {
	var refusal api.StatusError
	if errors.As(err, &refusal) {
		return fmt.Sprintf("Consul answers %d", refusal.Code)
	}
	return "Consul gives no answer"
}

// details is the error with everything.
func (f failing) details() string {
	var refusal api.StatusError
	text := f.err.Error()
	if errors.As(f.err, &refusal) {
		text = refusal.Body
	}
	text = strings.Join(strings.Fields(text), " ")
	if strings.Contains(text, "too many concurrent connections") || strings.HasSuffix(text, "EOF") {
		text += " (there is one connection for every service: is limits.http_max_conns_per_client of the Consul agent high enough?)"
	}
	return text
}
