package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/consulclient"
	"lbctl/internal/endpoints"
)

const (
	monitorInterval = 2 * time.Second
	monitorTimeout  = 2 * time.Second
	// maxLastContact is how long ago a server may have heard from the leader so that its
	// answers can be trusted.
	maxLastContact = 10 * time.Second
	// maxFilterChecks bounds the services that checkFilter asks about.
	maxFilterChecks = 10
	// longOutage is how long Consul must have been away until all queries are sent again.
	// Each running query then has a second connection for a while. After a shorter outage
	// only the queries that failed are sent again.
	longOutage = 5 * time.Second

	// rejoinPatience is how long an agent may take to use a server it has found.
	rejoinPatience = time.Second
	// noServers is part of the error of an agent that has lost all its servers.
	noServers = "No known Consul servers"

	anonymousToken = "00000000-0000-0000-0000-000000000002"
)

// monitor finds out whether Consul's answers can be trusted. Blocking queries don't show
// that: without a leader they hang, and with a token that has lost rights they return
// empty lists.
type monitor struct {
	credentials *credentials
	client      *consulclient.Client
	table       *endpoints.Table
	queries     *queries
	logger      *slog.Logger

	// Only run's goroutine uses these.
	turn    int
	suspect string            // the service whose answer was filtered first
	behind  map[string]behind // the queries that were behind at the last check
	away    time.Time         // since when Consul does not answer or has no leader; zero if it does and has

	mu            sync.Mutex
	status        Status
	trust         endpoints.Trust
	filteredSince time.Time
}

func newMonitor(credentials *credentials, table *endpoints.Table, logger *slog.Logger) *monitor {
	m := &monitor{
		credentials: credentials,
		client:      credentials.client,
		table:       table,
		queries:     credentials.queries,
		logger:      logger,
		behind:      map[string]behind{},
		status:      Status{Address: credentials.client.Address(), LastError: "Consul has not been asked yet"},
		trust:       table.Trust(),
	}
	if m.trust.Filtered {
		m.filteredSince = time.Now()
	}
	return m
}

// run checks Consul every two seconds.
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
	_ = m.credentials.reload(ctx) // reload logs its error, and problems returns it
	found := m.ask(ctx)
	if strings.Contains(found.LastError, noServers) && m.rejoin(ctx) {
		if found = m.askAfterRejoin(ctx); found.LastError == "" {
			m.queries.renewAll() // the running ones hang on the connections that the agent had
		}
	}
	if ctx.Err() != nil {
		return
	}
	m.note(found)
	m.setTrust(func(t *endpoints.Trust) {
		t.NoLeader, t.Refused = found.Leader == "", found.Refused
	})
	defer func() { m.queries.renewDue(time.Now()) }()
	if found.LastError != "" {
		clear(m.behind)
		return
	}
	m.findStalled(ctx)
	if _, since := m.current(); !since.IsZero() || m.suspect != "" {
		m.checkFilter(ctx, m.heldOrSuspect())
		if _, since := m.current(); since.IsZero() {
			m.suspect = ""
		}
	}
}

// askAfterRejoin asks until there is no error: the agent needs a moment to use a server
// that it has found.
func (m *monitor) askAfterRejoin(ctx context.Context) Status {
	deadline := time.NewTimer(rejoinPatience)
	defer deadline.Stop()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		found := m.ask(ctx)
		if found.LastError == "" {
			return found
		}
		select {
		case <-ctx.Done():
			return found
		case <-deadline.C:
			return found
		case <-ticker.C:
		}
	}
}

// note stores the status that ask returned, and logs changes.
func (m *monitor) note(found Status) {
	now := time.Now()
	m.mu.Lock()
	old := m.status
	changed := old.Since.IsZero() || old.Reachable != found.Reachable || old.Refused != found.Refused || (old.Leader == "") != (found.Leader == "")
	found.Address, found.Since, found.Contact = old.Address, old.Since, old.Contact
	if found.LastError == "" {
		found.Contact = now
	}
	if changed {
		found.Since = now
	}
	m.status = found
	m.mu.Unlock()
	// The reason may change meanwhile: first no answer, then no leader.
	switch {
	case found.LastError != "" && m.away.IsZero():
		m.away = now
	case found.LastError == "" && !m.away.IsZero():
		if now.Sub(m.away) >= longOutage {
			m.queries.renewAll()
		}
		m.away = time.Time{}
	}
	switch {
	case !changed:
	case found.Refused:
		m.logger.Warn("Consul refuses the credentials", "address", found.Address, "reason", found.LastError)
	case found.LastError != "":
		m.logger.Warn("Consul is away", "address", found.Address, "reason", found.LastError)
	case !old.Since.IsZero():
		m.logger.Info("Consul is back", "address", found.Address, "leader", found.Leader)
	}
}

