package democlient

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got), "run go test -update if the change of %s is meant", path)
}

// TestGolden compares the JSON, whose fields are stable, the summary and the events with
// golden files.
func TestGolden(t *testing.T) {
	start := time.Date(2026, 5, 1, 9, 12, 3, 0, time.UTC)
	for name, test := range map[string]struct {
		cfg    config
		record func(*recorder)
	}{
		"answered": {
			cfg: config{target: "localhost:5000"},
			record: func(r *recorder) {
				for i := range 1000 {
					host := []string{"1b40646880d9", "9f3c51d2a7e0", "d02e6b1f8c44"}[i%3]
					took := time.Duration(i+500) * time.Microsecond
					r.call(start.Add(time.Duration(i)*2*time.Millisecond), took, "Hello from "+host+".", nil)
				}
			},
		},
		"failed": {
			cfg: config{target: "lb:5000", authority: "api.example.com", stream: true},
			record: func(r *recorder) {
				unavailable := status.Error(codes.Unavailable, "no healthy instance")
				r.streamOpened()
				r.call(start, 1500*time.Millisecond, "Hello from 1b40646880d9.", nil)
				r.call(start.Add(600*time.Millisecond), 400*time.Millisecond, "", unavailable)
				r.call(start.Add(700*time.Millisecond), time.Second, "", unavailable)
				r.call(start.Add(time.Second), time.Second, "", errors.New("not one of gRPC's"))
			},
		},
		"nothing": {
			cfg:    config{target: "localhost:5000"},
			record: func(*recorder) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var events, text bytes.Buffer
			rec := newRecorder(test.cfg, &events)
			rec.started = start
			test.record(rec)
			r := rec.report(start.Add(2050 * time.Millisecond))

			object, err := json.MarshalIndent(r, "", "  ")
			require.NoError(t, err)
			golden(t, name+".json", append(object, '\n'))
			require.NoError(t, writeSummary(&text, r))
			golden(t, name+".txt", text.Bytes())
			golden(t, name+".events", events.Bytes())
		})
	}
}

func TestOK(t *testing.T) {
	for name, test := range map[string]struct {
		r    report
		want bool
	}{
		"all answered":    {report{Answered: 1}, true},
		"one failed":      {report{Answered: 9, Failed: 1}, false},
		"none":            {report{}, false},
		"streams held":    {report{Answered: 1, Streams: &streams{Opened: 1}}, true},
		"a stream broken": {report{Answered: 1, Streams: &streams{Opened: 1, Broken: 1}}, false},
	} {
		assert.Equal(t, test.want, test.r.ok(), name)
	}
}

func TestFrom(t *testing.T) {
	for greeting, want := range map[string]string{
		"Hello from 1b40646880d9.":      "1b40646880d9",
		"Hello from host.example.com..": "host.example.com.",
		"Hello from .":                  "Hello from .",
		"Hello from x":                  "Hello from x",
		"Good morning.":                 "Good morning.",
		"":                              "",
	} {
		assert.Equal(t, want, from(greeting))
	}
}
