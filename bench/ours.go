//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
			with:  "As it comes; for TLS, a server of its own in `http.d`, as docs/templates.md says.",
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

// startOurs runs lbctl with the built-in templates and one for TLS, because lbctl has
// no listener for TLS.
func startOurs(t *testing.T, s *site, args []string) *own {
	t.Helper()
	free := func() int { return nginxtest.FreePort(t) }
	at := freeFronts(free)
	templates := nginxtest.Dir(t)
	require.NoError(t, os.Mkdir(filepath.Join(templates, "http.d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(templates, "http.d", "tls.conf.ctmpl"), fmt.Appendf(nil, `ssl_certificate %[1]s;
ssl_certificate_key %[2]s;
{{- range catalog.GRPC.Upstreams}}{{if eq .Service "%[3]s"}}
server {
    %[4]s
    client_body_timeout 1h;
    include grpc-errors.conf;
    location / { grpc_pass grpc://{{.Name}}; }
}
{{- end}}{{end}}
{{- range catalog.HTTP.Upstreams}}{{if eq .Service "%[5]s"}}
server {
    %[6]s
    include http-errors.conf;
    location / { proxy_pass http://{{.Name}}; }
}
{{- end}}{{end}}
`, s.identity.cert, s.identity.key,
		grpcService, listenTLS(s.nginx, at[grpcTLS]), httpService, listenTLS(s.nginx, at[httpTLS])), 0o644))

	b := lbtest.Start(t, lbtest.Options{
		Consul: s.lbs.Addr,
		Nginx:  s.nginx,
		Args:   append([]string{"--templates", templates}, args...),
	})
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
