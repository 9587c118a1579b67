package metricstest

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documented is a metric as docs/metrics.md has it.
type documented struct {
	kind   string
	labels map[string][]string // their values, by name; nil: any
}

// documentedMetrics returns the rows of the tables of the page.
func documentedMetrics(t testing.TB, page string) map[string]documented {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\| (.*?) \\| .+ \\|$")
	label := regexp.MustCompile("^`([a-z_]+)`: (.+)$")
	all := map[string]documented{}
	for _, match := range row.FindAllStringSubmatch(string(text), -1) {
		d := documented{kind: match[2], labels: map[string][]string{}}
		for text := range strings.SplitSeq(match[3], "; ") {
			if text == "" {
				continue
			}
			parts := label.FindStringSubmatch(text)
			require.NotNil(t, parts, "%s: labels %q", match[1], text)
			var values []string
			if strings.HasPrefix(parts[2], "`") {
				list, optional := strings.CutSuffix(parts[2], ", or empty")
				values = strings.Split(strings.ReplaceAll(list, "`", ""), ", ")
				if optional {
					values = append(values, "")
				}
			}
			d.labels[parts[1]] = values
		}
		all[match[1]] = d
	}
	require.NotEmpty(t, all)
	return all
}

// CheckDocumented checks that each metric is documented on the page with its type and labels, and
// that each documented one with the prefix is there.
func CheckDocumented(t testing.TB, page, prefix string, exposed Metrics) {
	t.Helper()
	all := documentedMetrics(t, page)
	for name, family := range exposed {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		d, ok := all[name]
		if !assert.True(t, ok, "%s does not have %s", page, name) {
			continue
		}
		assert.Equal(t, d.kind, strings.ToLower(family.GetType().String()), name)
		for _, series := range family.Metric {
			assert.Len(t, series.Label, len(d.labels), "%s: labels %v", name, series.Label)
			for _, l := range series.Label {
				values, ok := d.labels[l.GetName()]
				assert.True(t, ok, "%s has the label %s", name, l.GetName())
				if values != nil {
					assert.Contains(t, values, l.GetValue(), "%s: label %s", name, l.GetName())
				}
			}
		}
	}
	for name := range all {
		if strings.HasPrefix(name, prefix) && exposed[name] == nil {
			t.Errorf("%s has %s, and there is none", page, name)
		}
	}
}

// Promtool checks metrics as Prometheus's own tool does. Without the tool it leaves that out, or
// fails with LB_TEST_REQUIRE=1.
func Promtool(t testing.TB, metrics Metrics) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("LB_TEST_REQUIRE") == "1" {
			t.Errorf("LB_TEST_REQUIRE=1, but promtool is missing: %v (build/need.sh promtool installs it)", err)
		}
		t.Log("no promtool on PATH: its check is left out")
		return
	}
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range metrics {
		require.NoError(t, encoder.Encode(family))
	}
	cmd := exec.Command(path, "check", "metrics")
	cmd.Stdin = &text
	out, err := cmd.CombinedOutput()
	assert.NoError(t, err, "promtool check metrics: %s", out)
}
