//go:build bench

package bench

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// modes are the ways to run lbctl, with the further arguments of "lbctl run".
var modes = []struct {
	name string
	args []string
}{
	{"lbctl, by DNS", []string{"--endpoints=dns"}},
	{"lbctl, by reload", []string{"--endpoints=reload"}},
}

// ours are lbctl's rows, the first ones of every table.
func ours() []peer {
	var all []peer
	for _, m := range modes {
		all = append(all, peer{
			name:  m.name,
			with:  "As it comes.",
			start: func(t *testing.T, s *site) balancer { return startOurs(t, s, m.args) },
		})
	}
	return all
}

type own struct {
	*lbtest.Balancer
	at fronts

	perReload int // workers that a reload starts

	mu      sync.Mutex
	workers map[int]bool // all that nginx has had so far, by process id
}

// startOurs runs lbctl with its own listeners for TLS.
func startOurs(t *testing.T, s *site, args []string) *own {
	t.Helper()
	at := freeFronts(func() int { return nginxtest.FreePort(t) })
	return startLbctl(t, s, at, lbtest.Options{Args: append([]string{
		"--certificates", s.identity.dir, "--listener", "grpcs=grpcs://" + at[grpcTLS], "--listener", "https=https://" + at[httpTLS],
	}, args...)})
}

// startLbctl runs lbctl and its nginx. at has the addresses of the listeners for TLS, if there
// are any.
func startLbctl(t *testing.T, s *site, at fronts, opts lbtest.Options) *own {
	t.Helper()
	opts.Consul, opts.Nginx = s.lbs.Addr, s.nginx
	b := lbtest.Start(t, opts)
	at[grpcPlain], at[httpPlain] = b.GRPC, b.HTTP
	// lbctl may reload an nginx that has just started.
	var status controller.Status
	b.Eventually("lbctl has nothing left to do", func() (err error) {
		status, err = b.Status()
		if err == nil && status.State != controller.Serving {
			err = errors.New(status.Summary)
		}
		return err
	})
	o := &own{Balancer: b, at: at, perReload: status.Nginx.Workers, workers: map[int]bool{}}
	o.watch(t)
	return o
}

func (o *own) fronts() fronts   { return o.at }
func (o *own) processes() []int { return []int{o.Nginx().PID(), o.PID()} }

// reloads counts the workers that nginx has had, because each reload replaces them.
// Generations are no measure: there are reloads without a new one.
func (o *own) reloads() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.workers)/o.perReload - 1
}

// watch notes nginx's workers, more often than lbctl reloads nginx.
func (o *own) watch(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	look := func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, pid := range children(o.Nginx().PID()) {
			o.workers[pid] = true
		}
	}
	look()
	done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-tick.C:
				look()
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}
