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
	// queryWait is how long a blocking query waits for a change. With a thousand
	// queries, each that ends without news costs something. What its end would show,
	// findStalled finds sooner: that the query hangs on a server that was cut off from
	// the others, or that answers are filtered.
	queryWait = 2 * time.Minute
	// An agent goes on with a query until its time is over, even when the client is
	// gone. It lets a client have agentQueries of them, if it is set up as
	// docs/templates.md says. From manyQueries on, queries wait for manyWait only:
	// that number fits three times, for the lbctl before this one, for this one, and
	// for queries that are sent again.
	agentQueries = 4096
	manyQueries  = 1300
	manyWait     = time.Minute
	// answerTimeout is how long Consul may take to answer what needn't wait for
	// a change.
	answerTimeout = 15 * time.Second
	retryMin      = 250 * time.Millisecond
	retryMax      = 5 * time.Second
	// failingAfter is how many failures in a row make a query a failing one. A single
	// failure, as when a server restarts, is not reported.
	failingAfter = 2
	// renewInterval bounds how often a query that seems to have stalled is sent
	// again.
	renewInterval = 30 * time.Second
)

// query is a dependency that never returns an error to consul-template: it repeats the
// request until it succeeds, and knows whether it is failing. consul-template itself
// doesn't say which query an error belongs to, nor that a query succeeds again without a
// change.
type query struct {
	dependency.Dependency
	// changed is called when the query begins to fail, fails for another reason, or
	// succeeds again.
	changed func()
	wait    func() time.Duration // how long for a change; nil: as consul-template says
	again   chan struct{}        // the request that is under way is given up and sent again
	stopped chan struct{}

	mu       sync.Mutex
	giveUp   context.CancelCauseFunc // ends the request that is under way, if that is possible
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

// Fetch returns when Consul has news, or without news after the time that opts says.
// The only error is ErrStopped, and is not wrapped: consul-template compares it.
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
		// Without an index Consul answers at once. This shows whether the query
		// succeeds again without waiting for news, and the index may be one from
		// before Consul lost its data.
		asked.WaitIndex = 0
	}
}

var errRenewed = errors.New("the query is sent again")

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
	select { // renew or Stop may have come before giveUp was there
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

// askBeside is ask for a dependency that can't be cancelled. When it is given up, its
// request goes on until its answer comes or its connection ends.
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

// renew gives up the request that is under way and sends the query again.
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
	failing := q.failures >= failingAfter
	q.index, q.failures, q.err = index, 0, nil
	q.mu.Unlock()
	if failing {
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
	changed := q.failures == failingAfter || q.failures > failingAfter && whatFails(err) != whatFails(q.err)
	q.err = err
	q.mu.Unlock()
	if changed {
		q.changed()
	}
	return before
}

// stalled reports whether the query's last answer still has the index heard, though
// Consul has been at the index news for a while. It sends the query again then, once for
// the same news: when the agent serves blocking queries from its own memory
// (use_streaming_backend), the two indexes may count different things.
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

// failing says how the query fails; false when it doesn't.
func (q *query) failing() (failing, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failures < failingAfter {
		return failing{}, false
	}
	f := failing{query: q.String(), since: q.since, err: q.err}
	if d, ok := q.Dependency.(*serviceQuery); ok {
		f.unrelated = d.unrelated.Load()
	}
	return f, true
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
	// unrelated: it is about a service that didn't ask to be balanced when Consul
	// answered last.
	unrelated bool
}

// reason says why the answer for the service of the query may be out of date.
func (f failing) reason() string {
	return fmt.Sprintf("%s for it since %s", whatFails(f.err), f.since.Format(time.TimeOnly))
}

// whatFails returns the error without the parts that differ each time.
func whatFails(err error) string {
	var refusal api.StatusError
	if errors.As(err, &refusal) {
		return fmt.Sprintf("Consul answers %d", refusal.Code)
	}
	return "Consul gives no answer"
}

// details returns the whole text of the error.
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
