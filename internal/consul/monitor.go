package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/endpoints"
)

const (
	monitorInterval = 2 * time.Second
	monitorTimeout  = 2 * time.Second
	// maxLastContact is how long a server may not have heard from the leader
	// for its word to count.
	maxLastContact = 10 * time.Second
	// maxLooks bounds the direct looks after services vanished.
	maxLooks = 10
	// longAway is how long Consul must have been away for everything to be asked
	// anew. Each query that is under way then takes a second connection for a
	// while; after less time those that failed are sent again anyway.
	longAway = 5 * time.Second

	// rejoinPatience is how long an agent may take to use a server it has found.
	rejoinPatience = time.Second
	// noServers is in what an agent says that has lost all its servers.
	noServers = "No known Consul servers"

	anonymousToken = "00000000-0000-0000-0000-000000000002"
)

// monitor knows whether Consul can be taken at its word. Blocking queries
// can't tell: without a leader they just hang, and with a token that has
// become too weak they give empty lists.
type monitor struct {
	client  *api.Client
	address string
	token   string
	table   *endpoints.Table
	queries *queries
	logger  *slog.Logger
	// Of run's goroutine.
	turn    int
	renewed time.Time         // when everything was asked anew last
	suspect string            // the service whose answer was found to be filtered
	behind  map[string]behind // the watches that seemed to be, at the last check

	mu            sync.Mutex
	status        Status
	trust         endpoints.Trust
	filteredSince time.Time
}

func newMonitor(config *api.Config, table *endpoints.Table, queries *queries, logger *slog.Logger) (*monitor, error) {
	c := *config
	client, err := api.NewClient(&c)
	if err != nil {
		return nil, fmt.Errorf("make a Consul client: %w", err)
	}
	m := &monitor{
		client:  client,
		address: config.Address,
		token:   c.Token, // NewClient put in what the environment has
		table:   table,
		queries: queries,
		logger:  logger,
		behind:  map[string]behind{},
		status:  Status{Address: config.Address, LastError: "Consul has not been asked yet"},
		trust:   table.Trust(),
	}
	if m.trust.Filtered {
		m.filteredSince = time.Now()
	}
	return m, nil
}

