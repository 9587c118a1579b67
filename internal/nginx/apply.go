package nginx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Apply makes files the next generation and moves nginx to it: it tests and stores
// them, swaps the link, reloads nginx, verifies, and rolls back on failure. It returns
// when nginx serves the new generation, or when it is certain that it will not:
//
//   - ErrRejected, ErrStore: nothing was changed. The generation is the zero one.
//   - ErrRolledBack: nginx serves what it served before. The new generation stays
//     on disk for inspection, until the next one that fails.
//   - ErrNotRunning: the new generation is current; nginx will start with it.
//   - ErrDegraded: nginx serves neither the new generation nor the one before.
//   - ctx.Err(), if ctx ended before the swap: nothing was changed. After
//     the swap Apply finishes its work, in at most twice Options.VerifyTimeout; ctx
//     ends only the wait for an nginx that is not running.
//
// See Test for the required content of files. Apply keeps no reference to files.
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

// Activate moves nginx to a generation that is on disk, after testing it again,
// because a file that it refers to, such as a certificate, may be gone. The errors are
// those of Apply, or fs.ErrNotExist if there is no such generation. Activate does not
// reload if the generation is current and nginx serves it already.
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

	// Both take about the same time, so they run in parallel.
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

// moveTo makes nginx serve g, or goes back to the generation it served before.
func (i *Instance) moveTo(ctx context.Context, g Generation) (Generation, error) {
	before := i.fallback(ctx, g.Number)
	defer i.cleanUp()

	log := tailOf(i.logPath())
	if err := i.store.swap(g.Number); err != nil {
		// The rename may have succeeded, and only the sync after it failed.
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
	// nginx has logged that it keeps its configuration, so no reload is necessary.
	if failed.gaveUp && i.serves(ctx) == before {
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
	return fmt.Errorf("generation %d waits for nginx to start: %w: %s", n, ErrNotRunning, failed.symptom)
}

// fallback is the generation to go back to if nginx refuses n: the one it serves now.
// If nginx does not answer, it is the current one or else the newest one, of those
// that nginx has served. 0 means that there is none.
func (i *Instance) fallback(ctx context.Context, n int) int {
	if serves := i.serves(ctx); serves != 0 && serves != n && i.store.complete(serves) {
		if g, err := i.store.read(serves); err == nil {
			i.markServed(&g) // lbctl may have crashed before it marked it
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
		i.opts.Logger.Warn("nginx serves the generation, but lbctl could not record that", "generation", g.Number, "error", err)
	}
}

// cleanUp does the work that can wait until nginx has moved. Its errors are logged.
func (i *Instance) cleanUp() {
	current, err := i.store.current()
	if err == nil {
		err = i.store.prune(i.opts.Keep, current, i.serves(context.Background()))
	}
	if err != nil {
		i.opts.Logger.Warn("could not remove old generations", "error", err)
	}
	if err := i.rotateLog(context.Background()); err != nil {
		i.opts.Logger.Warn("could not rotate the error log", "error", err)
	}
	i.removeOldTests()
}
