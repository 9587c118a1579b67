package accesslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// testSettle is how long lines may come late in tests.
const testSettle = 2 * time.Second

// balancer is an nginx that logs each request, and a reader of the log.
type balancer struct {
	t      *testing.T
	binary nginxtest.Binary
	dir    string // of the log
	size   int64
	run    string
	conf   string
	port   int
	nginx  *nginxtest.Process
	asks   bool      // the reader asks nginx for its requests
	began  time.Time // when nginx was started
	asked  []time.Time
	// When the last question was asked that nginx has answered, and when the answer was there.
	told, heard time.Time

	reader *Reader
	cancel context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex
	taken map[string]int // records by String
	lines int
	lost  Stats // of the readers that have ended
}

func start(t *testing.T, binary nginxtest.Binary, size int64, workers int) *balancer {
	t.Helper()
	b := prepare(t, binary, size, workers)
	b.startReader()
	t.Cleanup(func() { b.stopReader() })
	b.startNginx()
	return b
}

// startAsking starts a balancer whose reader asks nginx for its requests.
func startAsking(t *testing.T, binary nginxtest.Binary, size int64) *balancer {
	t.Helper()
	b := prepare(t, binary, size, 2)
	b.asks = true
	b.startReader()
	t.Cleanup(func() { b.stopReader() })
	b.startNginx()
	return b
}

func prepare(t *testing.T, binary nginxtest.Binary, size int64, workers int) *balancer {
	t.Helper()
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/fail") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(instance.Close)
	b := &balancer{t: t, binary: binary, dir: nginxtest.MemoryDir(t), size: size, run: nginxtest.Dir(t), port: nginxtest.FreePort(t), taken: map[string]int{}}
	b.conf = filepath.Join(b.run, "nginx.conf")
	user := ""
	if os.Geteuid() == 0 {
		user = "user nobody nogroup;\n" // the workers must be able to open the log
	}
	conf := fmt.Sprintf(`%sworker_processes %d;
pid %s/nginx.pid;
error_log %[3]s/error.log warn;
events { worker_connections 256; }
http {
    client_body_temp_path %[3]s/1; proxy_temp_path %[3]s/2; fastcgi_temp_path %[3]s/3; uwsgi_temp_path %[3]s/4; scgi_temp_path %[3]s/5;
    log_format %[4]s %[5]s;
    access_log %[6]s %[4]s %[7]s;
    map $host $lb_service { default "web"; }
    map $host $lb_route { default "*/"; }
    map $host $lb_log_host { default $host; }
    map $host $lb_log_path { default $uri; }
    map $host $lb_own_error { default ""; }
    map $host $lb_log_method { default $request_method; }
    map $host $lb_scheme { default $scheme; }
    map $host $lb_request_id { default $request_id; }
    map $host $lb_trace { default ""; }
    map $host $lb_started { default ""; }
    upstream web { server %[8]s; keepalive 8; }
    proxy_http_version 1.1; proxy_set_header Connection "";
    keepalive_requests 1000000;
    server { listen 127.0.0.1:%[9]d; location / { proxy_pass http://web; } location /own { return 204; } }
    server { listen unix:%[3]s/stats.sock; location / { stub_status; } }
}
`, user, workers, b.run, FormatName, Format(), Path(b.dir), Buffering, instance.Listener.Addr(), b.port)
	require.NoError(t, os.WriteFile(b.conf, []byte(conf), 0o644))
	return b
}

// requests asks nginx for its requests.
func (b *balancer) requests(ctx context.Context) (Requests, error) {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", b.run+"/stats.sock")
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nginx/", nil)
	if err != nil {
		return Requests{}, err
	}
	b.mu.Lock()
	nginx, began := b.nginx, b.began
	at := time.Now()
	b.asked = append(b.asked, at)
	b.mu.Unlock()
	answer, err := client.Do(request)
	if err != nil {
		return Requests{}, err
	}
	defer answer.Body.Close()
	var active, accepted, handled, requests, reading, writing, waiting int64
	_, err = fmt.Fscanf(answer.Body, "Active connections: %d \nserver accepts handled requests\n %d %d %d \nReading: %d Writing: %d Waiting: %d",
		&active, &accepted, &handled, &requests, &reading, &writing, &waiting)
	if nginx == nil {
		return Requests{}, errors.New("nginx is starting")
	}
	if err == nil {
		b.mu.Lock()
		b.told, b.heard = at, time.Now()
		b.mu.Unlock()
	}
	return Requests{Run: fmt.Sprint(nginx.PID()), Started: began, Ended: requests - reading - writing + 1}, err
}

