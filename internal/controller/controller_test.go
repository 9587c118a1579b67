package controller

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consul"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

func TestTheFirstConfigurationGoesAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		s := r.status()
		assert.Equal(t, Starting, s.State)
		assert.Equal(t, "nginx serves nothing yet: the first configuration is on its way", s.Summary)

		r.say("a", entry("hello", 2))
		assert.Equal(t, []string{"a"}, r.server.hashes())
		s = r.status()
		assert.Equal(t, Serving, s.State)
		assert.Equal(t, "nginx serves generation 1, which is what Consul says", s.Summary)
		assert.Equal(t, 1, s.Services)
		assert.Equal(t, 2, s.Instances)
		assert.Equal(t, "test", s.Version)
		assert.Equal(t, Nginx{Version: "1.30.6", Running: true, PID: 7, Generation: 1, Since: s.Nginx.Since, Workers: 2}, s.Nginx)
		assert.Nil(t, s.Pending)
		assert.Equal(t, history.Applied, s.LastApply.Outcome)

		e := r.c.History()[0]
		assert.Equal(t, "1 service, 2 instances", e.Change)
		assert.Equal(t, "the first configuration", e.Reason)
	})
}

func TestSettling(t *testing.T) {
	ms := time.Millisecond
	every := func(n int, pause time.Duration) []time.Duration {
		var at []time.Duration
		for i := range n {
			at = append(at, time.Duration(i)*pause)
		}
		return at
	}
	tests := []struct {
		name    string
		changes []time.Duration
		want    []time.Duration
	}{
		{"changes after a quiet time are applied at once", []time.Duration{0, 2000 * ms, 3500 * ms}, []time.Duration{0, 2000 * ms, 3500 * ms}},
		{"a change soon after another waits until a second has passed", []time.Duration{0, 1100 * ms, 1200 * ms}, []time.Duration{0, 1100 * ms, 2100 * ms}},
		{"a burst after the first change is one apply", []time.Duration{0, 10 * ms, 20 * ms, 150 * ms}, []time.Duration{0, 1000 * ms}},
		{"changes without a pause wait for two seconds at most", every(45, 110*ms), []time.Duration{0, 2110 * ms, 4200 * ms, 5200 * ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.wait(time.Hour)
				start := time.Now()
				for n, at := range tt.changes {
					time.Sleep(at - time.Since(start))
					r.say(fmt.Sprint(n))
				}
				r.wait(time.Minute)
				var got []time.Duration
				for _, a := range r.server.applied {
					got = append(got, a.at-start.Sub(bubbleEpoch))
				}
				assert.Equal(t, tt.want, got)
				hashes := r.server.hashes()
				assert.Equal(t, fmt.Sprint(len(tt.changes)-1), hashes[len(hashes)-1])
			})
		})
	}
}

func TestOneApplyInFlightAndTheLatestWins(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server.takes = 5 * time.Second
		r.say("a", entry("hello", 1))
		for _, hash := range []string{"b", "c", "d"} {
			r.wait(100 * time.Millisecond)
			r.say(hash, entry("hello", 3))
		}
		s := r.status()
		assert.Equal(t, "nginx is being given the new configuration", s.Pending.Reason)
		r.wait(6 * time.Second)
		s = r.status()
		assert.Equal(t, Pending, s.State)
		assert.Equal(t, "nginx serves generation 1; a change is on its way (hello +2)", s.Summary)
		r.wait(time.Minute)
		assert.Equal(t, []string{"a", "d"}, r.server.hashes())
		assert.Equal(t, 1, r.server.mostFlying)
		assert.Equal(t, Serving, r.status().State)
		assert.Equal(t, "hello +2", r.c.History()[0].Change)
	})
}

func TestAnUnchangedConfigurationIsNotAppliedAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.say("a")
		r.wait(time.Minute)
		r.restart()
		assert.Equal(t, Starting, r.status().State)
		assert.Contains(t, r.status().Summary, "made before lbctl started; Consul's answer is on its way")
		r.say("a")
		r.wait(time.Minute)
		assert.Equal(t, []string{"a"}, r.server.hashes())
		assert.Equal(t, Serving, r.status().State)
		assert.Empty(t, r.server.activated)
	})
}

