package registration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// drainReason is the reason of the maintenance that a registrar sets. The registrar leaves
// maintenance with another reason alone.
const drainReason = "registrar: draining before deregistration"

// agent is the registrar's access to the Consul agent.
type agent struct {
	clients *clients
	address string // without a password, for messages
}

// registration describes the instance to the agent.
type registration struct {
	service *api.AgentServiceRegistration
	// local is true if the agent runs on this machine. Then it can reach every address
	// that the registrar can reach.
	local bool
}

func newAgent(cfg Config, logger *slog.Logger) (*agent, error) {
	clients, err := newClients(cfg, logger)
	if err != nil {
		return nil, fmt.Errorf("connect to the Consul agent: %w", err)
	}
	return &agent{clients: clients, address: clients.client.Address()}, nil
}

// wanted returns the entry that the agent should have.
func (a *agent) wanted(ctx context.Context, cfg Config, owner string) (registration, error) {
	address, local, err := a.place(ctx, cfg)
	if err != nil {
		return registration{}, err
	}
	meta := map[string]string{ownerKey: owner}
	maps.Copy(meta, cfg.Meta)
	if _, port, err := net.SplitHostPort(cfg.Metrics); err == nil {
		meta[metricsKey] = port
	}
	return registration{
		local: local,
		service: &api.AgentServiceRegistration{
			ID:      cfg.ID,
			Name:    cfg.Name,
			Tags:    cfg.Tags,
			Meta:    meta,
			Port:    cfg.Port,
			Address: address,
			Weights: &cfg.Weights,
			Check:   cfg.Check.definition(cfg.ID, cfg.Check.target(address, cfg.Port)),
		},
	}, nil
}

// vouch makes a new instance start as passing, because the server has just answered its
// health check. It does so only if the agent runs on this machine, since another machine may
// not reach the server. Consul keeps the status of an instance that it already knows.
func (r registration) vouch(ready bool) {
	r.service.Check.Status = api.HealthCritical
	if ready && r.local {
		r.service.Check.Status = api.HealthPassing
	}
}

// place returns the address to register, and whether the agent runs on this machine. A
// configured address comes first. With an agent on this machine the address is empty:
// Consul then uses the address that its node advertises, which is right in a container with
// several networks. With an agent elsewhere it is the address from which this machine
// reaches the agent.
func (a *agent) place(ctx context.Context, cfg Config) (address string, local bool, err error) {
	source, err := a.source(ctx)
	if err != nil {
		return "", false, err
	}
	local = source == nil || source.IsLoopback()
	switch {
	case cfg.Address != "":
		return cfg.Address, local, nil
	case local:
		return "", local, nil
	}
	return source.String(), local, nil
}

// source returns the local address of packets to the agent, nil for an agent behind a unix
// socket. Connecting a UDP socket asks the routing table and sends nothing.
func (a *agent) source(ctx context.Context) (net.IP, error) {
	address := a.address
	if strings.HasPrefix(address, "unix:") {
		return nil, nil
	}
	if parsed, err := url.Parse(address); err == nil && parsed.Host != "" {
		address = parsed.Host
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), "8500")
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	connection, err := new(net.Dialer).DialContext(ctx, "udp", address)
	if err != nil {
		return nil, fmt.Errorf("find the address to register: %w", err)
	}
	defer connection.Close()
	return connection.LocalAddr().(*net.UDPAddr).IP, nil
}

func (a *agent) register(ctx context.Context, entry registration) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := a.clients.agent().ServiceRegisterOpts(entry.service, api.ServiceRegisterOpts{}.WithContext(ctx))
	return a.explain(err, entry.service.Name)
}

// found is the agent's entry for an instance.
type found struct {
	service *api.AgentService // nil if the agent doesn't know the instance
	checks  map[string]*api.AgentCheck
}

// find asks the agent for an instance.
func (a *agent) find(ctx context.Context, id string) (found, error) {
	options, cancel := bounded(ctx)
	defer cancel()
	service, _, err := a.clients.agent().Service(id, options)
	if isStatus(err, http.StatusNotFound) {
		return found{}, nil
	}
	if err != nil {
		return found{}, err
	}
	checks, err := a.clients.agent().ChecksWithFilterOpts(ofService(id), options)
	return found{service: service, checks: checks}, err
}

// owner returns the description of the registrar that registered the instance, see
// ownerKey. It is empty for an entry that was made in another way.
func (f found) owner() string {
	if f.service == nil {
		return ""
	}
	return f.service.Meta[ownerKey]
}

// ownedBy returns errOtherOwner for the entry of another registrar.
func (f found) ownedBy(owner string) error {
	if other := f.owner(); other != "" && other != owner {
		return fmt.Errorf("%w: %q at %s", errOtherOwner, other, f.address())
	}
	return nil
}

// address returns the instance's address, for messages.
func (f found) address() string {
	if f.service == nil {
		return ""
	}
	host := f.service.Address
	if host == "" {
		host = "(the node's address)"
	}
	return net.JoinHostPort(host, strconv.Itoa(f.service.Port))
}

// claim returns the description of the registrar that has claimed the entry, see
// agent.claim.
func (f found) claim() string {
	for id, check := range f.checks {
		if strings.HasPrefix(id, claimPrefix) {
			return check.Notes
		}
	}
	return ""
}

