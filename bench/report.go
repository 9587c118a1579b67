//go:build bench

package bench

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"lbctl/internal/consultest"
)

// records is the directory of the reports, relative to this package.
const records = "../docs/benchmarks"

// A report is Markdown, printed at the end of a benchmark and, with RECORD=1,
// kept in docs/benchmarks.
type report struct {
	t    *testing.T
	name string // of its file, without a suffix
	text strings.Builder
}

// newReport begins a report with what was measured, and the machine.
func newReport(t *testing.T, name, title string) *report {
	r := &report{t: t, name: name}
	fmt.Fprintf(&r.text, "# %s\n\n", title)
	r.paragraph("%s on %s. Made by `make bench-%s RECORD=1`, on a machine that others use too: compare the rows, not the days.",
		time.Now().Format(time.DateOnly), machine(t), name)
	r.paragraph("%s.", strings.Join(versions(t), ", "))
	return r
}

// paragraph adds a paragraph.
func (r *report) paragraph(format string, args ...any) {
	fmt.Fprintf(&r.text, format, args...) // unchanged, so that go vet checks the callers
	r.text.WriteString("\n\n")
}

// heading adds a heading below the title.
func (r *report) heading(text string) { fmt.Fprintf(&r.text, "## %s\n\n", text) }

// table adds a table. Its first column is text, and the others are figures.
func (r *report) table(head []string, rows [][]string) {
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	line := func(row []string) {
		r.text.WriteString("|")
		for i, cell := range row {
			padding := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			if i == 0 {
				cell += padding
			} else {
				cell = padding + cell
			}
			fmt.Fprintf(&r.text, " %s |", cell)
		}
		r.text.WriteString("\n")
	}
	line(head)
	rule := []string{strings.Repeat("-", widths[0])}
	for _, width := range widths[1:] {
		rule = append(rule, strings.Repeat("-", width-1)+":")
	}
	line(rule)
	for _, row := range rows {
		line(row)
	}
	r.text.WriteString("\n")
}

// peers says how each balancer was configured, and which ones are missing.
func (r *report) peers(all []peer) {
	r.heading("What was compared")
	for _, p := range all {
		with := p.with
		if p.missing != "" {
			with = "Not run: there is no " + strings.TrimPrefix(p.missing, "a ") + ". " + with
		}
		fmt.Fprintf(&r.text, "- **%s.** %s\n", p.name, with)
	}
	r.text.WriteString("\n")
}

// done prints the report, and keeps it with RECORD=1.
func (r *report) done() {
	text := strings.TrimRight(r.text.String(), "\n") + "\n"
	fmt.Printf("\n%s\n", text)
	if recording() {
		r.keep(r.name+".md", []byte(text))
	}
}

// keep writes a file beside the reports.
func (r *report) keep(name string, content []byte) {
	require.NoError(r.t, os.MkdirAll(records, 0o755))
	require.NoError(r.t, os.WriteFile(filepath.Join(records, name), content, 0o644))
}

func recording() bool { return os.Getenv("RECORD") == "1" }

// machine describes the machine.
func machine(t *testing.T) string {
	t.Helper()
	field := func(path, name string) string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
				return strings.TrimSpace(value)
			}
		}
		return "unknown " + name
	}
	var kib int
	fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%d kB", &kib)
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	require.NoError(t, err)
	release, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	return fmt.Sprintf("%d cores of %s with %.0f GiB, Linux %s",
		runtime.NumCPU(), field("/proc/cpuinfo", "model name"), float64(kib)/(1<<20), release)
}

// versions are the versions of all programs in the benchmark.
func versions(t *testing.T) []string {
	t.Helper()
	all := []string{
		"lbctl " + firstLine("git", "describe", "--tags", "--always", "--dirty"),
		"nginx " + nginx(t).Version,
		firstLine(consultest.Binary(t), "version"),
		"Go " + strings.TrimPrefix(runtime.Version(), "go"),
		"grpc-go " + grpc.Version,
	}
	for _, program := range []struct{ name, path, flag string }{
		{"", "consul-template", "-v"},
		{"", "haproxy", "-v"},
		{"fabio ", os.Getenv("FABIO"), "-v"},
		{"Traefik ", os.Getenv("TRAEFIK"), "version"},
	} {
		if line := firstLine(program.path, program.flag); line != "" {
			all = append(all, program.name+line)
		}
	}
	return all
}

// firstLine is the first line that a program prints, up to the word with a
// version's digits; "" when the program is missing.
func firstLine(program string, args ...string) string {
	if program == "" {
		return ""
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	words := strings.Fields(line)
	for i, word := range words { // dates, commits and web sites follow the number
		if strings.ContainsAny(word, "0123456789") {
			words = words[:i+1]
			break
		}
	}
	return strings.NewReplacer("version ", "", "Version: ", "").Replace(strings.Join(words, " "))
}

// quantile is the smallest value that at least a share q of the values does not exceed.
func quantile[T float64 | time.Duration](values []T, q float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, min(len(sorted)-1, int(float64(len(sorted))*q+0.999999)-1))]
}

// medianRatio is the median of ratios, with its 95 % confidence interval. The interval
// is valid for any distribution: it ends at the two ratios that are 1.96 standard
// deviations of a fair coin's throws away from the middle.
func medianRatio(ratios []float64) string {
	sorted := slices.Sorted(slices.Values(ratios))
	n := len(sorted)
	from := max(0, int((float64(n)-1.96*math.Sqrt(float64(n)))/2)-1)
	return fmt.Sprintf("%.2f (%.2f to %.2f)", median(ratios), sorted[from], sorted[n-1-from])
}

func median[T float64 | time.Duration](values []T) T { return quantile(values, 0.5) }

// seconds formats a duration for reports.
func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

func mebibytes(m float64) string { return fmt.Sprintf("%.0f MiB", m) }

// share is the share of a core that was used over a span.
func share(used, span time.Duration) string {
	return fmt.Sprintf("%.1f %%", 100*used.Seconds()/span.Seconds())
}
