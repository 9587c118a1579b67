package doctor

import (
	"context"
	"fmt"

	"lbctl/internal/consulclient"
)

// otherQueries is how many requests lbctl has at a time besides one for each service.
const otherQueries = 20

func checkAgentLimits(ctx context.Context, e *examination) []Finding {
	if f := e.leaderless(); f != nil {
		return f
	}
	if e.consul.services == nil {
		return skipped("the number of services is not known")
	}
	self, err := e.Consul.API().Agent().Self()
	switch {
	case err != nil && consulclient.IsRefusal(err):
		return skipped(`the token may not read the agent's settings (agent_prefix "" { policy = "read" }); look at limits.http_max_conns_per_client there: %s`,
			"at least "+fmt.Sprint(2*(len(e.consul.services)+otherQueries)))
	case err != nil:
		return skipped("%s", e.Consul.Explain(err))
	}
	limit, known := self["DebugConfig"]["HTTPMaxConnsPerClient"].(float64)
	if !known {
		return skipped("the agent does not tell limits.http_max_conns_per_client")
	}
	services := len(e.consul.services)
	once := services + otherQueries
	found := fmt.Sprintf("limits.http_max_conns_per_client is %.0f, and Consul has %s", limit, plural(services, "service"))
	wanted := fmt.Sprintf("at least %d: lbctl has a connection for each service, and for two minutes two after a restart", 2*once)
	switch {
	case limit == 0: // no limit
		return ok("the agent limits no client's connections")
	case int(limit) < once:
		return failed(found, wanted)
	case int(limit) < 2*once:
		return warning(found, wanted)
	}
	return ok("%s", found)
}