func TestAChangeUndoneWhileItSettlesIsNotApplied(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.say("b")
		r.wait(100 * time.Millisecond)
		r.say("a")
		r.wait(time.Minute)
		assert.Equal(t, []string{"a"}, r.server.hashes())
	})
}

func TestAChangeUndoneWhileItIsAppliedIsUndone(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.server.with(func() { r.server.takes = time.Second })
		r.say("b")
		r.wait(100 * time.Millisecond)
		r.say("a")
		r.wait(time.Minute)
		assert.Equal(t, []string{"a", "b", "a"}, r.server.hashes())
		assert.Equal(t, Serving, r.status().State)
	})
}

func TestRejected(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("good", entry("hello", 1))
		r.wait(time.Minute)
		r.server.with(func() {
			r.server.fail = func(hash string) error {
				if hash == "bad" {
					return fmt.Errorf("%w: unknown directive \"grcp_pass\" in nginx.conf:7", nginx.ErrRejected)
				}
				return nil
			}
		})
		began := time.Since(bubbleEpoch)
		r.say("bad", entry("hello", 2))
		s := r.status()
		assert.Equal(t, Degraded, s.State)
		assert.Regexp(t, `^nginx serves generation 1 of \d\d:\d\d:\d\d, not the newest: configuration refused: unknown directive "grcp_pass" in nginx.conf:7$`, s.Summary)
		assert.Equal(t, "hello +1", s.Pending.Change)
		assert.Regexp(t, `^nginx refused it; next attempt at `, s.Pending.Reason)
		require.Len(t, s.Problems, 1)
		assert.Equal(t, "nginx", s.Problems[0].Subject)
		assert.Equal(t, history.Rejected, s.LastApply.Outcome)

		r.wait(5 * time.Minute)
		var at []time.Duration
		for _, a := range r.server.applied[1:] {
			at = append(at, a.at-began)
		}
		s64 := time.Second
		assert.Equal(t, []time.Duration{0, s64, 3 * s64, 7 * s64, 15 * s64, 31 * s64, 63 * s64, 123 * s64, 183 * s64, 243 * s64}, at)
		assert.Equal(t, []string{"applied 1", "rejected 1"}, r.events(), "a failure that repeats is one event")

		before := time.Now()
		r.say("better", entry("hello", 2))
		assert.Zero(t, time.Since(before), "the next configuration doesn't wait")
		assert.Equal(t, Serving, r.status().State)
		assert.Empty(t, r.status().Problems)
		assert.Equal(t, []string{"applied 1", "rejected 1", "applied 2"}, r.events())
	})
}

func TestTheNextConfigurationGoesAtOnceEvenRightAfterAFailure(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("good")
		r.wait(time.Minute)
		r.server.with(func() {
			r.server.fail = func(hash string) error {
				if hash == "bad" {
					return nginx.ErrRejected
				}
				return nil
			}
		})
		r.say("bad")
		r.say("better")
		assert.Equal(t, []string{"good", "bad", "better"}, r.server.hashes())
		r.say("good2") // back to settling
		assert.Len(t, r.server.hashes(), 3)
	})
}

func TestAWithdrawnConfigurationIsNoProblem(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("good")
		r.server.with(func() { r.server.fail = func(string) error { return nginx.ErrRejected } })
		r.wait(time.Minute)
		r.say("bad")
		require.Equal(t, Degraded, r.status().State)
		r.say("good")
		assert.Equal(t, Serving, r.status().State)
		r.wait(5 * time.Minute)
		assert.Equal(t, []string{"good", "bad"}, r.server.hashes())
	})
}

func TestRolledBackThenRetried(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a", entry("hello", 1))
		r.wait(time.Minute)
		taken := errors.New("bind() to 0.0.0.0:5000 failed (98: Address already in use)")
		r.server.with(func() {
			r.server.fail = func(string) error {
				return fmt.Errorf("generation 2: %w to 1: %w", nginx.ErrRolledBack, taken)
			}
		})
		r.say("b", entry("hello", 2))
		s := r.status()
		assert.Equal(t, Degraded, s.State)
		assert.Contains(t, s.Summary, "not the newest: generation 2: rolled back to 1: bind() to 0.0.0.0:5000 failed (98: Address already in use)")
		assert.Equal(t, 1, s.Instances)
		r.server.with(func() { r.server.fail = nil })
		r.wait(time.Second)
		assert.Equal(t, Serving, r.status().State)
		assert.Equal(t, 2, r.status().Instances)
		assert.Equal(t, []string{"applied 1", "rolled_back 1", "applied 2"}, r.events())
		assert.Equal(t, "tried again, attempt 2", r.c.History()[0].Reason)
	})
}