func (b *balancer) startNginx() {
	b.t.Helper()
	os.Remove(b.run + "/stats.sock") // of one that was killed
	began := time.Now()
	b.mu.Lock()
	b.nginx = nil
	b.mu.Unlock()
	process := nginxtest.Start(b.t, b.binary, b.conf, b.run)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nginx, b.began = process, began
}

// startReader starts a reader, as a start of lbctl does.
func (b *balancer) startReader() {
	b.t.Helper()
	var err error
	opts := Options{Dir: b.dir, Size: b.size, Reopen: func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.nginx != nil {
			syscall.Kill(b.nginx.PID(), syscall.SIGUSR1)
		}
		return nil
	}}
	if b.asks {
		opts.Requests = b.requests
	}
	b.reader, err = New(opts)
	require.NoError(b.t, err)
	b.reader.losses.idle, b.reader.losses.settle = testSettle/8, testSettle
	ctx, cancel := context.WithCancel(b.t.Context())
	b.cancel, b.ended = cancel, make(chan struct{})
	go func() {
		defer close(b.ended)
		b.reader.Run(ctx, func(r *Record) {
			if r.Internal() {
				return
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.lines++
			for n := range r.Tries { // the port is another one each time
				r.Tries[n].Address = []byte("instance")
			}
			b.taken[r.String()]++
		})
	}()
}

func (b *balancer) stopReader() {
	b.cancel()
	<-b.ended
	s := b.reader.Stats()
	b.lost = Stats{Malformed: s.Malformed, Full: s.Full}
}

// call makes n requests over some connections, and fails the test if one gets no answer.
func (b *balancer) call(path string, n int) {
	b.t.Helper()
	assert.NoError(b.t, b.tryCall(path, n))
}

func (b *balancer) tryCall(path string, n int) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	failed := make(chan error, 4)
	for range 4 {
		all.Go(func() {
			for range n / 4 {
				answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", b.port, path))
				if err != nil {
					failed <- err
					return
				}
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
			}
		})
	}
	all.Wait()
	close(failed)
	return <-failed
}

// waitLines waits until n lines have been taken, and checks that no more come.
func (b *balancer) waitLines(n int) {
	b.t.Helper()
	eventually(b.t, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.lines < n {
			return fmt.Errorf("%d lines taken, want %d", b.lines, n)
		}
		return nil
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	assert.Equal(b.t, n, b.lines)
}

// totals returns the statistics without those of the moment.
func totals(r *Reader) Stats {
	s := r.Stats()
	s.Lag, s.Unread, s.Size = 0, 0, 0
	return s
}

func eventually(t testing.TB, condition func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// inMemory returns the memory of the file at the path, in bytes.
func (b *balancer) inMemory() int64 {
	b.t.Helper()
	var info syscall.Stat_t
	require.NoError(b.t, syscall.Stat(Path(b.dir), &info))
	return info.Blocks * 512
}

func TestEachRequestIsTakenOnce(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := start(t, binary, 0, 2)
		b.call("/", 400)
		b.call("/fail", 40)
		b.call("/own", 20)
		b.waitLines(460)
		b.mu.Lock()
		assert.Equal(t, map[string]int{
			"web 200 grpc -1 instance=200": 400,
			"web 503 grpc -1 instance=503": 40,
			"web 204 grpc -1":              20,
		}, b.taken)
		b.mu.Unlock()
		assert.Equal(t, Stats{Lines: 460}, totals(b.reader))
		eventually(t, func() error {
			if n := b.inMemory(); n > int64(os.Getpagesize()) {
				return fmt.Errorf("%d bytes in memory, want none of the lines that were read", n)
			}
			return nil
		})
	})
}

func TestRestartsOfBothSidesLoseNothing(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := start(t, binary, 0, 2)
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.call("/", 4000)
		}()
		for n := 1; n <= 5; n++ { // the reader
			b.reached(n * 200)
			b.stopReader()
			b.startReader()
		}
		for n := 1; n <= 3; n++ { // nginx's workers
			b.reached(1000 + n*300)
			b.nginx.Reload()
		}
		<-done
		b.waitLines(4000)
		b.nginx.Stop() // at its end each worker writes what it has
		b.startNginx()
		b.call("/", 400)
		b.nginx.KillMaster()
		b.call("/", 400) // its workers go on
		b.waitLines(4800)
		b.startNginx()
		b.call("/", 400)
		b.waitLines(5200)
		b.stopReader()
		assert.Equal(t, Stats{}, b.lost)
		b.startReader()
	})
}

