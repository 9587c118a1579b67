package registrarcli

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"

	"lbctl/internal/consultest"
)

// A signal that arrives twice within a moment doesn't cut the drain short. Once the
// moment is over, the next one does.
func TestDoubledSignalIsOne(t *testing.T) {
	agent := consultest.Start(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			p := launch(t, environment(agent, "DRAIN=1h"))
			awaitStatus(t, agent, api.HealthPassing)
			p.signal(sig)
			p.awaitLine("left the rotation")
			p.signal(sig)
			p.awaitLine("counted as one")
			assert.NotContains(t, p.output(), "drain cut short")
			consultest.Eventually(t, patience, func() (bool, string) {
				select {
				case <-p.done:
				default:
					_ = p.cmd.Process.Signal(sig) // it may have ended just now
				}
				return strings.Contains(p.output(), "drain cut short"), "the drain goes on"
			})
			assert.Equal(t, 0, p.code())
		})
	}
}

func TestRepeatedSignals(t *testing.T) {
	const term, interrupt = syscall.SIGTERM, syscall.SIGINT
	type arrival struct {
		signal syscall.Signal
		at     time.Duration
		repeat bool
	}
	for name, arrivals := range map[string][]arrival{
		"the same within a second repeats it":              {{term, 0, false}, {term, time.Millisecond, true}, {term, 999 * time.Millisecond, true}},
		"the same a second later is another one":           {{term, 0, false}, {term, time.Second, false}, {term, 1999 * time.Millisecond, true}},
		"what repeats a signal doesn't prolong its second": {{term, 0, false}, {term, 900 * time.Millisecond, true}, {term, 1100 * time.Millisecond, false}},
		"another kind counts at once":                      {{term, 0, false}, {interrupt, 1, false}, {interrupt, 2, true}, {term, 3, false}},
	} {
		t.Run(name, func(t *testing.T) {
			var last lastSignal
			for i, a := range arrivals {
				assert.Equal(t, a.repeat, last.repeatedBy(a.signal, time.Unix(0, 0).Add(a.at)), "signal %d", i+1)
			}
		})
	}
}
