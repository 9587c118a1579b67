package accesslog

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// worker writes lines as a worker of nginx does.
type worker struct {
	t   *testing.T
	log *os.File
	pid int
}

func openWorker(t *testing.T, dir string, pid int) worker {
	t.Helper()
	log, err := os.OpenFile(Path(dir), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	t.Cleanup(func() { log.Close() })
	return worker{t, log, pid}
}

func (w worker) write(line string) {
	w.t.Helper()
	_, err := w.log.WriteString(line + "\n")
	require.NoError(w.t, err)
}

// begin writes that a request begins, and returns what its end must say.
func (w worker) begin(service string, at time.Time) (started string) {
	w.t.Helper()
	started = fmt.Sprintf("%d-%d.%03d", w.pid, at.Unix(), at.UnixMilli()%1000)
	w.write(startPrefix + started + "\t" + service)
	return started
}

func (w worker) end(service, started string) {
	w.t.Helper()
	w.write(string(line(tries(service, "10.0.0.1:80", "200", "0.001").with(values{"$lb_started": started}))))
}

func inFlightReader(t *testing.T, dir string, change func(*Options)) *Reader {
	t.Helper()
	opts := Options{Dir: dir, Size: 8 << 20, Reopen: func() error { return nil }, InFlight: true}
	if change != nil {
		change(&opts)
	}
	r, err := New(opts)
	require.NoError(t, err)
	return r
}

// longAgo lets requests count that begin in the last hour, as if the reader had been there.
func longAgo(r *Reader) { r.flying.since = time.Now().Add(-time.Hour).UnixMilli() / startStep }

func read(t *testing.T, r *Reader) map[string]int64 {
	t.Helper()
	require.NoError(t, r.poll(t.Context(), func(*Record) {}))
	return r.InFlight()
}

func nobody(*Record) {}

// TestInFlightOverKills kills readers at all moments.
func TestInFlightOverKills(t *testing.T) {
	dir := nginxtest.MemoryDir(t)
	r := inFlightReader(t, dir, nil)
	w := openWorker(t, dir, os.Getpid())
	type request struct{ service, started string }
	var all []request
	want := map[string]int64{}
	for round := range 300 {
		for range rand.IntN(100) {
			if n := len(all); n > 0 && rand.IntN(2) == 0 {
				at := rand.IntN(n)
				of := all[at]
				all[at] = all[n-1]
				all = all[:n-1]
				w.end(of.service, of.started)
				if want[of.service]--; want[of.service] == 0 {
					delete(want, of.service)
				}
				continue
			}
			of := []string{"web", "shop", "cart"}[rand.IntN(3)]
			all = append(all, request{of, w.begin(of, time.Now().Add(time.Minute))})
			want[of]++
		}
		switch rand.IntN(4) {
		case 0:
			require.Equal(t, want, read(t, r), "round %d", round)
			continue
		case 1: // before the snapshot
			_, err := r.batch(nobody)
			require.NoError(t, err)
		case 2: // before the memory is free
			_, err := r.batch(nobody)
			require.NoError(t, err)
			require.NoError(t, r.save())
		}
		kill(r)
		r = inFlightReader(t, dir, nil)
	}
	defer r.close()
	assert.Equal(t, want, read(t, r))
	assert.Equal(t, int64(0), r.Stats().Malformed)
	for _, of := range all {
		w.end(of.service, of.started)
	}
	assert.Empty(t, read(t, r))
}

// TestInFlightWithoutSomeLines has requests that lack one of their lines.
func TestInFlightWithoutSomeLines(t *testing.T) {
	later := time.Now().Add(time.Second)
	for name, lose := range map[string]func(r *Reader, w worker){
		"a line is torn":         func(r *Reader, w worker) { w.write("4\tx") },
		"a beginning is torn":    func(r *Reader, w worker) { w.write("4s\t1-") },
		"nginx had no room":      func(r *Reader, w worker) { r.full.Add(1) },
		"the clock was set back": func(r *Reader, w worker) { r.flying.since = later.Add(time.Hour).UnixMilli() / startStep },
	} {
		t.Run(name, func(t *testing.T) {
			dir := nginxtest.MemoryDir(t)
			r := inFlightReader(t, dir, nil)
			defer func() { r.close() }()
			w := openWorker(t, dir, os.Getpid())
			longAgo(r)
			before := w.begin("web", time.Now().Add(-time.Minute))
			require.Equal(t, map[string]int64{"web": 1}, read(t, r))
			lose(r, w)
			require.Empty(t, read(t, r), "it may have ended")
			after := w.begin("web", later)
			require.Equal(t, map[string]int64{"web": 1}, read(t, r))
			w.end("web", before)
			require.Equal(t, map[string]int64{"web": 1}, read(t, r), "it does not count")
			w.end("web", fmt.Sprintf("%d-1.000", os.Getpid())) // its beginning is what was lost
			require.Equal(t, map[string]int64{"web": 1}, read(t, r))
			kill(r)
			r = inFlightReader(t, dir, nil) // knows of the loss
			require.Equal(t, map[string]int64{"web": 1}, read(t, r))
			w.end("web", after)
			require.Empty(t, read(t, r))
		})
	}
}

// TestInFlightOfALossBeforeAKill kills a reader that has saved a loss, and not done anything about it.
func TestInFlightOfALossBeforeAKill(t *testing.T) {
	dir := nginxtest.MemoryDir(t)
	r := inFlightReader(t, dir, nil)
	w := openWorker(t, dir, os.Getpid())
	longAgo(r)
	w.begin("web", time.Now().Add(-time.Minute))
	w.write("4\tx")
	_, err := r.batch(nobody)
	require.NoError(t, err)
	require.NoError(t, r.save())
	kill(r)
	r = inFlightReader(t, dir, nil)
	defer r.close()
	assert.Empty(t, read(t, r))
}

// TestInFlightWithoutRoom fills the tmpfs: nginx can't write all lines then.
func TestInFlightWithoutRoom(t *testing.T) {
	dir := nginxtest.Dir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("can't mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	r := inFlightReader(t, dir, func(o *Options) { o.Size = 4 << 20 })
	defer r.close()
	w := openWorker(t, dir, os.Getpid())
	longAgo(r)
	before := w.begin("web", time.Now().Add(-time.Minute))
	require.Equal(t, map[string]int64{"web": 1}, read(t, r))
	other := filepath.Join(dir, "other")
	require.NoError(t, os.WriteFile(other, make([]byte, 7<<20+900_000), 0o600))
	require.Empty(t, read(t, r), "its end may not have found room")
	require.NoError(t, os.Remove(other))
	w.end("web", before)
	require.Empty(t, read(t, r))
	w.begin("web", time.Now().Add(time.Second))
	require.Equal(t, map[string]int64{"web": 1}, read(t, r))
}

// TestInFlightOverManyFiles has more lines than one batch in each file, when the reader begins: the
// beginnings in one, the ends in the next.
func TestInFlightOverManyFiles(t *testing.T) {
	dir := nginxtest.MemoryDir(t)
	r := inFlightReader(t, dir, func(o *Options) { o.Size = 64 << 20 })
	begun := map[string]int{}
	for round := range 3 {
		w := openWorker(t, dir, os.Getpid())
		lines := ""
		for started, n := range begun {
			lines += strings.Repeat(string(line(tries("web", "10.0.0.1:80", "200", "0.001").with(values{"$lb_started": started})))+"\n", n)
			delete(begun, started)
		}
		if round < 2 {
			at := time.Now().Add(time.Second)
			started := fmt.Sprintf("%d-%d.%03d", w.pid, at.Unix(), at.UnixMilli()%1000)
			begun[started] = 2 * batchSize / len(startPrefix+started+"\tweb\n")
			lines += strings.Repeat(startPrefix+started+"\tweb\n", begun[started])
		}
		_, err := w.log.WriteString(lines)
		require.NoError(t, err)
		if round == 2 {
			break
		}
		r.renewed = time.Time{}
		renewed, err := r.renew()
		require.NoError(t, err)
		require.True(t, renewed)
	}
	for len(r.files) > 0 { // each batch of its own, as if nginx had written meanwhile
		more, err := r.batch(nobody)
		require.NoError(t, err)
		if !more {
			break
		}
	}
	assert.Empty(t, r.InFlight())
	assert.Zero(t, r.Stats().Malformed)
	r.close()
}

// TestInFlightOfLongRequests has requests that go on for so long that their times become coarse.
func TestInFlightOfLongRequests(t *testing.T) {
	f := &inFlight{}
	now := time.Now()
	f.reset(now.Add(-2 * time.Hour))
	alive := func(int) (time.Time, error) { return now.Add(-24 * time.Hour), nil }
	var all []started
	for n := range 3600 {
		s := started{7, now.Add(-time.Hour + time.Duration(n)*time.Second).UnixMilli()}
		all = append(all, s)
		f.add(s, []byte("web"), 1)
	}
	f.look(now, alive)
	require.Equal(t, map[string]int64{"web": 3600}, f.totals())
	assert.Less(t, len(f.workers[7]["web"]), 130, "59 minutes, and each second of the last one")
	f.look(now.Add(30*time.Second), alive)
	for n, s := range all {
		f.add(s, []byte("web"), -1)
		if n == 1799 {
			require.Equal(t, map[string]int64{"web": 1800}, f.totals())
			f.look(now.Add(time.Minute), alive)
		}
	}
	assert.Empty(t, f.totals())

	for _, s := range all {
		f.add(s, []byte("web"), 1)
	}
	f.look(now.Add(time.Minute), alive)
	f.forget(now.Add(-30 * time.Minute))
	assert.InDelta(t, 1800, f.totals()["web"], 60, "a coarse step goes as a whole")
}

func TestInFlightOfWorkersThatAreGone(t *testing.T) {
	for name, after := range map[string]func(int) (time.Time, error){
		"the worker is gone":       func(int) (time.Time, error) { return time.Time{}, fs.ErrNotExist },
		"another one has its id":   func(int) (time.Time, error) { return time.Now(), nil },
		"another one, long before": func(int) (time.Time, error) { return time.Now().Add(-50 * time.Second), nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := nginxtest.MemoryDir(t)
			dead := false
			r := inFlightReader(t, dir, func(o *Options) {
				o.Started = func(pid int) (time.Time, error) {
					if dead && pid == 17 {
						return after(pid)
					}
					return time.Now().Add(-time.Hour), nil
				}
			})
			defer r.close()
			gone, alive := openWorker(t, dir, 17), openWorker(t, dir, 18)
			longAgo(r)
			at := time.Now().Add(-time.Minute)
			started := gone.begin("web", at)
			gone.begin("web", at)
			gone.begin("shop", at)
			alive.begin("web", at)
			require.Equal(t, map[string]int64{"web": 3, "shop": 1}, read(t, r))
			dead = true
			r.flying.looked = time.Time{}
			require.Equal(t, map[string]int64{"web": 1}, read(t, r))
			gone.end("web", started) // was not read before
			require.Equal(t, map[string]int64{"web": 1}, read(t, r))
		})
	}
}

// TestInFlightWithoutALogOfTheirBeginning has requests whose beginning an lbctl with other settings
// did not have logged, or not here.
func TestInFlightWithoutALogOfTheirBeginning(t *testing.T) {
	dir := nginxtest.MemoryDir(t)
	r := inFlightReader(t, dir, func(o *Options) { o.InFlight = false })
	w := openWorker(t, dir, os.Getpid())
	longAgo(r)
	started := w.begin("web", time.Now())
	require.NoError(t, r.poll(t.Context(), nobody))
	assert.Nil(t, r.InFlight(), "they are not counted")
	assert.Zero(t, r.Stats().Malformed)
	kill(r)

	r = inFlightReader(t, dir, nil)
	w.end("web", started)
	w.end("web", "")
	require.Empty(t, read(t, r))
	w.begin("web", time.Now().Add(time.Second))
	w.begin("web", time.Now().Add(time.Second))
	require.Equal(t, map[string]int64{"web": 2}, read(t, r))
	kill(r)

	r = inFlightReader(t, dir, func(o *Options) { o.Elsewhere = true })
	defer r.close()
	require.Empty(t, read(t, r), "they may have ended elsewhere")
}

func TestLinesOfBeginningsThatAreNone(t *testing.T) {
	f := &inFlight{workers: map[int]services{}}
	good := startPrefix + "7-1700000000.123\tweb"
	require.True(t, f.begin([]byte(good)))
	for cut := len(startPrefix); cut < len(good)-len("web"); cut++ {
		assert.False(t, f.begin([]byte(good[:cut]+good)), good[:cut])
	}
	for _, bad := range []string{"", "7", "7-1700000000.123", "-1700000000.123\tweb", "7-1700000000\tweb", "7-1700000000.123\tweb\t"} {
		assert.False(t, f.begin([]byte(startPrefix+bad)), bad)
	}
	assert.Equal(t, map[string]int64{"web": 1}, f.totals())
	assert.Equal(t, map[int]services{7: {"web": {17000000001: 1}}}, f.snapshot().Workers)
}
