package build_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A link of one of our documents to another one, or to a heading, leads there.
func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	documents := map[string]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/*/*.md", "../bench/*.md"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, found, pattern)
		for _, path := range found {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			documents[path] = withoutCode(string(text))
		}
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	var links int
	for path, text := range documents {
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			links++
			name, anchor, hasAnchor := strings.Cut(match[1], "#")
			target := path
			if name != "" {
				target = filepath.Join(filepath.Dir(path), name)
			}
			_, err := os.Stat(target)
			assert.NoError(t, err, "%s links to %s", path, match[1])
			if hasAnchor {
				assert.Contains(t, anchors(documents[target]), anchor, "%s links to %s", path, match[1])
			}
		}
	}
	require.NotZero(t, links)
}

// withoutCode leaves out what stands between lines of three backquotes.
func withoutCode(text string) string {
	var kept []string
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
		} else if !code {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

var (
	linked     = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	notInNames = regexp.MustCompile(`[^\w\- ]`)
)

// anchors are the names that the headings of a document have in links.
func anchors(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		level, title, ok := strings.Cut(line, " ")
		if !ok || strings.Trim(level, "#") != "" || level == "" {
			continue
		}
		title = linked.ReplaceAllString(strings.TrimSpace(title), "$1")
		names = append(names, strings.ReplaceAll(notInNames.ReplaceAllString(strings.ToLower(title), ""), " ", "-"))
	}
	return names
}