// run asks every two seconds.
func (m *monitor) run(ctx context.Context) error {
	ticker := time.NewTicker(monitorInterval)
	defer ticker.Stop()
	for {
		m.check(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (m *monitor) check(ctx context.Context) {
	reachable, leader, trouble := m.ask(ctx)
	if strings.Contains(trouble, noServers) && m.rejoin(ctx) {
		// The agent needs a moment for what it has found.
		for deadline := time.Now().Add(rejoinPatience); trouble != "" && time.Now().Before(deadline) && ctx.Err() == nil; {
			time.Sleep(50 * time.Millisecond)
			reachable, leader, trouble = m.ask(ctx)
		}
	}
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	old := m.status
	m.status.Reachable, m.status.Leader, m.status.LastError = reachable, leader, trouble
	now := time.Now()
	changed := old.Since.IsZero() || old.Reachable != reachable || (old.Leader == "") != (leader == "")
	if changed {
		m.status.Since = now
	}
	filtered := m.trust.Filtered
	m.mu.Unlock()
	back := changed && trouble == "" && !old.Since.IsZero()
	if back && now.Sub(old.Since) >= longAway && now.Sub(m.renewed) >= m.queries.renewPause() {
		m.renewed = now
		m.queries.renew() // Consul may have come back with less
	}

	if changed && trouble != "" {
		m.logger.Warn("Consul is away", "address", old.Address, "reason", trouble)
	} else if changed && !old.Since.IsZero() {
		m.logger.Info("Consul is back", "address", old.Address, "leader", leader)
	}
	m.setTrust(func(t *endpoints.Trust) { t.NoLeader = leader == "" })
	if trouble != "" {
		clear(m.behind)
		return
	}
	m.findStalled(ctx)
	if filtered || m.suspect != "" {
		m.look(ctx, m.doubtful())
		if _, since := m.current(); since.IsZero() {
			m.suspect = ""
		}
	}
}

// ask finds out whether the agent answers and who leads; trouble says what is
// wrong, if anything is.
func (m *monitor) ask(ctx context.Context) (reachable bool, leader, trouble string) {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	options := (&api.QueryOptions{AllowStale: true}).WithContext(ctx)
	leader, err := m.client.Status().LeaderWithQueryOptions(options)
	var refusal api.StatusError
	switch {
	case errors.As(err, &refusal):
		return true, "", "Consul has no leader: " + strings.TrimSpace(refusal.Body)
	case err != nil:
		return false, "", fmt.Sprintf("Consul at %s does not answer: %v", m.address, err)
	case leader == "":
		return true, "", "Consul has no leader: most of its servers are down or can't reach each other"
	}
	// A service that always is: that one of the others fails is its own trouble.
	_, meta, err := m.client.Health().Service("consul", "", false, options)
	switch {
	case err != nil:
		return true, "", fmt.Sprintf("Consul does not answer queries: %v", err)
	case meta.LastContact > maxLastContact:
		return true, "", fmt.Sprintf("the Consul server that answers has not heard from its leader for %s", meta.LastContact.Round(time.Second))
	}
	return true, leader, ""
}

// rejoin has the agent look for the servers that it has lost, as after a partition
// of its machine; by itself it tries one every thirty seconds. False when it found
// none, or the token has no agent:write.
func (m *monitor) rejoin(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	var members []*api.AgentMember
	if _, err := m.client.Raw().Query("/v1/agent/members", &members, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		m.logger.Debug("Consul's agent does not say which servers it had", "error", err)
		return false
	}
	for _, n := range rand.Perm(len(members)) { // one that is gone for good takes all the time there is
		member := members[n]
		if member.Tags["role"] != "consul" {
			continue
		}
		address := net.JoinHostPort(member.Addr, strconv.Itoa(int(member.Port)))
		_, err := m.client.Raw().Write("/v1/agent/join/"+address, nil, nil, (&api.WriteOptions{}).WithContext(ctx))
		if err == nil {
			m.logger.Info("Consul's agent had lost its servers, and was told where one is", "server", member.Name)
			return true
		}
		m.logger.Debug("Consul's agent finds no server", "server", member.Name, "error", err)
	}
	return false
}

// doubtful is the services to look at while answers are filtered: those with
// held instances, and the one that first was.
func (m *monitor) doubtful() []string {
	var names []string
	for _, h := range m.table.Held() {
		names = append(names, h.Service)
	}
	names = slices.Compact(names)
	if m.suspect != "" && !slices.Contains(names, m.suspect) {
		names = slices.Insert(names, 0, m.suspect)
	}
	return names
}

// Look asks Consul directly whether it filters what it says about the services, and
// lets the table know.
func (f *Follower) Look(ctx context.Context, services []string) { f.monitor.look(ctx, services) }

// look asks directly whether Consul filters what it says about the services,
// and lets the table know.
func (m *monitor) look(ctx context.Context, services []string) {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	filtered, err := m.filtered(ctx, services[:min(len(services), maxLooks)])
	if err != nil {
		return // it knows no more than before; the error shows up in ask
	}
	if was := m.setTrust(func(t *endpoints.Trust) { t.Filtered = filtered }); was.Filtered && !filtered {
		m.logger.Info("Consul no longer filters its answers by ACLs")
		m.queries.renew() // blocking queries would find out when their time is over
	} else if !was.Filtered && filtered {
		m.logger.Warn("Consul filters its answers by ACLs: the token is too weak", "services", services)
	}
}

func (m *monitor) filtered(ctx context.Context, services []string) (bool, error) {
	options := (&api.QueryOptions{}).WithContext(ctx)
	for _, name := range services {
		_, meta, err := m.client.Health().Service(name, "", false, options)
		if err != nil {
			return false, err
		}
		if meta.ResultsFilteredByACLs {
			return true, nil
		}
	}
	// Whoever sees anything, sees what it is about: Consul itself is a service.
	all, meta, err := m.client.Catalog().Services(options)
	if err != nil || len(all) > 0 {
		return false, err
	}
	if meta.ResultsFilteredByACLs || m.token != "" {
		return meta.ResultsFilteredByACLs, nil
	}
	// Those without a token are not told that anything is filtered.
	self, _, err := m.client.ACL().TokenReadSelf(options)
	var answer api.StatusError
	if errors.As(err, &answer) {
		return !strings.Contains(answer.Body, "ACL support disabled"), nil
	}
	return err == nil && self.AccessorID == anonymousToken, err
}

func (m *monitor) setTrust(change func(*endpoints.Trust)) (was endpoints.Trust) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was = m.trust
	change(&m.trust)
	switch {
	case !m.trust.Filtered:
		m.filteredSince = time.Time{}
	case !was.Filtered:
		m.filteredSince = time.Now()
	}
	m.table.SetTrust(time.Now(), m.trust)
	return was
}

// current is the status, and since when answers are filtered: zero when they
// are not.
func (m *monitor) current() (Status, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status, m.filteredSince
}
