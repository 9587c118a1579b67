package health

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/probe"
)

const (
	// reportAge is for how long a report is given again.
	reportAge = time.Second
	// freshProbe is how old the newest probe of a service may be. lbctl probes each instance once a
	// second, unless there are many or the operator has turned that off.
	freshProbe = 10 * time.Second
	// Limits of the probes for one report: in all, at the same time, and in time.
	probesPerReport = 50
	probesAtOnce    = 25
	probePatience   = time.Second
)

// Prober is what probes the instances.
type Prober interface {
	Newest(service string) probe.Newest
	Once(ctx context.Context, e endpoints.Entry, i endpoints.Instance) (probe.Outcome, bool)
}

var (
	errUnknown = errors.New("the services are not known yet")
	errHidden  = errors.New("no service is told of: health.report is off in their policies")
)

// report is the health of all services with the times of probes. It is not changed.
type report struct {
	at       time.Time
	services map[string]Service
	well     bool
	text     []byte // of all services, as JSON
}

// reporter makes reports: at most one a second, however many clients ask, so that they cost the
// instances nothing.
type reporter struct {
	monitor *monitor
	prober  Prober

	making chan struct{} // holds a token while a report is being made

	mu     sync.Mutex
	latest *report

	// Only who holds the token uses these.
	own  map[string]probe.Newest // outcomes of the own probes, by service
	next int                     // the index of the entry at which the next probes begin
}

func newReporter(m *monitor, p Prober) *reporter {
	return &reporter{monitor: m, prober: p, making: make(chan struct{}, 1), own: map[string]probe.Newest{}}
}

// report returns a report that is at most reportAge old, or was made meanwhile.
func (r *reporter) report(ctx context.Context) (*report, error) {
	if found := r.fresh(); found != nil {
		return found, nil
	}
	select {
	case r.making <- struct{}{}:
		defer func() { <-r.making }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if found := r.fresh(); found != nil { // made while this one waited
		return found, nil
	}
	// A client that goes away takes nothing from the others.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probePatience)
	defer cancel()
	made, err := r.make(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latest = made
	return made, nil
}

func (r *reporter) fresh() *report {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.latest != nil && time.Since(r.latest.at) < reportAge {
		return r.latest
	}
	return nil
}

func (r *reporter) make(ctx context.Context) (*report, error) {
	s := r.monitor.now()
	if !s.known {
		return nil, errUnknown
	}
	if s.none() {
		return nil, errHidden
	}
	r.probe(ctx, s)
	made := &report{services: make(map[string]Service, len(s.services)), well: s.well}
	own := make(map[string]probe.Newest, len(r.own))
	now := time.Now()
	for name, service := range s.services {
		if o := r.newest(name).shown(service.Serving); !o.At.IsZero() {
			took, age := milliseconds(o.Took), milliseconds(now.Sub(o.At)-o.Took)
			service.Time, service.Age = &took, &age
		}
		made.services[name] = service
		if found, ok := r.own[name]; ok {
			own[name] = found
		}
	}
	r.own = own // without services that are gone
	var err error
	if made.text, err = json.Marshal(made.services); err != nil {
		return nil, err
	}
	made.text = append(made.text, '\n')
	made.at = now
	return made, nil
}

// milliseconds rounds up, so that no probe takes no time.
func milliseconds(d time.Duration) int64 {
	return max(0, int64((d+time.Millisecond-1)/time.Millisecond))
}

// outcomes are the newest outcomes of a service.
type outcomes probe.Newest

// shown returns the outcome to show: of a service that serves, a probe that passed.
func (o outcomes) shown(serving bool) probe.Outcome {
	if serving && !o.Passed.At.IsZero() {
		return o.Passed
	}
	return o.Any
}

// newest returns the newest outcomes of a service, of the table's prober or of the own probes.
func (r *reporter) newest(service string) outcomes {
	found, own := r.prober.Newest(service), r.own[service]
	if own.Any.At.After(found.Any.At) {
		found.Any = own.Any
	}
	if own.Passed.At.After(found.Passed.At) {
		found.Passed = own.Passed
	}
	return outcomes(found)
}

// probe probes an instance of each service without a fresh probe, probesPerReport of them at most:
// the others have their turn at the next report.
func (r *reporter) probe(ctx context.Context, s *snapshot) {
	entries := s.entries
	var waiting []endpoints.Entry
	for n := 0; n < len(entries) && len(waiting) < probesPerReport; n++ {
		at := (r.next + n) % len(entries)
		e := entries[at]
		_, told := s.services[e.Name]
		if !told || time.Since(r.newest(e.Name).Any.At) <= freshProbe || len(e.Usable()) == 0 {
			continue
		}
		if waiting = append(waiting, e); len(waiting) == probesPerReport {
			r.next = at + 1
		}
	}
	type outcome struct {
		service string
		probe.Outcome
	}
	results := make(chan outcome, len(waiting))
	slots := make(chan struct{}, probesAtOnce)
	var running sync.WaitGroup
	for _, e := range waiting {
		running.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-ctx.Done():
				return
			}
			instances := e.Usable()
			// Another one each time, so that one that hangs does not speak for all.
			i := instances[int(time.Now().UnixNano()/int64(reportAge))%len(instances)]
			if o, wanted := r.prober.Once(ctx, e, i); wanted {
				results <- outcome{e.Name, o}
			}
		})
	}
	running.Wait()
	close(results)
	for o := range results {
		kept := r.own[o.service]
		if kept.Any = o.Outcome; o.Err == nil {
			kept.Passed = o.Outcome
		}
		r.own[o.service] = kept
	}
}
