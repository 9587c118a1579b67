package render

import (
	"bytes"
	"log"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSettingsHaveDefaults(t *testing.T) {
	s, err := Settings{RunDir: "/run/lb", NginxVersion: "1.30.6"}.complete()
	require.NoError(t, err)
	assert.Equal(t, Listen{":5000"}.each(), s.GRPCListen())
	assert.Equal(t, Listen{":8080"}.each(), s.HTTPListen())
	assert.Equal(t, runtime.GOMAXPROCS(0), s.Workers)
	assert.Positive(t, s.OpenFiles)
	assert.LessOrEqual(t, s.OpenFiles, 1<<20)
	assert.LessOrEqual(t, s.WorkerConnections(), 16384)
	for files, connections := range map[int]int{64: 32, 100: 50, 1024: 956, 8192: 8124, 1 << 20: 16384} {
		assert.Equal(t, connections, Settings{Workers: 2, OpenFiles: files}.WorkerConnections(), "%d open files", files)
	}
	assert.Equal(t, Listen{"[::1]:6379", "10.0.0.1:6379"}, Settings{Listeners: PlainListeners(Listen{"[::1]:5000", "10.0.0.1:5000", "10.0.0.1:5001"}, nil)}.TCPListen(6379))
	assert.Equal(t, []int{5000, 5001, 8080}, Settings{Listeners: PlainListeners(Listen{"[::1]:5001", "10.0.0.1:5000", "[::1]:5000"}, Listen{":8080"})}.reserved().Ports)
}

// With more workers, an older nginx can send clients from one old worker to another at a
// reload, so that some gRPC calls fail.
func TestAnOlderNginxHasOneWorker(t *testing.T) {
	for _, tt := range []struct {
		nginx string
		given int
		want  int
	}{
		{nginx: "1.22.1", want: 1},
		{nginx: "1.27.0", want: 1},
		{nginx: "1.22.1", given: 4, want: 4},
		{nginx: "1.27.1", want: runtime.GOMAXPROCS(0)},
		{nginx: "1.30.6", want: runtime.GOMAXPROCS(0)},
	} {
		s, err := Settings{RunDir: "/run/lb", NginxVersion: tt.nginx, Workers: tt.given}.complete()
		require.NoError(t, err)
		assert.Equal(t, tt.want, s.Workers, "nginx %s, %d given", tt.nginx, tt.given)
	}
	_, why := DefaultWorkers("1.22.1")
	assert.Equal(t, "nginx 1.22.1 can fail gRPC calls at reloads when it has more, want 1.27.1 or later", why)
	_, why = DefaultWorkers("1.30.6")
	assert.Empty(t, why)
}

func TestAllMistakesInSettingsAreReportedAtOnce(t *testing.T) {
	_, err := New(Options{Settings: Settings{
		Listeners: PlainListeners(Listen{":5001", "localhost:5000"}, Listen{"0.0.0.0:x"}), Workers: -1, WorkerCPUAffinity: "0101", OpenFiles: 3,
		RunDir: "run", User: "no body;", NginxVersion: "latest", StreamModule: "/a$b",
	}})
	require.Error(t, err)
	for _, part := range []string{
		`listener "grpc": address: "localhost:5000" has the address "localhost", want an IP address`,
		`listener "http": address: "0.0.0.0:x" has the port "x", want 1 to 65535`,
		`workers "-1", want 1 to 1024`,
		`worker CPU affinity "0101", want "auto" or nothing`,
		`open files "3", want 64 or more`,
		`run directory "run", want an absolute path`,
		`stream module "/a$b", want an absolute path`,
		`user "no body;", want the name of a user`,
		`nginx version "latest", want three numbers like "1.30.6"`,
	} {
		assert.ErrorContains(t, err, part)
	}
	_, err = New(Options{Settings: Settings{Listeners: PlainListeners(Listen{"0.0.0.0:80"}, Listen{"127.0.0.1:81", "127.0.0.1:80"}), RunDir: "/run", NginxVersion: "1.30.6"}})
	assert.ErrorContains(t, err, `listener "http": port 80 belongs to listener "grpc", want another one`)
	_, err = New(Options{Settings: Settings{Listeners: PlainListeners(Listen{"5000"}, Listen{":80"}), RunDir: "/run", NginxVersion: "1.30.6"}})
	assert.ErrorContains(t, err, `"5000", want ADDRESS:PORT like "0.0.0.0:5000"`)
}

func TestProblemsKeepTheirDates(t *testing.T) {
	var l ledger
	first, second := time.Unix(1, 0), time.Unix(2, 0)
	a, b := Problem{Subject: "a", Message: "x"}, Problem{Subject: "b", Message: "x"}
	assert.Equal(t, []Problem{{Subject: "a", Message: "x", Since: first}}, l.set(first, []Problem{a, a}))
	assert.Equal(t, []Problem{{Subject: "b", Message: "x", Since: second}}, l.set(second, []Problem{b, a}))
	assert.Equal(t, []Problem{{Subject: "b", Message: "x", Since: second}, {Subject: "a", Message: "x", Since: first}}, l.problems)
	l.set(second, nil)
	assert.Empty(t, l.problems)
	assert.NotEmpty(t, l.set(second, []Problem{a}), "it is new again")
}

func TestTheLogOfConsulTemplateIsBridged(t *testing.T) {
	t.Cleanup(func() { log.SetOutput(os.Stderr); log.SetFlags(log.LstdFlags) })
	var b bytes.Buffer
	bridgeLog(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})))
	log.Printf("[TRACE] (view) secret")
	log.Printf("[DEBUG] (runner) secret")
	log.Printf("[INFO] secret")
	log.Printf("[WARN] (view) tried again")
	log.Printf("[ERR] (view) given up")
	log.Printf("somebody else's line")
	assert.NotContains(t, b.String(), "secret")
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	require.Len(t, lines, 3)
	assert.Contains(t, lines[0], `level=DEBUG msg=consul-template text="(view) tried again"`)
	assert.Contains(t, lines[1], `level=WARN msg=consul-template text="(view) given up"`)
	assert.Contains(t, lines[2], `level=INFO msg=log text="somebody else's line"`)

	bridgeLog(slog.New(standardHandler)) // would deadlock in the next line
	log.Printf("[WARN] x")
}
