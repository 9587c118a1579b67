package democlient

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// writeAnswer writes the answer of a single call to stdout, or its failure to stderr.
func writeAnswer(stdout, stderr io.Writer, r report) error {
	for _, a := range r.Answers {
		if _, err := fmt.Fprintln(stdout, a.greeting); err != nil {
			return err
		}
	}
	for _, f := range r.Failures {
		fmt.Fprintf(stderr, "grpc_client: call %s: %s: %s\n", r.Target, f.Code, f.Example)
	}
	return nil
}

// writeSummary writes the report for people.
func writeSummary(w io.Writer, r report) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s to %s in %s, %.0f/s: %d answered, %d failed\n", count(r.Calls, "call"),
		r.Target, seconds(time.Duration(r.Seconds*float64(time.Second))), r.CallsPerSecond, r.Answered, r.Failed)
	if len(r.Answers) > 0 {
		fmt.Fprintf(&text, "\n%8s  %6s  from\n", "answers", "share")
	}
	for _, a := range r.Answers {
		fmt.Fprintf(&text, "%8d  %5.1f%%  %s\n", a.Calls, 100*float64(a.Calls)/float64(r.Answered), a.From)
	}
	if len(r.Failures) > 0 {
		fmt.Fprintf(&text, "\n%8s  code: first message\n", "failures")
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&text, "%8d  %s: %s\n", f.Calls, f.Code, f.Example)
	}
	if l := r.Latency; l != nil {
		fmt.Fprintf(&text, "\n%8s  min %s  p50 %s  p90 %s  p99 %s  max %s\n", "latency",
			short(l.Min), short(l.P50), short(l.P90), short(l.P99), short(l.Max))
	}
	if s := r.Streams; s != nil {
		fmt.Fprintf(&text, "%8s  %d opened, %d broken\n", "streams", s.Opened, s.Broken)
	}
	_, err := w.Write(text.Bytes())
	return err
}

// count returns "1 call" or "2 calls".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func seconds(d time.Duration) string {
	return fmt.Sprintf("%.2fs", d.Seconds())
}

// short formats milliseconds with the significant digits.
func short(ms float64) string {
	switch {
	case ms < 1:
		return fmt.Sprintf("%.2fms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.1fms", ms)
	default:
		return fmt.Sprintf("%.2fs", ms/1000)
	}
}