// difference describes how the agent's entry differs from the wanted one; "" if it
// doesn't.
func (f found) difference(entry registration) string {
	got, want := f.service, entry.service
	if got == nil {
		return "the agent did not know it any more"
	}
	var changed []string
	note := func(what string, same bool) {
		if !same {
			changed = append(changed, what)
		}
	}
	note("name", got.Service == want.Name)
	note("address", got.Address == want.Address)
	note("port", got.Port == want.Port)
	note("tags", slices.Equal(got.Tags, want.Tags))
	note("metadata", maps.Equal(got.Meta, want.Meta))
	note("weights", got.Weights == *want.Weights)
	check := f.checks[want.Check.CheckID]
	// The agent doesn't return a check's definition, but its notes, which describe it.
	note("check", check != nil && check.ServiceID == want.ID && check.Notes == want.Check.Notes)
	if len(changed) == 0 {
		return ""
	}
	return "changed in the agent: " + strings.Join(changed, ", ")
}

// heartbeat reports the status of a ttl check: passing, or critical with the reason.
func (a *agent) heartbeat(ctx context.Context, id, reason string) error {
	options, cancel := bounded(ctx)
	defer cancel()
	if reason != "" {
		return a.clients.agent().UpdateTTLOpts(checkID(id), reason, api.HealthCritical, options)
	}
	return a.clients.agent().UpdateTTLOpts(checkID(id), "the registrar is alive", api.HealthPassing, options)
}

// enterMaintenance takes the owner's instance out of the rotation, and reports whether the
// agent knows it. For an instance of another owner it returns errOtherOwner.
func (a *agent) enterMaintenance(ctx context.Context, id, owner string) (known bool, err error) {
	found, err := a.find(ctx, id)
	if err != nil || found.service == nil {
		return false, err
	}
	if err := found.ownedBy(owner); err != nil {
		return false, err
	}
	options, cancel := bounded(ctx)
	defer cancel()
	err = a.clients.agent().EnableServiceMaintenanceOpts(id, drainReason, options)
	if isStatus(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}

// clearMaintenance ends the maintenance that a registrar left behind when it was killed
// during its drain. It reports whether there was one.
func (a *agent) clearMaintenance(ctx context.Context, id string, found found) (bool, error) {
	maintenance := found.checks["_service_maintenance:"+id]
	if maintenance == nil || maintenance.Notes != drainReason {
		return false, nil
	}
	options, cancel := bounded(ctx)
	defer cancel()
	return true, a.clients.agent().DisableServiceMaintenanceOpts(id, options)
}

// claimPrefix begins the id of the check that claims an entry.
const claimPrefix = "registrar-claim:"

// claim asks for an entry that another registrar has: it adds a passing check
// that names the claimant. The owner removes it if it is alive; it doesn't change
// the instance's status. It ends with the entry.
func (a *agent) claim(ctx context.Context, id, owner string) error {
	options, cancel := bounded(ctx)
	defer cancel()
	return a.clients.agent().CheckRegisterOpts(&api.AgentCheckRegistration{
		ID: claimPrefix + id, Name: "claim of another registrar", Notes: owner, ServiceID: id,
		AgentServiceCheck: api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing},
	}, options)
}

// dropClaim removes a claim. A missing one is no error.
func (a *agent) dropClaim(ctx context.Context, id string) error {
	options, cancel := bounded(ctx)
	defer cancel()
	err := a.clients.agent().CheckDeregisterOpts(claimPrefix+id, options)
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// deregister removes the owner's entry. A missing entry is no error; an entry of another
// owner stays, and the error is errOtherOwner.
func (a *agent) deregister(ctx context.Context, id, owner string) error {
	found, err := a.find(ctx, id)
	if err != nil {
		return err
	}
	if found.service == nil {
		return nil
	}
	if err := found.ownedBy(owner); err != nil {
		return err
	}
	options, cancel := bounded(ctx)
	defer cancel()
	err = a.clients.agent().ServiceDeregisterOpts(id, options)
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

func bounded(ctx context.Context) (*api.QueryOptions, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	return (&api.QueryOptions{}).WithContext(ctx), cancel
}

func ofService(id string) string { return fmt.Sprintf("ServiceID == %q", id) }

func isStatus(err error, code int) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == code
}

// neverArrived reports whether a failed request was certainly not carried out: there was
// no connection, or the agent refused it.
func neverArrived(err error) bool {
	var status api.StatusError
	if errors.As(err, &status) {
		return status.Code >= 400 && status.Code < 500
	}
	return notSent(err)
}

// notSent reports whether a request failed because there was no connection.
func notSent(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) && network.Op == "dial"
}

// explain adds the remedy to a refused token.
func (a *agent) explain(err error, service string) error {
	if !isStatus(err, http.StatusForbidden) {
		return err
	}
	where := api.HTTPTokenEnvName
	switch config := a.clients.client.Config(); {
	case config.TokenFile != "":
		where = fmt.Sprintf("%s=%q", api.HTTPTokenFileEnvName, config.TokenFile)
	case config.Token == "":
		where += " or " + api.HTTPTokenFileEnvName
	}
	return fmt.Errorf("%w; want a token (%s) with the rules: service %q { policy = \"write\" } node_prefix \"\" { policy = \"read\" }", err, where, service)
}

func checkID(serviceID string) string { return "service:" + serviceID }
