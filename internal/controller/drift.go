package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"lbctl/internal/history"
	"lbctl/internal/nginx"
)

// check starts to check whether nginx serves the current generation from unchanged files.
// It also rotates nginx's error log, and records whether Consul is away.
func (l *loop) check(now time.Time) {
	l.checks.next = now.Add(l.opts.CheckEvery)
	l.recordConsul(now, l.source.Status().Consul)
	if l.current.Number == 0 {
		return
	}
	if b := &l.delivery.bootstrap; b.failed != nil || len(b.left) > 0 {
		l.writeBootstrapLater() // try again: the disk may have space now
	}
	l.checks.running = true
	epoch, want := l.checks.epoch, l.current.Number
	go func() {
		s := l.inspect(want)
		l.checks.results <- func() {
			if epoch == l.checks.epoch && l.ctx.Err() == nil {
				l.handleCheck(s)
			}
		}
	}()
}

// checkResult is what a check found.
type checkResult struct {
	began      time.Time
	serving    int
	servingErr error
	current    int
	files      map[string][]byte
	filesErr   error
	unmarked   bool              // generation.conf is not as lbctl wrote it; checked while nginx doesn't answer
	bootstrap  map[string]string // the bootstrap servers that nginx has read
	asked      bool              // nginx has answered with bootstrap
	master     nginx.Process
	masterGone bool
}

