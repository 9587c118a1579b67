package accesslog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
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
		"nginx counted more":     func(r *Reader, w worker) { r.losses.found(1, time.Now().UnixMilli()) },
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

// TestInFlightOfALossThatIsFoundLate has a loss that can't be of the last requests.
func TestInFlightOfALossThatIsFoundLate(t *testing.T) {
	dir := nginxtest.MemoryDir(t)
	r := inFlightReader(t, dir, nil)
	defer r.close()
	w := openWorker(t, dir, os.Getpid())
	longAgo(r)
	lost := time.Now().Add(-5 * time.Second)
	before, after := w.begin("web", lost.Add(-time.Second)), w.begin("web", lost.Add(time.Second))
	require.Equal(t, map[string]int64{"web": 2}, read(t, r))
	r.losses.found(1, lost.UnixMilli())
	require.Equal(t, map[string]int64{"web": 1}, read(t, r))
	w.end("web", before)
	require.Equal(t, map[string]int64{"web": 1}, read(t, r))
	w.end("web", after)
	require.Empty(t, read(t, r))
}

// TestInFlightOfALossBeforeAKill kills a reader that has saved a loss, and not done anything about it.
func TestInFlightOfALossBeforeAKill(t *testing.T) {
	for name, lose := range map[string]func(r *Reader, w worker){
		"a line is torn":     func(r *Reader, w worker) { w.write("4\tx") },
		"nginx counted more": func(r *Reader, w worker) { r.losses.found(1, time.Now().UnixMilli()) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := nginxtest.MemoryDir(t)
			opts := func(o *Options) {
				o.Requests = func(context.Context) (Requests, error) { return Requests{}, errors.New("nobody asks") }
			}
			r := inFlightReader(t, dir, opts)
			w := openWorker(t, dir, os.Getpid())
			longAgo(r)
			w.begin("web", time.Now().Add(-time.Minute))
			lose(r, w)
			_, err := r.batch(nobody)
			require.NoError(t, err)
			require.NoError(t, r.save())
			kill(r)
			r = inFlightReader(t, dir, opts)
			defer r.close()
			assert.Empty(t, read(t, r))
		})
	}
}

func TestInFlightOfWorkersThatAreGone(t *testing.T) {
	dir := nginxtest.MemoryDir(t)
	r := inFlightReader(t, dir, nil)
	defer r.close()
	process := exec.Command("sleep", "60")
	require.NoError(t, process.Start())
	gone, alive := openWorker(t, dir, process.Process.Pid), openWorker(t, dir, os.Getpid())
	longAgo(r)
	at := time.Now()
	started := gone.begin("web", at)
	gone.begin("web", at)
	gone.begin("shop", at)
	alive.begin("web", at)
	require.Equal(t, map[string]int64{"web": 3, "shop": 1}, read(t, r))
	require.NoError(t, process.Process.Kill())
	process.Wait()
	r.flying.looked = time.Time{}
	require.Equal(t, map[string]int64{"web": 1}, read(t, r))
	gone.end("web", started) // was not read before
	require.Equal(t, map[string]int64{"web": 1}, read(t, r))
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