func TestNginxIsDownWhenAConfigurationComes(t *testing.T) {
	bubble(t, func(r *rig) {
		off := fmt.Errorf("%w: nginx.pid does not name a running nginx", nginx.ErrNotRunning)
		r.server.with(func() {
			r.server.down = off
			r.server.fail = func(string) error { return off }
		})
		r.say("a", entry("hello", 1))
		s := r.status()
		assert.Equal(t, Down, s.State)
		assert.Equal(t, "nginx does not answer: nginx.pid does not name a running nginx; it will serve generation 1 once it answers", s.Summary)
		assert.False(t, s.Nginx.Running)
		assert.Zero(t, s.Nginx.Generation)
		r.wait(5 * time.Minute)
		assert.Equal(t, []string{"a"}, r.server.hashes(), "the configuration waits for nginx, and is not applied again")

		r.server.with(func() { r.server.down, r.server.fail, r.server.serving = nil, nil, 1 })
		assert.Equal(t, Serving, r.status().State)
		r.wait(2 * time.Second)
		assert.Equal(t, []string{"nginx_down 1", "nginx_up 1"}, r.events())
		assert.InDelta(t, 300, r.c.History()[0].TookSeconds, 5)
	})
}

func TestNginxLosesItsMasterAndGetsOne(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		gone := func(gone bool) { r.server.with(func() { r.server.masterGone = gone }) }
		gone(true)
		r.wait(5*time.Second + 100*time.Millisecond) // one check
		gone(false)
		r.wait(10 * time.Second)
		assert.Equal(t, []string{"applied 1"}, r.events(), "nginx started again between a check's two questions")

		gone(true)
		r.wait(20 * time.Second)
		gone(false)
		r.wait(2 * time.Second)
		assert.Equal(t, []string{"applied 1", "nginx_master_gone 1", "nginx_master_back 1"}, r.events())
		assert.InDelta(t, 20, r.c.History()[0].TookSeconds, 5)
		assert.Equal(t, masterGone, r.c.History()[1].Reason)
		assert.Contains(t, r.log.String(), "nginx has no master process")

		r.server.with(func() { r.server.down = nginx.ErrNotRunning })
		r.wait(10 * time.Second)
		assert.Equal(t, "nginx_down 1", r.events()[3], "it is gone as a whole")
		assert.Len(t, r.events(), 4)
	})
}

func TestAChangeWhileNginxHasNoMaster(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a", entry("hello", 1))
		r.wait(time.Minute)
		r.server.with(func() {
			r.server.masterGone = true
			r.server.fail = func(string) error { return nginx.ErrNotRunning }
		})
		r.wait(time.Second)
		r.say("b", entry("hello", 2))
		r.wait(5 * time.Minute)
		assert.Equal(t, []string{"applied 1", "nginx_master_gone 2"}, r.events(), "nginx answers, and nothing can be corrected")
		assert.Equal(t, "hello +1", r.c.History()[0].Change)
		assert.Equal(t, []string{"a", "b"}, r.server.hashes())
		assert.Empty(t, r.server.activated)

		r.source.took = nil
		r.server.with(func() { r.server.masterGone, r.server.fail, r.server.serving = false, nil, 2 })
		r.wait(2 * time.Second)
		assert.Equal(t, "nginx_master_back 2", r.events()[2])
		assert.Equal(t, []string{"hello"}, r.source.took)
		assert.Equal(t, Serving, r.status().State)
	})
}

