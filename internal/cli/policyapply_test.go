package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/kv"
)

// file writes a file and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestPolicyApply(t *testing.T) {
	o := newOperator(t)
	o.ok("set", "cart", "timeout.read=1s", "timeout.send=1s")
	const file = "testdata/policies.yaml"
	want := func(mood string) string {
		return "default " + mood + "created\n  timeout.connect  not set -> 200ms\n" +
			"service/cart " + mood + `changed
  min-instances                      not set -> 2
  timeout.read                       1s -> 5s
  timeout.send                       1s -> not set
  timeout.read for /shop.Cart/Watch  not set -> 1h
`
	}
	assert.Equal(t, want("would be "), o.ok("apply", "-f", file, "--dry-run"))
	assert.Empty(t, o.stored("lb/default"))
	assert.Equal(t, want(""), o.ok("apply", "-f", file, "-m", "as reviewed"))
	assert.Equal(t, "2 policies are unchanged\n", o.ok("apply", "-f", file))
	writes := read[[]policyEntry](t, o.ok("history", "cart", "-o", "json"))
	require.Len(t, writes, 2)
	assert.Equal(t, "apply as reviewed", writes[0].Kind+" "+writes[0].Why)

	backup := o.ok("get")
	assert.Equal(t, 2, strings.Count(backup, "name: "))
	o.ok("delete", "cart")
	o.ok("set", "default", "timeout.connect=1s")
	for _, text := range []string{backup, o.ok("get", "-o", "json"), o.ok("get", "-o", "yaml")} {
		o.in = text
		o.ok("apply", "-f", "-")
	}
	o.in = backup
	o.ok("apply", "-f", "-")
	assert.Equal(t, backup, o.ok("get"))
}

func TestPolicyApplyOfADirectory(t *testing.T) {
	o := newOperator(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.yaml": "name: cart\ncheck: grpc\n", "b.json": `{"name": "stock", "check": "none"}`, "c.yml": "name: default\ncheck: tcp\n",
		"README.md": "no policy",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "d.yaml"), 0o700))
	assert.Equal(t, 3, strings.Count(o.ok("apply", "-f", dir), " created\n"))
	assert.Contains(t, o.fails(exitFailure, "apply", "-f", t.TempDir()), "has no .yaml, .yml or .json file")
}

func TestPolicyApplyWithMistakes(t *testing.T) {
	o := newOperator(t)
	good := file(t, "good.yaml", "name: cart\ncheck: grpc\n")
	bad := file(t, "bad.yaml", "name: stock\nchek: grpc\n---\nname: default\ntimeout.read: 5\n---\nname: service/cart\n")
	got := o.policy("apply", "-f", good, "-f", bad, "-f", "no-such-file")
	assert.Equal(t, exitFailure, got.code)
	assert.Equal(t, fmt.Sprintf(`lbctl: nothing was written, because the files have mistakes:
  %[1]s:2: unknown field "chek", did you mean check?
  %[1]s:5: timeout.read "5", want a duration from 10ms to 24h, such as 500ms, 5s or 2m
  %[1]s:7: a second document "service/cart", the first is %[2]s:1
  stat no-such-file: no such file or directory
`, bad, good), got.err)
	assert.Equal(t, "[]\n", o.ok("get", "-o", "json"))
	assert.Contains(t, o.fails(exitUsage, "apply"), "-f is missing")
	assert.Contains(t, o.fails(exitFailure, "apply", "-f", "-"), "the files have no policy")
}

// TestPolicyApplyOfMany applies more policies than a transaction can have.
func TestPolicyApplyOfMany(t *testing.T) {
	o := newOperator(t)
	var text strings.Builder
	for n := range 2*kv.MaxEdits + 3 {
		fmt.Fprintf(&text, "---\nname: s%03d\ncheck: none\n", n)
	}
	o.in = text.String()
	got := o.policy("apply", "-f", "-", "-o", "json")
	require.Equal(t, exitOK, got.code, got.err)
	assert.Equal(t, 67, read[policyResult](t, got.out).Changed)
	assert.Len(t, read[[]listedPolicy](t, o.ok("list", "-o", "json")), 67)
}

func TestTransactionsFit(t *testing.T) {
	edit := func(size int) kv.Edit { return kv.Edit{Value: make([]byte, size)} }
	assert.Len(t, transaction([]kv.Edit{edit(kv.MaxDocument), edit(kv.MaxDocument), edit(kv.MaxDocument), edit(1)}), 2)
	assert.Len(t, transaction([]kv.Edit{edit(kv.MaxTransaction), edit(1)}), 1)
	assert.Len(t, transaction(make([]kv.Edit, 40)), kv.MaxEdits)
	assert.Len(t, transaction(make([]kv.Edit, 3)), 3)
}

// TestPolicyApplyReplacesWhatCantBeRead: a policy that somebody broke by hand is no obstacle.
func TestPolicyApplyReplacesWhatCantBeRead(t *testing.T) {
	o := newOperator(t)
	o.byHand("lb/service/cart", "{")
	o.ok("apply", "-f", file(t, "cart.yaml", "name: cart\ncheck: grpc\n"))
	assert.Equal(t, "name: service/cart\ncheck: grpc\n", o.ok("get", "cart"))
	got := o.policy("undo", "cart")
	assert.Equal(t, exitOK, got.code)
	assert.Contains(t, got.err, "was written without lbctl then, and can't be read")
	assert.Equal(t, "{", o.stored("lb/service/cart"))
}
