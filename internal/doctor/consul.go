package doctor

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/consulclient"
)

// consulFacts is what the first checks have found out about Consul.
type consulFacts struct {
	reachable bool
	leader    bool
	services  map[string][]string // the catalog, with tags; nil: not known
	filtered  bool                // the token may not read all of them
	anonymous bool                // there is no token, though ACLs are on: Consul does not say that it filters
}

// askConsul returns the options of a request.
func askConsul(ctx context.Context) *api.QueryOptions { return new(api.QueryOptions).WithContext(ctx) }

// unreachable is the finding of the checks that need Consul, if it does not answer.
func (e *examination) unreachable() []Finding {
	if e.consul.reachable {
		return nil
	}
	return skipped("Consul does not answer")
}

// leaderless is the finding of the checks whose requests would wait for a leader.
func (e *examination) leaderless() []Finding {
	if e.consul.leader {
		return nil
	}
	if f := e.unreachable(); f != nil {
		return f
	}
	return skipped("Consul has no leader")
}

func checkAddress(ctx context.Context, e *examination) []Finding {
	const wanted = "an agent that answers"
	if e.Consul == nil {
		return mend(failed(e.ConsulErr.Error(), "an address and credentials that can be used"),
			"set CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN_FILE, CONSUL_CACERT, CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY to what exists")
	}
	_, err := e.Consul.API().Status().LeaderWithQueryOptions(askConsul(ctx))
	if answer, isAnswer := err.(api.StatusError); err == nil || isAnswer && !consulclient.IsRefusal(err) && answer.Code >= http.StatusInternalServerError {
		e.consul.reachable = true
		return ok("the agent at %s answers", e.Consul.Address())
	}
	found := failed(e.Consul.Explain(err), wanted)
	if consulclient.SpeaksNoTLS(err) {
		return mend(found, "use http:// in CONSUL_HTTP_ADDR, and unset CONSUL_HTTP_SSL; or have the agent listen with TLS (ports.https)")
	}
	if consulclient.IsRefusal(err) {
		return mend(found, "use https:// in CONSUL_HTTP_ADDR, and set CONSUL_CACERT, CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY to the agent's authority and a certificate that it accepts")
	}
	return found
}

func checkLeader(ctx context.Context, e *examination) []Finding {
	if f := e.unreachable(); f != nil {
		return f
	}
	client := e.Consul.API()
	leader, err := client.Status().LeaderWithQueryOptions(askConsul(ctx))
	switch {
	case err != nil:
		return failed(e.Consul.Explain(err), "a leader")
	case leader == "":
		return failed("Consul has no leader: it answers from memory, and accepts no change", "a majority of its servers running")
	}
	e.consul.leader = true
	members, err := client.Agent().Members(false) // its list is short without node:read
	if err != nil {
		return ok("leader %s", leader)
	}
	all, alive := 0, 0
	var down []string
	for _, m := range members {
		if m.Tags["role"] != "consul" || m.Status == int(memberLeft) {
			continue
		}
		all++
		if m.Status == memberAlive {
			alive++
		} else {
			down = append(down, m.Name)
		}
	}
	if len(down) > 0 {
		quorum := all/2 + 1
		wanted := fmt.Sprintf("%d, so that one can fail: %d are the quorum", all, quorum)
		return warning(fmt.Sprintf("leader %s; %d of %d servers are alive, not %s", leader, alive, all, some(down)), wanted)
	}
	if all == 0 {
		return ok("leader %s", leader)
	}
	return ok("leader %s; %s alive", leader, plural(all, "server"))
}

// The states of a member in Serf.
const (
	memberAlive = 1
	memberLeft  = 3
)

// The differences between clocks, from which on a check speaks.
const (
	clockWarning = 5 * time.Second
	clockFailed  = 5 * time.Minute // certificates and tokens may seem to be expired
)

func checkClock(ctx context.Context, e *examination) []Finding {
	if f := e.unreachable(); f != nil {
		return f
	}
	asked := e.Now()
	date, err := consulDate(ctx, e.Consul)
	if err != nil {
		return skipped("%v", err)
	}
	now := e.Now()
	asked = asked.Truncate(time.Second) // as the header is
	var off time.Duration
	switch {
	case date.Before(asked):
		off = asked.Sub(date)
	case date.After(now):
		off = now.Sub(date)
	}
	found := fmt.Sprintf("this clock is %s ahead of that of Consul's agent", off.Round(time.Second))
	if off < 0 {
		found = fmt.Sprintf("this clock is %s behind that of Consul's agent", -off.Round(time.Second))
	}
	switch {
	case off.Abs() >= clockFailed:
		return failed(found, "less than "+clockWarning.String())
	case off.Abs() >= clockWarning:
		return warning(found, "less than "+clockWarning.String())
	}
	return ok("this clock and that of Consul's agent differ by less than %s", clockWarning)
}

// consulDate returns the agent's time, in whole seconds.
func consulDate(ctx context.Context, client *consulclient.Client) (time.Time, error) {
	config := client.Config()
	base := config.Address
	path, isSocket := strings.CutPrefix(base, "unix://")
	if isSocket {
		return time.Time{}, fmt.Errorf("the agent at %s is on this machine", path)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/status/leader", nil)
	if err != nil {
		return time.Time{}, err
	}
	if config.HttpAuth != nil {
		request.SetBasicAuth(config.HttpAuth.Username, config.HttpAuth.Password)
	}
	response, err := config.Transport.RoundTrip(request)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s", client.Explain(err))
	}
	response.Body.Close()
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return time.Time{}, fmt.Errorf("the answer of %s has no date", client.Address())
	}
	return date, nil
}