// ask finds out whether the agent answers and which server leads.
func (m *monitor) ask(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	options := (&api.QueryOptions{AllowStale: true}).WithContext(ctx)
	client := m.client.API()
	leader, err := client.Status().LeaderWithQueryOptions(options)
	switch {
	case err != nil:
		return m.trouble(err)
	case leader == "":
		return Status{Reachable: true, LastError: "Consul has no leader: most of its servers are down or can't reach each other"}
	}
	// Every token that can read anything can read service "consul". When the query for
	// another service fails, only that service is concerned.
	_, meta, err := client.Health().Service("consul", "", false, options)
	switch {
	case err != nil:
		return m.trouble(err)
	case meta.LastContact > maxLastContact:
		return Status{Reachable: true, LastError: fmt.Sprintf("the Consul server that answers has not heard from its leader for %s", meta.LastContact.Round(time.Second))}
	}
	return Status{Reachable: true, Leader: leader}
}

// trouble returns the status of Consul after a failed request.
func (m *monitor) trouble(err error) Status {
	s := Status{Refused: consulclient.IsRefusal(err), LastError: m.client.Explain(err)}
	var answer api.StatusError
	s.Reachable = errors.As(err, &answer)
	if s.Reachable && answer.Code >= http.StatusInternalServerError {
		s.LastError = "Consul has no leader: " + strings.TrimSpace(answer.Body)
	}
	return s
}

// rejoin has the agent look for servers that it lost, for example when its machine was
// cut off from the network. By itself it tries one every thirty seconds. rejoin returns
// false when the agent finds none, or the token has no agent:write.
func (m *monitor) rejoin(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	var members []*api.AgentMember
	if _, err := m.client.API().Raw().Query("/v1/agent/members", &members, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		m.logger.Debug("Consul's agent does not say which servers it had", "error", err)
		return false
	}
	for _, n := range rand.Perm(len(members)) { // a server that has gone for good would use up the time on every call
		member := members[n]
		if member.Tags["role"] != "consul" {
			continue
		}
		address := net.JoinHostPort(member.Addr, strconv.Itoa(int(member.Port)))
		_, err := m.client.API().Raw().Write("/v1/agent/join/"+address, nil, nil, (&api.WriteOptions{}).WithContext(ctx))
		if err == nil {
			m.logger.Info("Consul's agent had lost its servers and has joined one again", "server", member.Name)
			return true
		}
		m.logger.Debug("Consul's agent finds no server", "server", member.Name, "error", err)
	}
	return false
}

// heldOrSuspect returns the services to check while answers are filtered: those with held
// instances, and the one whose answer was filtered first.
func (m *monitor) heldOrSuspect() []string {
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

// CheckFilter asks Consul directly whether it filters its answers about the services, and
// updates Trust. It asks about ten services at most, for two seconds at most.
func (f *Follower) CheckFilter(ctx context.Context, services []string) {
	f.monitor.checkFilter(ctx, services)
}

// checkFilter asks Consul directly whether it filters its answers about the services.
func (m *monitor) checkFilter(ctx context.Context, services []string) {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	filtered, err := m.filtered(ctx, services[:min(len(services), maxFilterChecks)])
	if err != nil {
		return // the trust stays as it is; ask reports the error
	}
	if was := m.setTrust(func(t *endpoints.Trust) { t.Filtered = filtered }); was.Filtered && !filtered {
		m.logger.Info("Consul no longer filters its answers by ACLs")
		m.queries.renewAll()
	} else if !was.Filtered && filtered {
		m.logger.Warn("Consul filters its answers by ACLs: the token is too weak", "services", services)
	}
}

func (m *monitor) filtered(ctx context.Context, services []string) (bool, error) {
	options := (&api.QueryOptions{}).WithContext(ctx)
	for _, name := range services {
		_, meta, err := m.client.API().Health().Service(name, "", false, options)
		if err != nil {
			return false, err
		}
		if meta.ResultsFilteredByACLs {
			return true, nil
		}
	}
	// Any token with any rights can see the service "consul".
	all, meta, err := m.client.API().Catalog().Services(options)
	if err != nil || len(all) > 0 {
		return false, err
	}
	if meta.ResultsFilteredByACLs || m.client.Config().Token != "" {
		return meta.ResultsFilteredByACLs, nil
	}
	// Consul doesn't say to clients without a token that it filters.
	self, _, err := m.client.API().ACL().TokenReadSelf(options)
	var answer api.StatusError
	if errors.As(err, &answer) {
		return !strings.Contains(answer.Body, "ACL support disabled"), nil
	}
	return err == nil && self.AccessorID == anonymousToken, err
}

// setTrust changes the trust in Consul, and makes Changed fire if it is different.
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
	if m.trust != was {
		notify(m.queries.changed)
	}
	return was
}

// Trust returns whether Consul's answers can be trusted now, for Table.SetTrust. Call
// SetTrust from the goroutine that calls Observe. Changed fires when the trust changes.
func (f *Follower) Trust() endpoints.Trust {
	f.monitor.mu.Lock()
	defer f.monitor.mu.Unlock()
	return f.monitor.trust
}

// current returns the status, and since when answers are filtered; zero if they are not.
func (m *monitor) current() (Status, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status, m.filteredSince
}
