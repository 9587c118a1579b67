package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

// refuseBad makes nginx fail with an error for the configuration "bad".
func refuseBad(r *rig, err error) {
	r.server.with(func() {
		r.server.fail = func(hash string) error {
			if hash == "bad" {
				return err
			}
			return nil
		}
	})
}

func TestAFaultOfOneServiceDoesNotAffectOthers(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("good", entry("api", 1))
		assert.Equal(t, []string{"api"}, r.source.took)
		refuseBad(r, fmt.Errorf("%w: nginx -t: no such thing in own.conf:3", nginx.ErrRejected))
		again := false
		r.source.refused = func(cfg render.Configuration, why string, test render.Test) render.Culprits {
			assert.Equal(t, "bad", cfg.Hash)
			assert.Equal(t, "nginx -t: no such thing in own.conf:3", why)
			why, err := test(r.Context(), nil)
			assert.NoError(t, err)
			assert.Empty(t, why)
			return render.Culprits{Services: []string{"api"}, Again: again}
		}
		r.wait(time.Minute)
		r.say("bad", entry("api", 2), entry("web", 1))
		s := r.status()
		assert.Equal(t, Pending, s.State)
		assert.Equal(t, "nginx refused it for service api, whose change is being removed", s.Pending.Reason)
		assert.Empty(t, s.Problems)
		assert.Equal(t, "service api: configuration refused: nginx -t: no such thing in own.conf:3", r.c.History()[0].Reason)

		r.say("without", entry("api", 1), entry("web", 1))
		assert.Equal(t, Serving, r.status().State, "there is no pending change")
		assert.Equal(t, []string{"applied 1", "rejected 1", "applied 2"}, r.events())
		assert.Equal(t, []string{"api", "web"}, r.source.took)

		// It is tried once more, and fails again.
		again = true
		r.wait(time.Minute)
		r.say("bad", entry("api", 2), entry("web", 1))
		r.say("without", entry("api", 1), entry("web", 1))
		assert.Equal(t, Serving, r.status().State)
		assert.Equal(t, []string{"applied 1", "rejected 1", "applied 2"}, r.events(), "the history has the failure once")
		assert.Equal(t, []string{"good", "bad", "without", "bad"}, r.server.hashes())
	})
}

func TestAPolicyThatNginxRefusesIsNamed(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("good", entry("api", 1))
		refuseBad(r, fmt.Errorf("%w: nginx -t: no such thing in own.conf:3", nginx.ErrRejected))
		r.source.refused = func(render.Configuration, string, render.Test) render.Culprits {
			return render.Culprits{Policy: "lb/default"}
		}
		r.wait(time.Minute)
		r.say("bad", entry("api", 2))
		s := r.status()
		assert.Equal(t, "nginx refused it for policy lb/default, whose change is being removed", s.Pending.Reason)
		assert.Equal(t, Pending, s.State)
		assert.Empty(t, s.Problems)
		assert.Equal(t, "policy lb/default: configuration refused: nginx -t: no such thing in own.conf:3", r.c.History()[0].Reason)
	})
}

func TestRejectedConfigurationsQuarantineCulprits(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		asked  bool
		tested bool // with nginx -t
	}{
		{"nginx -t refuses it", fmt.Errorf("%w: nginx -t: no", nginx.ErrRejected), true, true},
		{"a reload fails", fmt.Errorf("generation 2: %w to 1: bind() failed", nginx.ErrRolledBack), true, false},
		{"nginx does not start with it", fmt.Errorf("generation 2 is current, but %w: bind() failed", nginx.ErrNotRunning), true, false},
		{"the disk is full", fmt.Errorf("store generation 2: %w", nginx.ErrStore), false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.say("good")
				refuseBad(r, tt.err)
				asked := false
				r.source.refused = func(_ render.Configuration, _ string, test render.Test) render.Culprits {
					asked = true
					assert.Equal(t, tt.tested, test != nil)
					return render.Culprits{}
				}
				r.wait(time.Minute)
				r.say("bad")
				assert.Equal(t, tt.asked, asked)
			})
		})
	}
}

func TestARefusalByNginxTestDiffersFromAFailureToRunIt(t *testing.T) {
	server := newFakeServer()
	for _, tt := range []struct {
		err  error
		why  string
		fail bool
	}{
		{nil, "", false},
		{fmt.Errorf("%w: nginx -t: no such thing", nginx.ErrRejected), "nginx -t: no such thing", false},
		{fmt.Errorf("test the configuration: %w", nginx.ErrStore), "", true},
		{context.DeadlineExceeded, "", true},
	} {
		server.testFails = tt.err
		why, err := testBy(server)(t.Context(), nil)
		assert.Equal(t, tt.why, why)
		assert.Equal(t, tt.fail, err != nil && errors.Is(err, tt.err), "%v", err)
	}
}
