package render

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/consul-template/template"

	"lbctl/internal/access"
	"lbctl/internal/endpoints"
)

// Once makes one configuration from the services that are in Consul now. It waits for
// Consul until ctx is done; the error then says what it waited for. If a template fails
// for less than half of the services, or with the operator's policy for all services, these
// are left out and reported among the problems. Any other failure of a template is returned as
// an error at once.
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

// Offline makes a configuration from the given services, without Consul and without a
// snapshot. consul-template's own functions, such as key, find Consul empty.
func Offline(opts Options, services []endpoints.Service) (Configuration, error) {
	return offline(opts, services, newNames())
}

func offline(opts Options, services []endpoints.Service, names *names) (Configuration, error) {
	settings, err := opts.Settings.complete()
	if err != nil {
		return Configuration{}, err
	}
	if opts.Access == nil {
		opts.Access, _ = access.Open("") // without a file there is no error
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
	if opts.Certificates != nil {
		settings.Certificates = opts.Certificates.Read(now, namedFiles(entries)...)
	}
	r, problems := renderEntries(context.Background(), set, settings, entries, names, template.NewBrain(), &memo{networks: opts.Access.Networks(now)})
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