// reached waits until so many lines have been taken.
func (b *balancer) reached(n int) {
	b.t.Helper()
	eventually(b.t, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.lines < n {
			return fmt.Errorf("%d lines taken, want %d", b.lines, n)
		}
		return nil
	})
}

func TestAReplacedFileLosesNothing(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		const size = 4 << 20
		b := start(t, binary, size, 2)
		replaced := 0
		var last os.FileInfo
		total := 0
		for range 4 { // 12,000 lines have some 2.4 MB
			b.call("/", 12_000)
			total += 12_000
			b.waitLines(total)
			info, err := os.Stat(Path(b.dir))
			require.NoError(t, err)
			if last != nil && !os.SameFile(info, last) {
				replaced++
			}
			last = info
			assert.GreaterOrEqual(t, info.Size(), int64(most-size), "it has no bound")
		}
		assert.GreaterOrEqual(t, replaced, 2)
		assert.Equal(t, Stats{Lines: int64(total)}, totals(b.reader))
	})
}

func TestARemovedFileLosesNothing(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := start(t, binary, 0, 2)
		b.call("/", 40)
		require.NoError(t, os.RemoveAll(b.dir))
		b.call("/", 40) // into the file that has no name any more
		b.waitLines(80)
		eventually(t, func() error { _, err := os.Stat(Path(b.dir)); return err })
		b.call("/", 40)
		b.waitLines(120)

		require.NoError(t, os.Remove(Path(b.dir)))
		b.nginx.Reload() // nginx or the reader makes it again
		b.call("/", 40)
		b.waitLines(160)
		eventually(t, func() error {
			info, err := os.Stat(Path(b.dir))
			if err == nil && info.Size() < most-MaxDefaultSize {
				err = fmt.Errorf("size %d: it has no bound", info.Size())
			}
			return err
		})
		assert.Equal(t, Stats{Lines: 160}, totals(b.reader))
	})
}

func TestAnUnreadLogIsBoundedAndHarmsNoRequest(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		const size = 256 << 10
		b := start(t, binary, size, 2)
		b.call("/", 400)
		b.waitLines(400)
		b.stopReader()
		b.call("/", 10_000) // some 2 MB
		assert.LessOrEqual(t, b.inMemory(), int64(size)+4096)
		b.startReader()
		eventually(t, func() error {
			if n := b.reader.Stats().Full; n != 1 {
				return fmt.Errorf("it was full %d times, want once", n)
			}
			return nil
		})
		b.reached(1000) // those before it was full
		b.mu.Lock()
		assert.Less(t, b.lines, 10_400)
		b.mu.Unlock()
		// A worker may still have lines that it could not write.
		eventually(t, func() error {
			b.call("/own", 4)
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.taken["web 204 grpc -1"] == 0 {
				return errors.New("no new line")
			}
			return nil
		})
	})
}

