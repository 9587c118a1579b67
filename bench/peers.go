//go:build bench

package bench

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A balancer is a running load balancer.
type balancer interface {
	// fronts are the addresses where it takes calls.
	fronts() fronts
	// processes are its process ids. Their descendants belong to it too.
	processes() []int
	// reloads is how often its proxy was reloaded or restarted so far.
	reloads() int
}

// A peer is a way to run a balancer, ours or another one.
type peer struct {
	name string
	with string // how it is configured, for the report: a sentence or two
	// start runs it until the test ends.
	start func(t *testing.T, s *site) balancer
	// missing names the programs that are missing; "" when none are.
	missing string
	// sameProxy: another peer runs the same proxy in another way, so that this one adds
	// nothing to the comparison of throughput.
	sameProxy bool
}

// peers are the balancers to compare: all, or those whose names contain one of the
// comma-separated words in the environment variable PEERS. Case does not count.
func peers() []peer {
	all := append(ours(),
		peer{
			name:      "consul-template, reload",
			with:      "consul-template as it is by default (no `wait`) renders nginx's upstreams and sends nginx a HUP.",
			start:     func(t *testing.T, s *site) balancer { return startRecipe(t, s, hup) },
			sameProxy: true,
		},
		peer{
			name: "consul-template, restart",
			with: "The same, but its command is `supervisorctl restart nginx`, with `stopsignal=TERM`: the recipe of many a container image." +
				" The supervisord is the one in Go, which takes a second from stop to start, and may leave nginx stopped that is restarted within a second after its start: the command waits for that second, and tries again until nginx runs.",
			start:     func(t *testing.T, s *site) balancer { return startRecipe(t, s, restart) },
			sameProxy: true,
		},
		peer{
			name: "HAProxy, consul-template",
			with: "consul-template renders haproxy.cfg and sends the master USR2, with at least half a second between two, because one that comes while the master executes itself again would end it;" +
				" master-worker mode, `expose-fd listeners`, HTTP/2 to the gRPC instances, no `hard-stop-after`.",
			start:   startHAProxy,
			missing: missing("haproxy", "haproxy"),
		},
		peer{
			name:    "fabio",
			with:    "Follows Consul itself, by `urlprefix-` tags; listeners `proto=grpc`, `http`, `grpcs` and `https`.",
			start:   startFabio,
			missing: missing(os.Getenv("FABIO"), "a binary in FABIO"),
		},
		peer{
			name:    "Traefik",
			with:    "Follows Consul itself, by its Consul Catalog provider with `watch`; everything else as it is by default.",
			start:   startTraefik,
			missing: missing(os.Getenv("TRAEFIK"), "a binary in TRAEFIK"),
		},
	)
	words := strings.Split(strings.ToLower(os.Getenv("PEERS")), ",")
	return slices.DeleteFunc(all, func(p peer) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return strings.Contains(strings.ToLower(p.name), word) })
	})
}

// missing says that a program is missing.
func missing(program, what string) string {
	if _, err := exec.LookPath(program); err != nil {
		return what
	}
	return ""
}

// A proxy is a balancer other than ours.
type proxy struct {
	at     fronts
	pids   []int
	counts func() int
}

func (p *proxy) fronts() fronts   { return p.at }
func (p *proxy) processes() []int { return p.pids }
func (p *proxy) reloads() int     { return p.counts() }

// never is for balancers that are never reloaded.
func never() int { return 0 }
