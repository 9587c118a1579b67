//go:build bench

// Package bench measures whole load balancers, ours beside others. It reports counts
// and ratios within one run, because it runs on shared machines, where single times
// say little. No benchmark fails because something is slow.
package bench

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"lbctl/internal/consultest"
	"lbctl/internal/nginxtest"
)

// The balanced services: one speaks gRPC, the other HTTP.
const (
	grpcService = "hello_server"
	httpService = "web"
)

// A site is what all balancers of one benchmark share.
type site struct {
	servers  *consultest.Cluster
	apps     *consultest.Server // the agent that instances register with
	lbs      *consultest.Server // the agent that balancers ask
	nginx    nginxtest.Binary
	identity *identity
}

// newSite starts three Consul servers, an agent for the instances and one for the
// balancers.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{servers: consultest.StartCluster(t, 3), nginx: nginx(t), identity: newIdentity(t)}
	s.apps, s.lbs = s.servers.StartClient(), s.servers.StartClient()
	return s
}

// nginx is the newest nginx of this machine, or the one whose version begins with the
// environment variable NGINX.
func nginx(t *testing.T) nginxtest.Binary {
	t.Helper()
	all := nginxtest.Binaries(t)
	for i := len(all) - 1; i >= 0; i-- {
		if strings.HasPrefix(all[i].Version, os.Getenv("NGINX")) {
			return all[i]
		}
	}
	t.Fatalf("NGINX=%s: want the beginning of one of the versions there are: %v", os.Getenv("NGINX"), all)
	return nginxtest.Binary{}
}

// number is a size of a benchmark: the environment variable's value, or else preset.
func number(t *testing.T, name string, preset int) int {
	t.Helper()
	given := os.Getenv(name)
	if given == "" {
		return preset
	}
	n, err := strconv.Atoi(given)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: want a whole number from 1", name, given)
	}
	return n
}

// duration is a time of a benchmark: the environment variable's value, or else preset.
func duration(t *testing.T, name string, preset time.Duration) time.Duration {
	t.Helper()
	given := os.Getenv(name)
	if given == "" {
		return preset
	}
	d, err := time.ParseDuration(given)
	if err != nil || d <= 0 {
		t.Fatalf("%s=%s: want a duration such as 2s", name, given)
	}
	return d
}