func TestNginxGoesDownAndComesBack(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.server.with(func() { r.server.down = nginx.ErrNotRunning })
		assert.Equal(t, Down, r.status().State, "found before the next check")
		r.wait(10 * time.Second)
		r.server.with(func() { r.server.down = nil })
		r.wait(2 * time.Second)
		assert.Equal(t, Serving, r.status().State)
		assert.Equal(t, []string{"applied 1", "nginx_down 1", "nginx_up 1"}, r.events())
		assert.Empty(t, r.server.activated)
	})
}

func TestRollbackPinsAGenerationAcrossARestart(t *testing.T) {
	bubble(t, func(r *rig) {
		for n, hash := range []string{"a", "b", "c"} {
			r.say(hash, entry("hello", n+1))
			r.wait(time.Minute)
		}
		g, err := r.c.Rollback(r.Context(), 1)
		require.NoError(t, err)
		assert.Equal(t, 1, g.Number)
		s := r.status()
		assert.Equal(t, Frozen, s.State)
		assert.Regexp(t, `^nginx serves generation 1, pinned by a rollback at \S+; a change waits \(1 service, 3 instances; before: 1 service, 1 instance\); 'lbctl resume' follows Consul again$`, s.Summary)
		assert.Equal(t, 1, s.Frozen.Generation)
		assert.Equal(t, "generation 1 is pinned", s.Pending.Reason)

		r.say("d", entry("hello", 4))
		r.wait(time.Hour)
		assert.Equal(t, []string{"a", "b", "c"}, r.server.hashes())

		r.restart()
		r.say("e", entry("hello", 5))
		r.wait(time.Hour)
		assert.Equal(t, Frozen, r.status().State)
		assert.Equal(t, []string{"a", "b", "c"}, r.server.hashes())

		require.NoError(t, r.c.Resume(r.Context()))
		r.wait(0)
		assert.Equal(t, Serving, r.status().State)
		assert.Nil(t, r.status().Frozen)
		assert.Equal(t, []string{"a", "b", "c", "e"}, r.server.hashes())
		assert.Equal(t, []string{"applied 1", "applied 2", "applied 3", "rollback 1", "resume 1", "applied 4"}, r.events())
		assert.NoFileExists(t, filepath.Join(r.dir, "frozen.json"))
		require.NoError(t, r.c.Resume(r.Context()), "nothing is pinned")
		assert.Len(t, r.events(), 6)
	})
}

func TestRollbackToTheCurrentGenerationOnlyPinsIt(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		_, err := r.c.Rollback(r.Context(), 1)
		require.NoError(t, err)
		assert.Empty(t, r.server.activated)
		assert.Equal(t, Frozen, r.status().State)
		assert.Nil(t, r.status().Pending)
	})
}

func TestARollbackThatNginxRefusesChangesNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.say("b")
		r.server.with(func() {
			r.server.fail = func(string) error { return fmt.Errorf("%w: no certificate", nginx.ErrRejected) }
		})
		_, err := r.c.Rollback(r.Context(), 1)
		assert.ErrorIs(t, err, nginx.ErrRejected)
		assert.Equal(t, Serving, r.status().State)
		assert.NoFileExists(t, filepath.Join(r.dir, "frozen.json"))
		assert.Equal(t, []string{"applied 1", "applied 2", "rejected 2"}, r.events())

		_, err = r.c.Rollback(r.Context(), 9)
		assert.EqualError(t, err, "generation 9 is not on disk, see 'lbctl history'")
	})
}

func TestARollbackWaitsForTheApplyInFlight(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.server.with(func() { r.server.takes = time.Second })
		r.say("b")
		g, err := r.c.Rollback(r.Context(), 1)
		require.NoError(t, err)
		assert.Equal(t, 1, g.Number)
		assert.Equal(t, 1, r.server.mostFlying)
		assert.Equal(t, []string{"applied 1", "applied 2", "rollback 1"}, r.events())
	})
}

func TestARollbackSurvivesACrash(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.say("b")
		r.end()
		require.NoError(t, writePin(filepath.Join(r.dir, "frozen.json"), &Pin{Generation: 1, Since: time.Now()}))
		r.source = newFakeSource()
		r.run()
		r.say("b")
		r.wait(10 * time.Second)
		assert.Equal(t, Frozen, r.status().State)
		assert.Equal(t, 1, r.server.serving)
	})
}

