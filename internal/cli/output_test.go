package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"lbctl/internal/consultest"
	"lbctl/internal/nginxtest"
)

// withoutResult are the commands that print no result: -o would mean nothing.
var withoutResult = []string{
	"lbctl run",           // its log has --log-format
	"lbctl completion",    // a script for a shell
	"lbctl policy edit",   // an editor has the terminal
	"lbctl policy schema", // always JSON
	"lbctl help",
}

// results are command lines that print a result, at least one for each command. fakeDaemon
// answers them. NGINX is the path of nginx, DIR a directory
// with a certificate, for the commands that need none of lbctl's daemon. FORMAT is the format, for
// the commands that can't be repeated: of them only the fields are compared, not the values.
var results = []string{
	"lbctl status",
	"lbctl services",
	"lbctl services shop",
	"lbctl services shop shop-1",
	"lbctl routes",
	"lbctl explain http://example.com/api",
	"lbctl history",
	"lbctl logs --limit 1",
	"lbctl doctor --nginx NGINX",
	"lbctl diff 41 42",
	"lbctl rollback 40",
	"lbctl resume",
	"lbctl accept",
	"lbctl render --nginx NGINX --run-dir /run/lbctl",
	"lbctl check --nginx NGINX",
	"lbctl policy list",
	"lbctl policy get cart",
	"lbctl policy get",
	"lbctl policy get shop --effective",
	"lbctl policy set cart timeout.read=5s --dry-run",
	"lbctl policy unset cart timeout.read --dry-run",
	"lbctl policy apply -f testdata/policies.yaml --dry-run",
	"lbctl policy delete cart --dry-run",
	"lbctl policy history cart",
	"lbctl policy undo cart --dry-run",
	"lbctl policy explain timeout",
	"lbctl deny 203.0.113.0/24",
	"lbctl allow 192.0.2.0/24",
	"lbctl access list",
	"lbctl access check 198.51.100.7",
	"lbctl access history",
	"lbctl key create key-of-FORMAT",
	"lbctl key list",
	"lbctl key revoke key-of-FORMAT",
	"lbctl certificate create --out DIR --if-needed localhost",
	"lbctl version",
}

// TestOutputOfEveryCommand walks all commands. Each that prints a result does it in JSON and in
// YAML, with the same fields in the same order.
func TestOutputOfEveryCommand(t *testing.T) {
	left := slices.Clone(results)
	var lines [][]string
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		for _, sub := range command.Commands() {
			walk(sub)
		}
		path := command.CommandPath()
		if !command.HasParent() || command.HasSubCommands() || slices.Contains(withoutResult, path) {
			return
		}
		require.NotNil(t, command.Flags().Lookup("output"), "%s has no -o: define it with outputFlag, or add the command to withoutResult", path)
		before := len(lines)
		left = slices.DeleteFunc(left, func(line string) bool {
			if line != path && !strings.HasPrefix(line, path+" ") {
				return false
			}
			lines = append(lines, strings.Split(line, " ")[1:])
			return true
		})
		require.Greater(t, len(lines), before, "%s has no line in results", path)
	}
	walk(newRootCmd(&factory{}))
	require.Empty(t, left, "there is no such command")

	t.Setenv("CONSUL_HTTP_ADDR", consultest.Start(t).Addr)
	dir := t.TempDir()
	for _, line := range []string{"policy set cart timeout.read=1s", "policy set cart timeout.send=1s", "deny 203.0.113.0/24", "certificate create --out " + dir + " localhost"} {
		require.Equal(t, exitOK, command(t.Context(), Terminal{}, nil, strings.Split(line, " ")...).code)
	}
	binary := nginxtest.Binaries(t)[0]
	for _, args := range lines {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			once := strings.Contains(strings.Join(args, " "), "FORMAT")
			print := func(format string) *yaml.Node {
				args := slices.Clone(args)
				for i, arg := range args {
					args[i] = strings.NewReplacer("NGINX", binary.Path, "DIR", dir, "FORMAT", format).Replace(arg)
				}
				environ := []string{"LBCTL_RUN_DIR=" + newFakeDaemon().start(t)}
				got := command(t.Context(), Terminal{}, environ, append(args, "-o", format)...)
				require.Equal(t, exitOK, got.code, got.err)
				if format == outputJSON {
					assert.Contains(t, "{[", got.out[:1])
				} else {
					assert.NotContains(t, "{[", got.out[:1])
				}
				var document yaml.Node // YAML has all of JSON
				require.NoError(t, yaml.Unmarshal([]byte(got.out), &document))
				return &document
			}
			assert.Equal(t, flat(print(outputJSON), once), flat(print(outputYAML), once))
		})
	}
}

// flat lists a document's fields and values in their order, or only the fields.
func flat(node *yaml.Node, onlyFields bool) (values []string) {
	values = append(values, node.ShortTag())
	if node.Kind == yaml.ScalarNode && !onlyFields {
		values = append(values, node.Value)
	}
	for i, child := range node.Content {
		isField := node.Kind == yaml.MappingNode && i%2 == 0
		values = append(values, flat(child, onlyFields && !isField)...)
	}
	return append(values, "end")
}
