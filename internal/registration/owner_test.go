package registration

import (
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

// ownedBy makes an entry of another registrar.
func ownedBy(t *testing.T, agent *consultest.Server, owner string) {
	t.Helper()
	require.NoError(t, agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "web-1", Name: "web", Port: 1111, Meta: map[string]string{ownerKey: owner},
	}))
}

func TestSecondRegistrarWithTheSameIDEnds(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	first := run(t, config(t, agent))
	awaitStatus(t, agent, "web", api.HealthPassing)
	before := index(t, agent)

	second := run(t, config(t, agent, "--port=8888", "--drain=1h"))
	err := second.end() // without a drain, since it was never registered
	require.ErrorIs(t, err, errOtherOwner)
	assert.ErrorContains(t, err, first.owner, "the owner")
	assert.ErrorContains(t, err, "7777", "where")
	assert.ErrorContains(t, err, second.owner, "the claimant")
	first.awaitLog("level=WARN msg=\"another registrar wants the entry with this id, refusing it\"")
	first.awaitLog(second.owner)
	second.awaitLog("level=WARN msg=\"another registrar has the entry with this id, asking whether it is alive\"")

	got := awaitStatus(t, agent, "web", api.HealthPassing)
	assert.Equal(t, 7777, got.Service.Port)
	assert.Equal(t, first.owner, got.Service.Meta[ownerKey])
	assert.Equal(t, before, index(t, agent), "the entry was not touched")
	for _, check := range got.Checks {
		assert.NotContains(t, check.CheckID, claimPrefix, "the claim is gone")
	}
}

// index returns Consul's index of the last change of the entry.
func index(t *testing.T, agent *consultest.Server) uint64 {
	t.Helper()
	services, _, err := agent.Client().Catalog().Service("web", "", nil)
	require.NoError(t, err)
	require.Len(t, services, 1)
	return services[0].ModifyIndex
}

// A registrar that finds that another one has taken over its entry ends, and leaves the
// entry alone.
func TestSupersededRegistrarEnds(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	first := run(t, config(t, agent, "--drain=1h"))
	awaitStatus(t, agent, "web", api.HealthPassing)
	// A second one takes over, for example because the first one was paused for too long.
	cfg := config(t, agent, "--port=8888")
	second, err := New(cfg, first.logger)
	require.NoError(t, err)
	_, err = second.register(t.Context(), true)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = second.stay(t.Context()) }()
	t.Cleanup(func() { <-done })

	require.ErrorIs(t, first.end(), errOtherOwner)
	got := awaitStatus(t, agent, "web", api.HealthPassing)
	assert.Equal(t, second.owner, got.Service.Meta[ownerKey])
	assert.Equal(t, 8888, got.Service.Port)
}

func TestTakingOver(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	host, err := os.Hostname()
	require.NoError(t, err)
	dead := exec.Command("true")
	require.NoError(t, dead.Run())
	own := processIdentity(os.Getpid())
	require.NotEmpty(t, own)
	parts := strings.Split(own, "/")
	tests := []struct {
		name, owner string
		asks        bool
	}{
		{"an entry made in another way", "", false},
		{"an entry of a process that has ended", "host=" + host + " pid=" + strconv.Itoa(dead.Process.Pid) +
			" since=2026-11-26T12:00:00.000Z process=" + parts[0] + "/" + parts[1] + "/" + strconv.Itoa(dead.Process.Pid) + "/1", false},
		{"an entry of an earlier process with the same id", "host=" + host + " pid=" + strconv.Itoa(os.Getpid()) +
			" since=2026-11-26T12:00:00.000Z process=" + parts[0] + "/" + parts[1] + "/" + parts[2] + "/1", false},
		{"an entry of a process elsewhere that does not answer", "host=elsewhere pid=7 since=2026-11-26T12:00:00.000Z process=x/1/7/1", true},
		{"an entry with an invalid owner", "me", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ownedBy(t, agent, test.owner)
			r := run(t, config(t, agent))
			r.awaitLog("msg=registered")
			assert.Equal(t, test.asks, strings.Contains(r.log(), "asking whether it is alive"))
			got := must(entry(agent, "web"))
			require.NotNil(t, got)
			assert.Equal(t, r.owner, got.Service.Meta[ownerKey])
			checks, err := agent.Client().Agent().Checks()
			require.NoError(t, err)
			assert.NotContains(t, checks, claimPrefix+"web-1")
			require.NoError(t, r.stop())
		})
	}
}

// A successor that starts while its predecessor drains waits until that has left.
func TestSuccessorWaitsForTheDrain(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	first := run(t, config(t, agent, "--drain=1h"))
	awaitStatus(t, agent, "web", api.HealthPassing)
	first.cancel()
	awaitStatus(t, agent, "web", api.HealthMaint)
	second := run(t, config(t, agent))
	second.awaitLog("asking whether it is alive")
	first.Hurry()
	require.NoError(t, first.stop())
	second.awaitLog("msg=registered")
	got := awaitStatus(t, agent, "web", api.HealthPassing)
	assert.Equal(t, second.owner, got.Service.Meta[ownerKey])
}

// If the predecessor drains for too long, the successor takes over the entry, and the
// predecessor leaves it alone.
func TestPredecessorLeavesItsSuccessorsEntry(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	first := run(t, config(t, agent, "--drain=1h"))
	awaitStatus(t, agent, "web", api.HealthPassing)
	first.cancel()
	awaitStatus(t, agent, "web", api.HealthMaint)
	second := run(t, config(t, agent))
	awaitStatus(t, agent, "web", api.HealthPassing) // the successor ends the maintenance
	first.Hurry()
	require.NoError(t, first.stop())
	first.awaitLog("not deregistering, another registrar has taken over the entry")
	got := awaitStatus(t, agent, "web", api.HealthPassing)
	assert.Equal(t, second.owner, got.Service.Meta[ownerKey])
}

func TestOwnerIsReadable(t *testing.T) {
	owner, err := newOwner()
	require.NoError(t, err)
	assert.False(t, ownerEnded(owner), "this process runs")
	assert.LessOrEqual(t, len(owner), 512, "Consul's limit for a metadata value")
	assert.Contains(t, owner, "pid="+strconv.Itoa(os.Getpid()))
	assert.Contains(t, owner, time.Now().UTC().Format("since=2006-01-02T"))
}

// A registrar that leaves does not take another registrar's instance out of the rotation.
func TestDrainLeavesAnotherRegistrarsEntry(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	r, err := New(config(t, agent), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = r.register(t.Context(), true)
	require.NoError(t, err)
	ownedBy(t, agent, "host=elsewhere pid=7 since=2026-11-26T12:00:00.000Z process=x/1/7/1")
	r.drain(nil)
	r.deregister()
	got := awaitStatus(t, agent, "web", api.HealthPassing)
	assert.Equal(t, 1111, got.Service.Port)
}
