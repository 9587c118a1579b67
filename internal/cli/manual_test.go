package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestManual checks that docs/cli.md has every command, flag and variable, and the commands
// in the table at its top too.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	manual := string(text)
	root := newRootCmd(&factory{})
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		assert.NotEmpty(t, command.Short+command.Long, command.Name())
		if command.Parent() == root && command.Name() != "help" {
			row := regexp.MustCompile("(?m)^\\| \\[`" + command.Name() + "[ `].*\\]\\(#")
			assert.True(t, row.MatchString(manual), "the table of commands lacks %s", command.Name())
		}
		if command != root && command.Name() != "help" {
			assert.Contains(t, manual, "`"+command.Name(), "the command %s", command.Name())
		}
		command.Flags().VisitAll(func(flag *pflag.Flag) {
			if flag.Name == "help" || flag.Name == "output" { // documented once, for all commands
				return
			}
			assert.Contains(t, manual, "--"+flag.Name, "a flag of %s", command.Name())
			if _, after, ok := strings.Cut(flag.Usage, "[$"); ok {
				variable, _, _ := strings.Cut(after, "]")
				assert.Contains(t, manual, variable, "a variable of %s", command.Name())
			}
		})
		for _, sub := range command.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

// TestManualOfTheAPI checks that docs/cli.md has every path of the daemon's API.
func TestManualOfTheAPI(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	source, err := os.ReadFile("../admin/server.go")
	require.NoError(t, err)
	paths := regexp.MustCompile(`HandleFunc\("([A-Z]+) (/[^"]*)"`).FindAllSubmatch(source, -1)
	require.NotEmpty(t, paths)
	for _, p := range paths {
		path := regexp.QuoteMeta(strings.NewReplacer("{name}", "NAME", "{number}", "N").Replace(string(p[2])))
		row := regexp.MustCompile("(?m)^\\| `" + string(p[1]) + " [^|]*" + path + "[`?]")
		assert.True(t, row.Match(text), "%s %s", p[1], p[2])
	}
}
