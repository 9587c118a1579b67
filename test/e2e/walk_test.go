//go:build e2e

package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// routingWalk runs the walk of docs/routing.md as it stands there, except for the ports.
func (c *docker) routingWalk(t *testing.T) {
	ports := strings.NewReplacer(":5000", ":"+c.grpcPort, ":5443", ":"+c.grpcsPort, ":8080", ":"+c.httpPort, ":8443", ":"+c.httpsPort)
	for _, step := range walk(t, "docs/routing.md") {
		shell := exec.Command("bash", "-c", ports.Replace(step.command))
		shell.Env = append(slices.Clone(c.env), "LBCTL_ADDR="+c.admin, "CONSUL_HTTP_ADDR="+c.consulURL)
		out, _ := shell.CombinedOutput() // a step may be one that fails
		require.Regexp(t, step.expected(), string(out), "%s", step.command)
	}
}

// step is a command of a walk, with what it shall print.
type step struct {
	command string
	lines   []string
}

// walk returns the commands in the ```console blocks of a document: lines that begin with "$ ",
// each with the lines that follow it.
func walk(t *testing.T, path string) []step {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	var steps []step
	inside := false
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Text()
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case line == "```console":
			inside = true
		case line == "```":
			inside = false
		case inside && isCommand:
			steps = append(steps, step{command: command})
		case inside:
			last := &steps[len(steps)-1]
			last.lines = append(last.lines, line)
		}
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, steps, "the walk in %s", path)
	return steps
}

// expected is a pattern of what the command prints. In the document "…" stands for any text within
// a line, and a line of it alone for any lines. Spaces may be more or fewer.
func (s step) expected() *regexp.Regexp {
	var pattern strings.Builder
	pattern.WriteString(`^`)
	for _, line := range s.lines {
		if line == "…" {
			pattern.WriteString(`(?:.*\n)*`)
			continue
		}
		text := regexp.QuoteMeta(strings.Join(strings.Fields(line), " "))
		text = strings.ReplaceAll(text, "…", ".*")
		pattern.WriteString(`[ \t]*` + strings.ReplaceAll(text, " ", `[ \t]+`) + `[ \t]*\r?\n`)
	}
	return regexp.MustCompile(pattern.String() + `$`)
}
