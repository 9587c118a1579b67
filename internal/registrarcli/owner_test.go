package registrarcli

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"

	"lbctl/internal/consultest"
)

// The second of two registrars with one id ends and says why. The first one keeps the entry
// and names the second one.
func TestSecondRegistrarWithTheSameIDEnds(t *testing.T) {
	agent := consultest.Start(t)
	first := launch(t, environment(agent), "exec", "--", "sleep", "3600")
	awaitStatus(t, agent, api.HealthPassing)
	second := launch(t, environment(agent, "APP_PORT=8888", "DRAIN=1h"), "exec", "--", "sleep", "3600")
	assert.Equal(t, exitFailure, second.code())
	assert.Contains(t, second.output(), "registrar: register \"web-1\": the entry belongs to another registrar, which is alive: ")
	firstPID, secondPID := fmt.Sprintf("pid=%d ", first.cmd.Process.Pid), fmt.Sprintf("pid=%d ", second.cmd.Process.Pid)
	for _, p := range []*process{first, second} {
		p.awaitLine("level=WARN msg=\"another registrar")
		assert.Contains(t, p.output(), firstPID)
		assert.Contains(t, p.output(), secondPID)
	}
	first.signal(syscall.SIGTERM)
	first.code()
	assert.NotContains(t, first.output(), "registered again", "the entry was never overwritten")
}

// A successor takes over the entry of a killed registrar of the same machine at once.
func TestSuccessorOfAKilledRegistrarTakesOver(t *testing.T) {
	agent := consultest.Start(t)
	first := launch(t, environment(agent), "exec", "--", "sleep", "3600")
	awaitStatus(t, agent, api.HealthPassing)
	first.signal(syscall.SIGKILL)
	first.code()
	second := launch(t, environment(agent), "exec", "--", "sleep", "3600")
	second.awaitLine("msg=registered")
	second.awaitLine("taking over the entry of a registrar that has ended")
	assert.NotContains(t, second.output(), "asking whether it is alive")
}

// A registrar that was paused for too long finds that it has a successor, and ends.
func TestPausedRegistrarFindsItsSuccessor(t *testing.T) {
	agent := consultest.Start(t)
	first := launch(t, environment(agent), "exec", "--", "sleep", "3600")
	awaitStatus(t, agent, api.HealthPassing)
	first.signal(syscall.SIGSTOP)
	second := launch(t, environment(agent), "exec", "--", "sleep", "3600")
	second.awaitLine("the other registrar does not answer, taking over its entry")
	second.awaitLine("msg=registered")
	first.signal(syscall.SIGCONT)
	assert.Equal(t, exitFailure, first.code())
	assert.Contains(t, first.output(), "the entry belongs to another registrar, which is alive")
	awaitStatus(t, agent, api.HealthPassing)

	second.signal(syscall.SIGTERM)
	assert.Equal(t, 128+int(syscall.SIGTERM), second.code())
	assert.Equal(t, "absent", status(t, agent))
}