// A pin that somebody else wrote may have no date.
func TestAPinWithoutADate(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.end()
		require.NoError(t, os.WriteFile(filepath.Join(r.dir, "frozen.json"), []byte(`{"generation": 1}`), 0o644))
		r.source = newFakeSource()
		r.run()
		r.wait(10 * time.Second)
		assert.Equal(t, "nginx serves generation 1, pinned by a rollback; 'lbctl resume' follows Consul again", r.status().Summary)
	})
}

func TestAPinnedGenerationThatIsGone(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.end()
		require.NoError(t, writePin(filepath.Join(r.dir, "frozen.json"), &Pin{Generation: 9, Since: time.Now()}))
		r.run()
		assert.Equal(t, 1, r.status().Frozen.Generation)

		r.end()
		r.server = newFakeServer()
		r.run()
		r.say("b")
		assert.Equal(t, Serving, r.status().State, "no generation is left that could be pinned")
	})
}

func TestDriftOfTheServedGeneration(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.say("b")
		r.wait(time.Minute)
		r.server.with(func() { r.server.serving = 1 })
		s := r.status()
		assert.Equal(t, Degraded, s.State)
		assert.Equal(t, "nginx serves generation 1 instead of 2; lbctl notices that within seconds and corrects it", s.Summary)
		r.wait(6 * time.Second)
		assert.Equal(t, Serving, r.status().State)
		assert.Equal(t, []int{2}, r.server.activated)
		assert.Equal(t, []string{"applied 1", "applied 2", "drift 2"}, r.events())
		assert.Equal(t, "nginx served generation 1, want 2", r.c.History()[0].Reason)
	})
}

func TestDriftOfTheCurrentLink(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.say("b")
		r.wait(time.Minute)
		r.server.with(func() { r.server.current = 1 })
		r.wait(6 * time.Second)
		assert.Equal(t, []int{2}, r.server.activated)
		assert.Equal(t, "current pointed to generation 1, want 2", r.c.History()[0].Reason)
	})
}

func TestDriftOfFilesOnDisk(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a", entry("hello", 1))
		r.wait(time.Minute)
		r.restart() // the new process reads the files from the disk
		r.server.with(func() {
			r.server.files[1] = map[string][]byte{"nginx.conf": []byte("edited"), "more.conf": nil}
		})
		r.wait(6 * time.Second)
		assert.Equal(t, []string{"a", "a"}, r.server.hashes())
		assert.Equal(t, []byte("a"), r.server.files[2]["nginx.conf"])
		assert.Equal(t, "files of generation 1 were changed on disk: more.conf, nginx.conf", r.c.History()[0].Reason)
		assert.Equal(t, []string{"applied 1", "drift 2"}, r.events())

		r.server.with(func() { delete(r.server.files, 2) })
		r.wait(6 * time.Second)
		assert.Equal(t, []byte("a"), r.server.files[3]["nginx.conf"])
		r.wait(time.Hour)
		assert.Len(t, r.events(), 3)
	})
}

// TestDriftWhileNginxIsDown corrects drift that may keep nginx from starting.
func TestDriftWhileNginxIsDown(t *testing.T) {
	const edited = "files of generation 2 were changed on disk: "
	for name, test := range map[string]struct {
		change func(s *fakeServer)
		want   string // reason
		now    int    // generation
	}{
		"a file":                   {func(s *fakeServer) { s.files[2]["nginx.conf"] = nil }, edited + "nginx.conf", 3},
		"the file with the number": {func(s *fakeServer) { s.unmarked = 2 }, edited + "generation.conf", 3},
		"the link":                 {func(s *fakeServer) { s.current = 1 }, "current pointed to generation 1, want 2", 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.say("a")
				r.wait(time.Minute)
				r.say("b")
				r.wait(time.Minute)
				_, err := r.c.Rollback(r.Context(), 2)
				require.NoError(t, err)
				r.server.with(func() {
					r.server.down = nginx.ErrNotRunning
					r.server.fail = func(string) error { return nginx.ErrNotRunning }
					test.change(r.server)
				})
				r.wait(time.Minute)
				assert.Equal(t, []string{"applied 1", "applied 2", "rollback 2", fmt.Sprint("drift ", test.now), fmt.Sprint("nginx_down ", test.now)}, r.events(), "once")
				assert.Equal(t, test.want+"; "+nginx.ErrNotRunning.Error(), r.c.History()[1].Reason)
				assert.Equal(t, test.now, r.server.current)
				assert.Equal(t, []byte("b"), r.server.files[test.now]["nginx.conf"])
				s := r.status()
				assert.Equal(t, Down, s.State)
				assert.Equal(t, test.now, s.Frozen.Generation)

				r.server.with(func() { r.server.down, r.server.fail, r.server.serving = nil, nil, test.now })
				r.wait(time.Minute)
				assert.Equal(t, Frozen, r.status().State)
				assert.Equal(t, fmt.Sprint("nginx_up ", test.now), r.events()[5])
			})
		})
	}
}

