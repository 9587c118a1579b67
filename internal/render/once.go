package render

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/consul-template/template"

	"lbctl/internal/endpoints"
)

// Once makes one configuration of what Consul says now. It waits for Consul
// until ctx is done; the error then says what it waited for. A template that
// fails is an error at once, unless it is for less than half of the services:
// those are left out then, and are among the problems.
func Once(ctx context.Context, opts Options) (Configuration, error) {
	s, err := New(opts)
	if err != nil {
		return Configuration{}, err
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(run) }()
	stop := func() error {
		cancel()
		return <-done
	}
	select {
	case c := <-s.Updates():
		return c, stop()
	case problems := <-s.failures:
		return Configuration{}, errors.Join(problemsError(problems), stop())
	case <-ctx.Done():
		problems := s.Status().Problems
		err := fmt.Errorf("no configuration: %w", context.Cause(ctx))
		if len(problems) > 0 {
			err = fmt.Errorf("no configuration in time: %w", problemsError(problems))
		}
		return Configuration{}, errors.Join(err, stop())
	case err := <-done:
		cancel()
		if err == nil {
			err = errors.New("rendering ended without a configuration")
		}
		return Configuration{}, err
	}
}

// Offline makes a configuration of the given services without Consul and
// without a Table's memory. For consul-template's own functions, such as key,
// it is as if Consul were empty.
func Offline(opts Options, services []endpoints.Service) (Configuration, error) {
	return offline(opts, services, newNames())
}

func offline(opts Options, services []endpoints.Service, names *names) (Configuration, error) {
	settings, err := opts.Settings.complete()
	if err != nil {
		return Configuration{}, err
	}
	set, err := loadTemplates(opts.TemplatesDir)
	if err != nil {
		return Configuration{}, err
	}
	table, err := endpoints.Open("", endpoints.Options{})
	if err != nil {
		return Configuration{}, err
	}
	now := time.Now()
	entries := table.Observe(now, services)
	r, problems := renderEntries(context.Background(), set, settings, entries, names, template.NewBrain(), new(memo))
	if len(r.problems) > 0 {
		return Configuration{}, problemsError(r.problems)
	}
	var dated ledger
	dated.set(now, problems)
	return r.configuration(entries, dated.problems), nil
}

func problemsError(problems []Problem) error {
	lines := make([]string, len(problems))
	for n, p := range problems {
		lines[n] = p.Subject + ": " + p.Message
	}
	return errors.New(strings.Join(lines, "; "))
}