func (l *loop) inspect(want int) (s checkResult) {
	s.began = time.Now()
	for range 3 {
		asking, cancel := context.WithTimeout(l.ctx, askTimeout)
		s.serving, s.servingErr = l.server.Serving(asking)
		cancel()
		if s.servingErr != nil || s.serving == want {
			break
		}
		select { // an old worker may have answered
		case <-l.ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	s.current = want
	if current, err := l.server.Current(); err == nil {
		s.current = current.Number
	}
	s.files, s.filesErr = l.server.Files(want)
	if s.servingErr != nil {
		s.unmarked = !l.server.Marked(want)
	}
	if l.opts.Endpoints != nil && s.servingErr == nil {
		asking, cancel := context.WithTimeout(l.ctx, askTimeout)
		bootstrap, err := l.server.BootstrapServers(asking)
		s.bootstrap, s.asked = bootstrap, err == nil // after an error the next check asks again
		cancel()
	}
	processes, err := l.server.Processes()
	if l.opts.Endpoints != nil && s.servingErr == nil {
		s.master = processes.Master
	}
	if s.masterGone = errors.Is(err, nginx.ErrNotRunning); s.masterGone {
		l.endLeftovers()
	}
	if err := l.server.RotateLog(l.ctx); err != nil && l.ctx.Err() == nil {
		l.opts.Logger.Warn("nginx's error log can't be rotated, so it keeps growing", "error", err)
	}
	return s
}

// endLeftovers makes room for an nginx that a supervisor starts after the one before was killed.
func (l *loop) endLeftovers() {
	ended, err := l.server.EndLeftovers()
	if err != nil {
		l.opts.Logger.Warn("nginx can't start: what a killed one has left can't be removed", "error", err)
	} else if len(ended) > 0 {
		l.opts.Logger.Warn("ended the workers of a killed nginx: another one starts, and needs their ports", "processes", ended)
	}
}

// handleCheck handles the result of a check, and corrects drift.
func (l *loop) handleCheck(s checkResult) {
	now, before := time.Now(), l.checks.began
	l.checks.began = s.began
	if s.servingErr != nil || s.masterGone { // one that starts tries for 2.5 s to bind its ports
		l.checks.next = now.Add(min(time.Second, l.opts.CheckEvery))
	}
	l.recordMaster(s, now)
	if s.servingErr != nil {
		if l.down == nil {
			l.down = &failure{err: s.servingErr, since: now}
		}
		if l.down.attempts++; l.down.attempts == 2 { // a restart takes less than two checks
			l.record(history.Event{Kind: history.NginxDown, Generation: l.current.Number, Reason: s.servingErr.Error()}, l.down.since)
		}
		if drift := l.drift(s); drift != "" { // drift may keep nginx from starting
			l.repair(drift, s, now)
		}
		return
	}
	if l.down != nil {
		if l.down.attempts >= 2 {
			l.record(history.Event{Kind: history.NginxUp, Generation: s.serving, Reason: "nginx answers again"}, l.down.since)
			l.since = now
		}
		l.noteStart(s)
		l.down = nil
	}
	l.delivery.restarted(s.master, before)
	if s.asked {
		l.delivery.bootstrap.noteRead(s.bootstrap, l.delivery.asked.upstreams, now)
		l.checkFetched(now)
	}
	if l.job.what != "" {
		return
	}
	drift := l.drift(s)
	if drift == "" {
		l.drifted = nil
		return
	}
	l.repair(drift, s, now)
}

// recordMaster adds an event if nginx's master process has gone while the workers serve, or is back.
func (l *loop) recordMaster(s checkResult, now time.Time) {
	switch {
	case !s.masterGone:
		if l.masterGone != nil && l.masterGone.attempts >= 2 {
			l.record(history.Event{Kind: history.MasterBack, Generation: l.current.Number, Reason: "nginx has a master process again"}, l.masterGone.since)
			l.since = now
			l.noteStart(s)
		}
		l.masterGone = nil
	case s.servingErr == nil:
		if l.masterGone == nil {
			l.masterGone = &failure{since: now}
		}
		if l.masterGone.attempts++; l.masterGone.attempts == 2 { // nginx may have ended during one check
			l.record(history.Event{Kind: history.MasterGone, Generation: l.current.Number, Reason: masterGone}, l.masterGone.since)
		}
	}
}

// noteStart tells the source if an nginx that has started again serves what it had not got before.
func (l *loop) noteStart(s checkResult) {
	if s.servingErr == nil && s.serving == l.current.Number && l.entries != nil {
		l.source.NginxAccepted(l.entries)
	}
}

// orphansServe reports whether nginx's workers serve without their master process.
func (l *loop) orphansServe() bool {
	asking, cancel := context.WithTimeout(l.ctx, askTimeout)
	defer cancel()
	if _, err := l.server.Serving(asking); err != nil {
		return false
	}
	_, err := l.server.Processes()
	return errors.Is(err, nginx.ErrNotRunning)
}

// drift describes how nginx or its files differ from the current generation, "" if they
// don't.
func (l *loop) drift(s checkResult) string {
	want := l.current.Number
	if s.servingErr == nil && s.serving != want && !s.masterGone { // else nginx takes it when it starts
		return fmt.Sprintf("nginx served generation %d, want %d", s.serving, want)
	}
	if s.current != want {
		return fmt.Sprintf("current pointed to generation %d, want %d", s.current, want)
	}
	if changed := changedFiles(l.files, s); len(changed) > 0 {
		return fmt.Sprintf("files of generation %d were changed on disk: %s", want, strings.Join(changed, ", "))
	}
	return ""
}

// changedFiles lists the files of the current generation that differ from want.
func changedFiles(want map[string][]byte, s checkResult) []string {
	if want == nil {
		return nil
	}
	if s.filesErr != nil {
		return []string{s.filesErr.Error()}
	}
	var changed []string
	for name, content := range want {
		if found, ok := s.files[name]; !ok || !bytes.Equal(found, content) {
			changed = append(changed, name)
		}
	}
	for name := range maps.Keys(s.files) {
		if _, ok := want[name]; !ok {
			changed = append(changed, name)
		}
	}
	if s.unmarked {
		changed = append(changed, nginx.GenerationFile)
	}
	slices.Sort(changed)
	return changed
}

// repair brings nginx back to the current generation. If files of it have changed, it
// makes a new generation with the original content. It does nothing while the loop is
// busy, or before a failed attempt is to be repeated.
func (l *loop) repair(drift string, s checkResult, now time.Time) {
	if l.job.what != "" || l.drifted != nil && now.Before(l.drifted.next) {
		return
	}
	rewrite := len(changedFiles(l.files, s)) > 0
	want, note, files := l.current.Number, l.current.Note, l.files
	note.Reason, note.Change = drift, ""
	pin := l.pin
	l.governor.reload(now)
	l.work("drift is being corrected", func(ctx context.Context) func() {
		var g nginx.Generation
		var err error
		if rewrite {
			g, err = l.server.Apply(ctx, files, note)
		} else {
			g, err = l.server.Activate(ctx, want)
		}
		l.countReload(ReloadDrift, now, err)
		var waits error // nginx is not running; it reads the corrected files when it starts
		if errors.Is(err, nginx.ErrNotRunning) && readCurrent(l.server).generation.Number == g.Number {
			waits, err = err, nil
		}
		if err == nil && files == nil {
			files = filesOf(l.server, g.Number)
		}
		var pinErr error
		if err == nil && pin != nil && g.Number != pin.Generation {
			pin = &Pin{Generation: g.Number, Since: pin.Since}
			pinErr = l.storePin(pin)
		}
		return func() {
			if pinErr != nil {
				l.opts.Logger.Warn("the pin could not be moved to the new generation with the pinned content", "generation", g.Number, "error", pinErr)
			} else if err == nil {
				l.pin = pin
			}
			if waits != nil {
				drift += "; " + waits.Error()
			}
			l.repaired(drift, now, g, files, err)
		}
	})
}

func (l *loop) repaired(drift string, began time.Time, g nginx.Generation, files map[string][]byte, err error) {
	now := time.Now()
	if err == nil {
		before := l.current.Number
		if l.files != nil { // update may have set them meanwhile
			files = l.files
		}
		networks, listeners := l.networks, l.listeners
		l.become(g, files, l.entries)
		l.networks, l.listeners = networks, listeners
		l.drifted = nil
		l.counted.succeed(now)
		l.record(history.Event{Kind: history.Drift, Generation: g.Number, From: before, Reason: drift}, began)
		return
	}
	if l.canceled(err) {
		return
	}
	again := l.drifted
	if again == nil {
		again = &failure{since: now}
		l.record(history.Event{Kind: history.Drift, Generation: l.current.Number, Reason: fmt.Sprintf("%s; correcting it failed: %v", drift, err)}, began)
	}
	again.err = fmt.Errorf("%s; correcting it failed: %w", drift, err)
	again.delay(now, l.opts)
	l.drifted = again
}