func TestDriftWhileFrozenMovesThePin(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.say("b")
		_, err := r.c.Rollback(r.Context(), 1)
		require.NoError(t, err)
		r.server.with(func() { r.server.files[1]["nginx.conf"] = []byte("edited") })
		r.wait(6 * time.Second)
		assert.Equal(t, Frozen, r.status().State)
		assert.Equal(t, 3, r.status().Frozen.Generation)
		assert.Equal(t, 3, r.server.serving)
	})
}

func TestDriftThatCantBeCorrectedIsRetriedWithPauses(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.say("b")
		r.wait(time.Minute)
		r.server.with(func() {
			r.server.serving = 1
			r.server.fail = func(string) error { return nginx.ErrDegraded }
		})
		r.wait(10 * time.Minute)
		assert.Less(t, len(r.server.activated), 20)
		assert.Greater(t, len(r.server.activated), 5)
		assert.Equal(t, []string{"applied 1", "applied 2", "drift 2"}, r.events())
		s := r.status()
		assert.Equal(t, Degraded, s.State)
		assert.Equal(t, "nginx serves generation 1 instead of 2: nginx served generation 1, want 2; correcting it failed: "+nginx.ErrDegraded.Error(), s.Summary)

		r.server.with(func() { r.server.fail = nil })
		r.wait(2 * time.Minute)
		assert.Equal(t, Serving, r.status().State)
	})
}

func TestTheEndWaitsForTheApplyInFlight(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server.takes = 5 * time.Second
		r.say("a")
		r.wait(time.Second)
		r.end()
		assert.Equal(t, 1, r.server.serving)
		assert.Equal(t, []string{"applied 1"}, r.events())
		_, err := r.c.Rollback(r.Context(), 1)
		assert.ErrorIs(t, err, errEnded)
		assert.ErrorIs(t, r.c.Resume(r.Context()), errEnded)
	})
}

func TestConsulAway(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.restart()
		r.source.tell(func(s *render.Status) {
			s.Consul = consul.Status{Since: time.Now(), LastError: "Consul at 127.0.0.1:8500 does not answer: connection refused"}
		})
		r.wait(startPatience)
		s := r.status()
		assert.Equal(t, Degraded, s.State)
		assert.Regexp(t, `^Consul at 127.0.0.1:8500 does not answer: connection refused \(since \S+\); nginx serves Consul's last answer, generation 1 of \S+$`, s.Summary)
		r.wait(5 * time.Minute)
		assert.Equal(t, 1, r.server.serving)
	})
}

// TestAPinThatCantBeRead checks that the served generation stays until the operator resumes:
// a file, even an unreadable one, means that a generation was pinned.
func TestAPinThatCantBeRead(t *testing.T) {
	for _, content := range []string{"", "{", "null", `{"generation": 0}`, `{"generation": 9223372036854775808}`} {
		bubble(t, func(r *rig) {
			r.say("a")
			r.wait(time.Minute)
			path := filepath.Join(r.dir, "frozen.json")
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			r.restart()
			r.say("b")
			r.wait(time.Minute)
			s := r.status()
			assert.Equal(t, Frozen, s.State)
			assert.Equal(t, 1, s.Frozen.Generation)
			assert.FileExists(t, path+".broken")
			require.NoError(t, r.c.Resume(r.Context()))
			r.wait(time.Minute)
			assert.Equal(t, 2, r.server.serving)
		})
	}
}
