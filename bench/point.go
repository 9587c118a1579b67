//go:build bench

package bench

import (
	"time"

	"lbctl/internal/consultest"
	"lbctl/internal/lbtest"
)

// A point is the measurements of one mode with one number of services.
type point struct {
	mode, reads string
	size        int

	first, settled               time.Duration
	changes                      []time.Duration
	span                         time.Duration
	cpu                          usage // over span
	lbctlMiB, nginxMiB, agentMiB float64
	queries                      float64 // a second
}

// usage is processor time: lbctl's own, that of the "nginx -t" it runs, nginx's,
// the agent's.
type usage struct{ lbctl, test, nginx, agent time.Duration }

func usageOf(b *lbtest.Balancer, agent *consultest.Server) usage {
	return usage{ownTime(b.PID()), endedTime(b.PID()), cpuTime(b.Nginx().PID()), ownTime(agent.PID())}
}

func (u usage) since(before usage) usage {
	return usage{u.lbctl - before.lbctl, u.test - before.test, u.nginx - before.nginx, u.agent - before.agent}
}
