package nginx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Apply makes files the next generation and moves nginx to it: test and store,
// swap, reload, verify, and roll back if need be. It returns when nginx answers
// from the new generation, or when it is clear that it will not:
//
//   - ErrRejected, ErrStore: nothing was changed. The generation is the zero one.
//   - ErrRolledBack: nginx serves what it served before. The new generation stays
//     on disk for a look at it, until the next one that fails.
//   - ErrNotRunning: the new generation is current; nginx will start with it.
//   - ErrDegraded: nginx could not be brought to either.
//   - ctx.Err(), if ctx ended before the swap: nothing was changed. Once current
//     is swapped Apply finishes what it does, in at most twice Options.VerifyTimeout;
//     only waiting for an nginx that is not running ends with ctx.
//
// What files must contain is said at Test. Apply keeps no reference to files.
func (i *Instance) Apply(ctx context.Context, files map[string][]byte, note Note) (Generation, error) {
	if err := i.acquire(ctx); err != nil {
		return Generation{}, fmt.Errorf("apply a configuration: %w", err)
	}
	defer i.release()

	began := time.Now()
	g, err := i.add(ctx, files, note)
	if err != nil {
		return Generation{}, err
	}
	i.opts.Logger.Debug("generation tested and stored", "generation", g.Number, "took", time.Since(began))
	return i.moveTo(ctx, g)
}

// Activate moves nginx to a generation that is on disk, after testing it again:
// what it refers to, a certificate for example, may be gone. Errors are those of
// Apply, or fs.ErrNotExist when there is no such generation. Nothing is reloaded
// when the generation is current and nginx serves it already.
func (i *Instance) Activate(ctx context.Context, number int) (Generation, error) {
	if err := i.acquire(ctx); err != nil {
		return Generation{}, fmt.Errorf("activate generation %d: %w", number, err)
	}
	defer i.release()

	files, err := i.store.files(number)
	if err != nil {
		return Generation{}, err
	}
	g, err := i.store.read(number)
	if err != nil {
		return Generation{}, fmt.Errorf("generation %d: %w", number, err)
	}
	current, err := i.store.current()
	if err != nil {
		return Generation{}, err
	}
	if current == number && i.serves(ctx) == number {
		i.markServed(&g)
		return g, nil
	}
	if err := i.Test(ctx, files); err != nil {
		return Generation{}, fmt.Errorf("generation %d: %w", number, err)
	}
	return i.moveTo(ctx, g)
}

// add tests files and stores them as the next generation.
func (i *Instance) add(ctx context.Context, files map[string][]byte, note Note) (Generation, error) {
	if err := i.validate(files); err != nil {
		return Generation{}, fmt.Errorf("%w: %w", ErrRejected, err)
	}
	n, err := i.store.next()
	if err != nil {
		return Generation{}, fmt.Errorf("store a generation: %w: %w", ErrStore, err)
	}
	g := Generation{Number: n, Created: time.Now().Truncate(time.Millisecond), Note: note}

	// nginx thinks while the disk writes: both take about as long.
	var test, store error
	var both errgroup.Group
	both.Go(func() error {
		test = i.Test(ctx, files)
		return nil
	})
	both.Go(func() error {
		store = i.store.write(g, withFile(files, GenerationFile, i.generationConf(n, i.socketPath())))
		return nil
	})
	both.Wait()
	if store != nil {
		return Generation{}, fmt.Errorf("store generation %d: %w: %w", n, ErrStore, store)
	}
	if test != nil {
		return Generation{}, errors.Join(test, i.store.discard())
	}
	if err := i.store.publish(n); err != nil {
		return Generation{}, fmt.Errorf("store generation %d: %w: %w", n, ErrStore, err)
	}
	return g, nil
}

// moveTo makes nginx serve g, or goes back to what it served before.
func (i *Instance) moveTo(ctx context.Context, g Generation) (Generation, error) {
	before := i.fallback(ctx, g.Number)
	defer i.tidy()

	log := tailOf(i.logPath())
	if err := i.store.swap(g.Number); err != nil {
		// The rename may have happened, and only the wait for the disk failed.
		if n, _ := i.store.current(); n == g.Number && before != 0 {
			err = errors.Join(err, i.store.swap(before))
		}
		return Generation{}, fmt.Errorf("generation %d: %w: %w", g.Number, ErrStore, err)
	}
	failed := i.reload(ctx, g.Number, log)
	if failed == nil {
		i.markServed(&g)
		return g, nil
	}
	if !failed.running && (failed.reason == "" || before == 0) {
		return g, notRunning(g.Number, failed)
	}
	if before == 0 {
		return g, fmt.Errorf("generation %d: %w: %s; there is no generation to go back to", g.Number, ErrDegraded, failed)
	}

	log = tailOf(i.logPath())
	if err := i.store.swap(before); err != nil {
		return g, fmt.Errorf("generation %d: %w: %s; go back to %d: %w: %w", g.Number, ErrDegraded, failed, before, ErrStore, err)
	}
	// nginx has said that it stays with what it has, so there is nothing to reload.
	if failed.settled && i.serves(ctx) == before {
		return g, fmt.Errorf("generation %d: %w to %d: %s", g.Number, ErrRolledBack, before, failed)
	}
	if again := i.reload(ctx, before, log); again != nil {
		return g, fmt.Errorf("generation %d: %w: %s; generation %d: %s", g.Number, ErrDegraded, failed, before, again)
	}
	return g, fmt.Errorf("generation %d: %w to %d: %s", g.Number, ErrRolledBack, before, failed)
}

func notRunning(n int, failed *failure) error {
	if failed.reason != "" {
		return fmt.Errorf("generation %d is current, but %w: %s", n, ErrNotRunning, failed.reason)
	}
	return fmt.Errorf("generation %d is current, but %w: %s", n, ErrNotRunning, failed.what)
}

// fallback is the generation to go back to if nginx does not take n: the one it
// serves now, or when it answers nothing, the best bet. 0 when there is none.
func (i *Instance) fallback(ctx context.Context, n int) int {
	if serves := i.serves(ctx); serves != 0 && serves != n && i.store.complete(serves) {
		if g, err := i.store.read(serves); err == nil {
			i.markServed(&g) // a crash may have kept us from noticing
		}
		return serves
	}
	current, _ := i.store.current()
	generations, _ := i.store.list()
	best := 0
	for _, g := range generations { // the newest first
		if g.Number == n || !wasServed(g) {
			continue
		}
		if g.Number == current {
			return current
		}
		if best == 0 {
			best = g.Number
		}
	}
	if best == 0 && current != n {
		best = current
	}
	return best
}

func (i *Instance) markServed(g *Generation) {
	if wasServed(*g) {
		return
	}
	g.Served = time.Now().Truncate(time.Millisecond)
	if err := i.store.markServed(g.Number, g.Served); err != nil {
		i.opts.Logger.Warn("generation is served, but that could not be noted", "generation", g.Number, "error", err)
	}
}

// tidy does what may wait until nginx has moved, and may fail.
func (i *Instance) tidy() {
	current, err := i.store.current()
	if err == nil {
		err = i.store.prune(i.opts.Keep, current, i.serves(context.Background()))
	}
	if err != nil {
		i.opts.Logger.Warn("old generations could not be removed", "error", err)
	}
	if err := i.rotateLog(context.Background()); err != nil {
		i.opts.Logger.Warn("error log could not be rotated", "error", err)
	}
	i.removeOldTests()
}
