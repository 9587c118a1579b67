package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"lbctl/internal/disk"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
)

// Pin is a pinned generation: nginx stays at the generation that an operator rolled back to,
// until resume.
type Pin struct {
	Generation int       `json:"generation"`
	Since      time.Time `json:"since,omitzero"` // zero: unknown, somebody else wrote the file
}

func (o Options) pinPath() string { return filepath.Join(o.StateDir, "frozen.json") }

// rollback pins a generation and moves nginx to it. It writes the pin first: after a
// crash in between, the next process completes the rollback.
func (l *loop) rollback(number int, reply func(nginx.Generation, error)) {
	pin := &Pin{Generation: number, Since: time.Now()}
	l.work(fmt.Sprintf("generation %d is being pinned", number), func(context.Context) func() {
		target, ok := findGeneration(l.server, number)
		if !ok {
			return func() {
				reply(nginx.Generation{}, fmt.Errorf("generation %d is not on disk, see 'lbctl history'", number))
			}
		}
		if err := l.storePin(pin); err != nil {
			return func() { reply(nginx.Generation{}, err) }
		}
		files := filesOf(l.server, number) // if they can't be read, Activate returns an error
		return func() { l.moveBack(pin, target, files, reply) }
	})
}

// moveBack moves nginx to a generation that is pinned on disk.
func (l *loop) moveBack(pin *Pin, target nginx.Generation, files map[string][]byte, reply func(nginx.Generation, error)) {
	number, began := pin.Generation, pin.Since
	before, from := l.pin, l.current.Number
	l.pin = pin
	event := history.Event{Kind: history.RolledBackByOperator, Generation: number, From: from, Reason: "an operator asked for it"}
	if number == from {
		l.record(event, began)
		reply(l.current, nil)
		return
	}
	l.governor.reload(time.Now())
	prepare := l.prepare(target, files)
	l.work(fmt.Sprintf("nginx is being moved to generation %d", number), func(ctx context.Context) func() {
		prepare()
		began := time.Now()
		g, err := l.server.Activate(ctx, number)
		l.countReload(ReloadRollback, began, err)
		if err == nil {
			return func() {
				l.become(g, files, nil)
				l.drifted, l.down = nil, nil
				l.counted.succeed(time.Now())
				l.record(event, began)
				reply(g, nil)
			}
		}
		stored := readCurrent(l.server)
		if errors.Is(err, nginx.ErrNotRunning) && stored.generation.Number == number {
			return func() {
				l.delivery.coming = asked{}
				l.adopt(stored)
				event.Reason += "; " + err.Error()
				l.record(event, began)
				reply(target, fmt.Errorf("generation %d is pinned, and nginx serves it as soon as it runs: %w", number, err))
			}
		}
		pinErr := l.storePin(before)
		return func() {
			if pinErr == nil {
				l.pin = before
			}
			l.delivery.coming = asked{}
			l.adopt(stored)
			err := errors.Join(err, pinErr)
			if !l.canceled(err) {
				l.record(history.Event{Kind: kindOf(err), Generation: l.current.Number, From: from, Reason: "an operator's rollback: " + err.Error()}, began)
			}
			reply(nginx.Generation{}, err)
		}
	})
}

// resume removes the pin, so that nginx follows Consul again.
func (l *loop) resume(reply func(error)) {
	if l.pin == nil {
		reply(nil)
		return
	}
	pinned, began := l.pin.Generation, time.Now()
	l.work(fmt.Sprintf("the pin of generation %d is being removed", pinned), func(context.Context) func() {
		err := l.storePin(nil)
		return func() {
			if err == nil {
				l.pin = nil
				l.awaiting.take() // the operator had it wait
				l.settle.hurry()
				l.record(history.Event{Kind: history.Resumed, Generation: l.current.Number, Reason: fmt.Sprintf("generation %d is no longer pinned", pinned)}, began)
			}
			reply(err)
		}
	})
}

// loadPin reads the pin. If the file is there, an operator pinned a generation. If it
// is not valid, loadPin renames it and pins the current generation instead, until the
// operator resumes.
func (o Options) loadPin(current int) (*Pin, error) {
	f, err := readPin(o.pinPath())
	if !errors.Is(err, errBadPin) && !errors.Is(err, disk.ErrUnfit) {
		return f, err
	}
	aside, asideErr := disk.MoveAside(o.pinPath())
	if asideErr != nil {
		return nil, fmt.Errorf("%w; %w; remove it to follow Consul again", err, asideErr)
	}
	if current == 0 {
		o.Logger.Warn("the pin can't be read, and no generation is on disk: following Consul", "reason", err, "now", aside)
		return nil, nil
	}
	o.Logger.Warn("the pin can't be read: the current generation is pinned instead; 'lbctl resume' follows Consul again",
		"generation", current, "reason", err, "now", aside)
	f = &Pin{Generation: current, Since: time.Now()}
	if err := writePin(o.pinPath(), f); err != nil {
		return nil, err
	}
	return f, nil
}

// errBadPin is the error for a file that does not contain a pin.
var errBadPin = errors.New("not a pin")

const maxPin = 4096 // maximum size of the file, in bytes

func readPin(path string) (*Pin, error) {
	b, err := disk.ReadFile(path, maxPin)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the pin: %w", err)
	}
	var f Pin
	if err := json.Unmarshal(b, &f); err != nil || f.Generation < 1 {
		return nil, fmt.Errorf("%s: %w: want {\"generation\": N, \"since\": TIME}, found %.80q", path, errBadPin, b)
	}
	return &f, nil
}

// writePin writes the pin to disk; nil removes it.
func writePin(path string, f *Pin) error {
	if f == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unpin generation: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(f)
	if err == nil {
		err = disk.Replace(path, b, []byte("\n"))
	}
	if err != nil {
		return fmt.Errorf("pin generation: %w", err)
	}
	return nil
}
