package metrics

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/metrics.md again")

const page = "../../docs/metrics.md"

// The part of the page between them is made from the sections.
const (
	begin = "<!-- lbctl's metrics: written by go test ./internal/metrics -update -->\n"
	end   = "<!-- The end of lbctl's metrics -->\n"
)

func TestPage(t *testing.T) {
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), begin)
	require.True(t, found, "%s has no line %s", page, begin)
	_, after, found := strings.Cut(rest, end)
	require.True(t, found, "%s has no line %s", page, end)
	want := before + begin + tables() + end + after
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(want), 0o644))
		return
	}
	assert.Equal(t, want, string(text), "write it again with: go test ./internal/metrics -update")
}

// tables returns a table for each section.
func tables() string {
	var b strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&b, "\n### %s\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n", s.title)
		for _, f := range s.families {
			var labels []string
			for _, l := range f.labels {
				labels = append(labels, fmt.Sprintf("`%s`: %s", l.name, valuesText(l.values)))
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, strings.ToLower(f.kind.String()), strings.Join(labels, "; "), f.help)
		}
	}
	b.WriteString("\n")
	return b.String()
}

func valuesText(values string) string {
	if strings.HasPrefix(values, "(") {
		return strings.Trim(values, "()")
	}
	if values, optional := strings.CutSuffix(values, "|"); optional {
		return valuesText(values) + ", or empty"
	}
	return "`" + strings.ReplaceAll(values, "|", "`, `") + "`"
}

func TestEachMetricIsThereOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sections {
		for _, f := range s.families {
			assert.False(t, seen[f.name], f.name)
			seen[f.name] = true
			assert.Regexp(t, `^\S.*\.$`, f.help, f.name)
			for _, l := range f.labels {
				assert.NotContains(t, []string{"instance", "job"}, l.name, "Prometheus uses these labels itself")
			}
		}
	}
	assert.Greater(t, len(seen), 30)
}