func TestAFullFileSystemHarmsNoRequest(t *testing.T) {
	t.Parallel()
	binary := nginxtest.Binaries(t)[0]
	b := start(t, binary, 0, 1)
	small := nginxtest.Dir(t)
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=128k,mode=755"); err != nil {
		t.Skipf("can't mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(small, syscall.MNT_DETACH) })
	b.stopReader()
	b.nginx.Stop()
	conf, err := os.ReadFile(b.conf)
	require.NoError(t, err)
	conf = []byte(strings.ReplaceAll(string(conf), b.dir, small))
	require.NoError(t, os.WriteFile(b.conf, conf, 0o644))
	b.dir = small
	b.startReader()
	b.startNginx()
	b.stopReader()
	b.call("/", 6000) // some 420 kB
	b.startReader()
	b.reached(100)
	eventually(t, func() error {
		b.call("/own", 4)
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.taken["web 204 grpc -1"] == 0 {
			return errors.New("no new line")
		}
		return nil
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	assert.Less(t, b.lines, 6000)
	for record := range b.taken {
		assert.Contains(t, []string{"web 200 grpc -1 instance=200", "web 204 grpc -1"}, record, "a torn line was taken")
	}
	assert.LessOrEqual(t, b.reader.Stats().Malformed, int64(2), "one torn line, and at most one behind it")
}

// lonely is a reader without nginx.
func lonely(t *testing.T) (*Reader, func(text string)) {
	t.Helper()
	r, err := New(Options{Dir: nginxtest.MemoryDir(t), Reopen: func() error { return nil }})
	require.NoError(t, err)
	t.Cleanup(r.close)
	return r, func(text string) {
		f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		_, err = f.WriteString(text)
		require.NoError(t, errors.Join(err, f.Close()))
	}
}

func TestALineOfAnyLengthNeedsBoundedMemory(t *testing.T) {
	r, write := lonely(t)
	good := string(line(tries("web", "10.0.0.1:80", "200", "0.001"))) + "\n"
	write(good)
	write(strings.Repeat("x", 3*bufferSize))
	n := 0
	take := func(*Record) { n++ }
	require.NoError(t, r.poll(t.Context(), take))
	write("y\n" + good + good[:20])
	require.NoError(t, r.poll(t.Context(), take))
	assert.Equal(t, 2, n)
	write(good[20:])
	require.NoError(t, r.poll(t.Context(), take))
	assert.Equal(t, 3, n)
	assert.Equal(t, Stats{Lines: 3, Malformed: 1}, totals(r))
}

func TestALineIsNotTakenAgainByTheNextReader(t *testing.T) {
	r, write := lonely(t)
	good := string(line(tries("web", "10.0.0.1:80", "200", "0.001"))) + "\n"
	taken, written := 0, 0
	for n := range 200 { // the hole ends anywhere in a page
		cut := n % len(good)
		write(strings.Repeat(good, n%7) + good[:cut])
		written += n % 7
		next, err := New(r.opts)
		require.NoError(t, err)
		require.NoError(t, next.poll(t.Context(), func(*Record) { taken++ }))
		assert.Zero(t, next.Stats().Malformed)
		next.close()
		require.Equal(t, written, taken, "round %d", n)
		write(good[cut:])
		written++
	}
}

func TestFewLinesAtATimeNeedNoMemory(t *testing.T) {
	r, write := lonely(t)
	good := string(line(tries("web", "10.0.0.1:80", "200", "0.001"))) + "\n"
	for range 1000 {
		write(good)
		require.NoError(t, r.poll(t.Context(), func(*Record) {}))
	}
	assert.Equal(t, Stats{Lines: 1000}, totals(r))
	var info syscall.Stat_t
	require.NoError(t, syscall.Stat(r.path, &info))
	assert.LessOrEqual(t, info.Blocks*512, int64(os.Getpagesize()))
}

func TestTheDirectoryMustBeInMemory(t *testing.T) {
	dir := t.TempDir()
	if InMemory(dir) == nil {
		t.Skipf("%s is on a tmpfs", dir)
	}
	_, err := New(Options{Dir: dir, Reopen: func() error { return nil }})
	require.ErrorContains(t, err, dir+" is not on a tmpfs")
}

func TestSomethingElseInThePlaceOfTheFile(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a directory":     func(path string) error { return os.Mkdir(path, 0o755) },
		"a named pipe":    func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"a symbolic link": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"a socket": func(path string) error {
			l, err := net.Listen("unix", path)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := nginxtest.MemoryDir(t)
			require.NoError(t, put(Path(dir)))
			r, err := New(Options{Dir: dir, Reopen: func() error { return nil }})
			require.NoError(t, err)
			defer r.close()
			info, err := os.Lstat(Path(dir))
			require.NoError(t, err)
			assert.True(t, info.Mode().IsRegular())
		})
	}
}

// TestOnlyTheirOwnersReadTheFiles lets nginx make its log before lbctl does.
func TestOnlyTheirOwnersReadTheFiles(t *testing.T) {
	t.Parallel()
	b := prepare(t, nginxtest.Binaries(t)[0], 0, 1)
	b.startNginx()
	b.call("/", 40)
	b.startReader()
	t.Cleanup(func() { b.stopReader() })
	b.call("/", 40)
	b.waitLines(80)
	require.NoError(t, filepath.WalkDir(b.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			assert.Zero(t, info.Mode().Perm()&0o077, path)
		}
		return err
	}))
}
