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
	// queryWait is how long a blocking query waits for a change. It is long because with a
	// thousand queries each end without a change has a cost. The end would show that the
	// query hangs on an isolated server, or that answers are filtered; findStalled finds
	// that sooner.
	queryWait = 2 * time.Minute
	// An agent configured as in docs/templates.md allows a client agentQueries queries. It
	// keeps a query until its time is over, even if the client has gone. From manyQueries
	// on, queries wait only for manyWait. The agent has room for three times that many: for
	// the previous lbctl, for this one, and for queries that are sent again.
	agentQueries = 4096
	manyQueries  = 1300
	manyWait     = time.Minute
	// answerTimeout is how long Consul may take to answer a query that waits for no change.
	answerTimeout = 15 * time.Second
	retryMin      = 250 * time.Millisecond
	retryMax      = 5 * time.Second
	// failingAfter is how many failures in a row count as failing. A single failure, as
	// when a server restarts, is not reported.
	failingAfter = 2
	// renewInterval is the minimum time between two renewals of a stalled query.
	renewInterval = 30 * time.Second
)

// query is a dependency that returns no errors to consul-template: it repeats the request
// until it succeeds, and records whether it is failing. consul-template itself doesn't say
// which query an error belongs to, nor that a query succeeds again without a change.
type query struct {
	dependency.Dependency
	// changed is called when the query begins to fail, fails for another reason, or
	// succeeds again.
	changed func()
	wait    func() time.Duration // how long to wait for a change; nil: consul-template's default
	again   chan struct{}        // cancels the current request and sends it again
	stopped chan struct{}

	mu            sync.Mutex
	cancelRequest context.CancelCauseFunc // cancels the current request, if that is possible
	index         uint64                  // of the last answer; 0 before the first
	answeredAt    time.Time               // when the first answer with that index came
	failures      int                     // in a row
	since         time.Time
	err           error
	// renewedAt is when the query was last found to have stalled; renewedFor is Consul's
	// index at that time.
	renewedAt  time.Time
	renewedFor uint64
}

func newQuery(d dependency.Dependency, changed func()) *query {
	return &query{Dependency: d, changed: changed, again: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// Fetch returns after a change, or without one after the time in opts. Its only error is
// ErrStopped, which is not wrapped because consul-template compares it.
func (q *query) Fetch(clients *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	asked := *opts
	for {
		data, meta, err := q.ask(clients, asked)
		switch {
		case err == nil:
			q.succeeded(meta.LastIndex)
			if asked.WaitIndex == 0 && meta.LastIndex == opts.WaitIndex && meta.LastIndex > 0 {
				// After Consul lost its data, it may have reached the same index with other
				// content. A lower index makes consul-template compare the content.
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
		// Without an index Consul answers at once, which shows whether the query succeeds
		// again. Besides, the index may be from before Consul lost its data.
		asked.WaitIndex = 0
	}
}

var errRenewed = errors.New("the query is sent again")

// cancellable is a dependency whose request can be cancelled. consul-template's own
// requests can't.
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
	ctx, cancelRequest := context.WithCancelCause(context.Background())
	defer cancelRequest(nil)
	limit := q.limit(opts)
	defer time.AfterFunc(limit, func() { cancelRequest(noAnswer(limit)) }).Stop()
	q.mu.Lock()
	q.cancelRequest = cancelRequest
	q.mu.Unlock()
	select { // renew or Stop may have been called before cancelRequest was set
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

// askBeside is ask for a dependency that can't be cancelled. When askBeside returns early,
// the request goes on until its answer comes or its connection ends.
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

// limit returns how long an answer may take; 0 if there is no limit, as for files and for
// those of consul-template's queries that wait by themselves.
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

// renew cancels the current request and sends the query again.
func (q *query) renew() {
	notify(q.again)
	q.cancel(errRenewed)
}

func (q *query) cancel(why error) {
	q.mu.Lock()
	cancelRequest := q.cancelRequest
	q.mu.Unlock()
	if cancelRequest != nil {
		cancelRequest(why)
	}
}

func (q *query) succeeded(index uint64) {
	q.mu.Lock()
	failing := q.failures >= failingAfter
	if index != q.index || q.answeredAt.IsZero() {
		q.answeredAt = time.Now()
	}
	q.index, q.failures, q.err = index, 0, nil
	q.mu.Unlock()
	if failing {
		q.changed()
	}
}

// failed records an error, and returns how many preceded it in a row.
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

// stalled reports whether the last answer still has the index answered although Consul has
// had the index current for a while. In that case it sends the query again, once for each
// value of current: if the agent serves blocking queries from its own memory
// (use_streaming_backend), the two indexes may count different things.
func (q *query) stalled(answered, current uint64) bool {
	q.mu.Lock()
	now := time.Now()
	stalled := q.index == answered && q.failures == 0 && current != q.renewedFor && now.Sub(q.renewedAt) >= renewInterval
	if stalled {
		q.renewedAt, q.renewedFor = now, current
	}
	q.mu.Unlock()
	if stalled {
		q.renew()
	}
	return stalled
}

// answered returns the index of the last answer; false if there is none or the query fails.
func (q *query) answered() (uint64, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.index, q.index > 0 && q.failures == 0
}

// came returns when the last answer came that was not the same as the one before.
func (q *query) came() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.answeredAt
}

// failing returns the details of a failing query; false if it isn't failing.
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

// retry returns how long to wait after a failure that n others preceded. It is random, so
// that many queries are not repeated at the same time.
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
	// unrelated: according to Consul's last answer, its service doesn't ask to be balanced.
	unrelated bool
}

// reason says why the last answer may be out of date.
func (f failing) reason() string {
	return fmt.Sprintf("%s for it since %s", whatFails(f.err), f.since.Format(time.TimeOnly))
}

// whatFails returns the kind of the error, without the parts that vary.
func whatFails(err error) string {
	var refusal api.StatusError
	if errors.As(err, &refusal) {
		return fmt.Sprintf("Consul answers %d", refusal.Code)
	}
	if errors.As(err, new(errKeysHidden)) {
		return "Consul leaves some out"
	}
	return "Consul gives no answer"
}

// details returns the whole text of the error.
func (f failing) details() string {
	var refusal api.StatusError
	text := f.err.Error()
	if errors.As(f.err, &refusal) {
		if text = refusal.Body; text == "" {
			text = fmt.Sprintf("status %d without a reason", refusal.Code)
		}
	}
	text = strings.Join(strings.Fields(text), " ")
	if strings.Contains(text, "too many concurrent connections") || strings.HasSuffix(text, "EOF") {
		text += " (there is one connection for every service: is limits.http_max_conns_per_client of the Consul agent high enough?)"
	}
	return text
}
