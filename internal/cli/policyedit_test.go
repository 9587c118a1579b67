package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/policy"
	"lbctl/internal/policy/policytest"
)

// edit runs "lbctl policy edit" with a script of the shell as the editor. The script gets the
// file's path in $f, and the number of the run in $n. edit returns the file of each run before and
// after the script.
func (o *operator) edit(name, script string, environ ...string) (got result, before, after []string) {
	o.t.Helper()
	dir := o.t.TempDir()
	editor := filepath.Join(dir, "editor")
	require.NoError(o.t, os.WriteFile(editor, []byte("#!/bin/sh\nf=$1\nn=$(($(ls "+dir+" | grep -c before) + 1))\ncp $f "+dir+"/$n.before\n"+script+"\nr=$?\ncp $f "+dir+"/$n.after\nexit $r\n"), 0o700))
	environ = append([]string{"EDITOR=" + editor, "PATH=" + os.Getenv("PATH"), "LBCTL_RUN_DIR=" + dir}, environ...)
	got = command(o.t.Context(), Terminal{}, environ, "policy", "edit", name, "-m", "by hand")
	all := func(suffix string) (texts []string) {
		paths, err := filepath.Glob(filepath.Join(dir, "*."+suffix))
		require.NoError(o.t, err)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(o.t, err)
			texts = append(texts, string(text))
		}
		return texts
	}
	return got, all("before"), all("after")
}

// tempFiles lists what edit left behind.
func tempFiles(t *testing.T) []string {
	files, err := filepath.Glob(filepath.Join(os.TempDir(), "lbctl-*.yaml"))
	require.NoError(t, err)
	return files
}

func TestPolicyEdit(t *testing.T) {
	o := newOperator(t)
	t.Setenv("TMPDIR", t.TempDir())
	o.ok("set", "default", "timeout.send=9s")
	o.ok("set", "cart", "timeout.read=1s")
	got, before, _ := o.edit("cart", `kill -INT $PPID; sed -i 's/1s/20s/' $f; echo 'check: grpc' >>$f`)
	assert.Equal(t, "service/cart changed\n  check         not set -> grpc\n  timeout.read  1s -> 20s\n", got.out)
	assert.Empty(t, got.err)
	assert.Equal(t, `# The policy "service/cart", in Consul's KV as lb/service/cart. Save the file to write it;
# leave it unchanged to write nothing. A line that begins with # is a comment.
# 'lbctl policy explain' lists the fields, 'lbctl policy explain timeout.read' documents one.
#
# Others say, the strongest last; what this policy says is stronger:
#   lb/default   timeout.send 9s
# No daemon answers, so what the service says of itself is not shown.

name: service/cart
timeout.read: 1s
`, before[0])
	assert.Empty(t, tempFiles(t), "a Ctrl-C in the editor is for the editor")
	write := read[[]policyEntry](t, o.ok("history", "cart", "-o", "json"))[0]
	assert.Equal(t, "edit by hand", write.Kind+" "+write.Why)

	got, _, _ = o.edit("cart", `true`)
	assert.Equal(t, result{err: "The file is unchanged: nothing was written.\n"}, got)
	got, _, _ = o.edit("cart", `echo '# a comment' >>$f`)
	assert.Equal(t, "service/cart is unchanged: nothing was written\n", got.out)
	got, _, _ = o.edit("cart", `: >$f`)
	assert.Contains(t, got.err, "The file is empty: nothing was written. 'lbctl policy delete service/cart' deletes the policy.")
	got, _, _ = o.edit("stock", `echo 'check: none' >>$f`)
	assert.Equal(t, "service/stock created\n  check  not set -> none\n", got.out)
	got, _, _ = o.edit("default", `sed -i 's/^timeout.*//' $f`)
	assert.Equal(t, "default deleted\n  timeout.send  9s -> not set\n", got.out, "nothing is left of it")
	got, _, _ = o.edit("cart", `echo 'min-instances: 2' >>$f`, "VISUAL=sh -c 'echo check: tcp >$0'")
	assert.Equal(t, "service/cart changed\n  check         grpc -> tcp\n  timeout.read  20s -> not set\n", got.out, "VISUAL comes before EDITOR, and may have arguments")
	got, _, _ = o.edit("cart", "true", "VISUAL=MORE=9 sh -c 'echo min-instances: $MORE >>$0'")
	assert.Equal(t, "service/cart changed\n  min-instances  not set -> 9\n", got.out)
	assert.Empty(t, tempFiles(t))
}

func TestPolicyEditShowsWhatTheServiceSays(t *testing.T) {
	o := newOperator(t)
	d := newFakeDaemon()
	d.entries[1].Policy = policy.Resolve(policytest.Layer(policy.LevelDefault, "lb/default", "timeout.read", "1s"), policytest.Layer(policy.LevelMetadata, policy.SourceMetadata, "check", "grpc"))
	runDir := d.start(t)
	_, before, _ := o.edit("shop", "true", "LBCTL_RUN_DIR="+runDir)
	assert.Contains(t, before[0], "\n#   metadata     check grpc\n")
	_, before, _ = o.edit("hello_server", "true", "LBCTL_RUN_DIR="+runDir)
	assert.Contains(t, before[0], "\n# Nobody else says anything about this service: what is built in holds.\n\nname: service/hello_server\n# timeout.read: 5s\n")
	_, before, _ = o.edit("cart", "true", "LBCTL_RUN_DIR="+runDir)
	assert.Contains(t, before[0], "\n# No service of that name is balanced now.\n")
}

// TestPolicyEditWithMistakes: the editor opens again with the mistakes at the top.
func TestPolicyEditWithMistakes(t *testing.T) {
	o := newOperator(t)
	t.Setenv("TMPDIR", t.TempDir())
	o.ok("set", "cart", "timeout.read=1s")
	got, before, _ := o.edit("cart", `case $n in
1) echo 'chek: grpc' >>$f; echo 'timeout.send: soon' >>$f ;;
2) sed -i 's/chek/check/' $f ;;
3) sed -i '/^timeout.send/d' $f ;;
esac`)
	assert.Equal(t, "service/cart changed\n  check  not set -> grpc\n", got.out)
	require.Len(t, before, 3)
	lines := strings.Split(before[1], "\n")
	assert.Equal(t, mistakeMark+"Nothing is written yet, because there are mistakes. Leave the file as it is to give up.", lines[0])
	for n, want := range []string{`unknown field "chek", did you mean check?`, `timeout.send "soon", want a duration from 10ms to 24h, such as 500ms, 5s or 2m`} {
		match := regexp.MustCompile(`^#!   line ([0-9]+): (.*)$`).FindStringSubmatch(lines[1+n])
		require.NotNil(t, match, lines[1+n])
		assert.Equal(t, want, match[2])
		assert.Equal(t, match[1], map[int]string{0: lineOf(lines, "chek: grpc"), 1: lineOf(lines, "timeout.send: soon")}[n])
	}
	assert.Equal(t, 2, strings.Count(before[2], mistakeMark), "the mistakes before are gone")
	assert.Empty(t, tempFiles(t))

	got, before, _ = o.edit("cart", `[ $n = 1 ] && echo 'chek: grpc' >>$f; true`)
	assert.Equal(t, exitFailure, got.code)
	assert.Len(t, before, 2, "an unchanged file gives up")
	assert.Contains(t, got.err, `unknown field "chek", did you mean check?`)
	left := tempFiles(t)
	require.Len(t, left, 1)
	assert.Contains(t, got.err, left[0], "it says where the text is")
	text, err := os.ReadFile(left[0])
	require.NoError(t, err)
	assert.Contains(t, string(text), "chek: grpc")

	got, before, _ = o.edit("cart", `echo "chek$n: grpc" >>$f`)
	assert.Equal(t, exitFailure, got.code)
	assert.Len(t, before, blindTries, "a script as the editor does not make mistakes for ever")
	assert.Contains(t, got.err, `unknown field "chek3"`)
}

func lineOf(lines []string, text string) string {
	for n, line := range lines {
		if line == text {
			return strconv.Itoa(n + 1)
		}
	}
	return "none"
}

func TestPolicyEditKeepsTheTextInAConflict(t *testing.T) {
	o := newOperator(t)
	t.Setenv("TMPDIR", t.TempDir())
	o.ok("set", "cart", "timeout.read=1s")
	opened, written := filepath.Join(t.TempDir(), "opened"), filepath.Join(t.TempDir(), "written")
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.Eventually(t, func() bool { _, err := os.Stat(opened); return err == nil }, patience, often)
		assert.Equal(t, exitOK, o.policy("set", "cart", "timeout.read=2s", "check=none", "-m", "theirs").code)
		assert.NoError(t, os.WriteFile(written, nil, 0o600))
	}()
	got, _, _ := o.edit("cart", `echo 'min-instances: 2' >>$f; touch `+opened+`; while ! [ -e `+written+` ]; do sleep 0.01; done`)
	<-done
	assert.Equal(t, exitFailure, got.code)
	assert.Regexp(t, `document "service/cart" was changed meanwhile, by \S+ at .* \(set\): "theirs": nothing was written\n +check +not set -> none\n +timeout.read +1s -> 2s\n`, got.err)
	left := tempFiles(t)
	require.Len(t, left, 1)
	assert.Contains(t, got.err, "your text is in "+left[0]+"; 'lbctl policy edit service/cart' begins with what Consul has now, and 'lbctl policy apply -f "+left[0]+"' writes your text instead of it")
	assert.Equal(t, "name: service/cart\ncheck: none\ntimeout.read: 2s\n", o.ok("get", "cart"))
	o.ok("apply", "-f", left[0])
	assert.Equal(t, "name: service/cart\nmin-instances: 2\ntimeout.read: 1s\n", o.ok("get", "cart"))
}

func TestPolicyEditOfWhatCantBeRead(t *testing.T) {
	o := newOperator(t)
	t.Setenv("TMPDIR", t.TempDir())
	o.byHand("lb/service/cart", "{\"timeout.read\": 5,\n \"check\": \"grpc\"}\n")
	got, before, _ := o.edit("cart", `sed -i 's/5,/"5s",/' $f`)
	assert.Contains(t, before[0], "#!   timeout.read \"5\", want a duration")
	assert.Contains(t, before[0], "\n{\"timeout.read\": 5,\n \"check\": \"grpc\"}\n")
	assert.Equal(t, exitOK, got.code, got.err)
	assert.Equal(t, "name: service/cart\ncheck: grpc\ntimeout.read: 5s\n", o.ok("get", "cart"))
}

func TestPolicyEditWithABrokenEditor(t *testing.T) {
	o := newOperator(t)
	t.Setenv("TMPDIR", t.TempDir())
	got, _, _ := o.edit("cart", "false")
	assert.Equal(t, exitFailure, got.code)
	assert.Contains(t, got.err, `: exit status 1`)
	assert.Empty(t, tempFiles(t), "nothing was typed")
	got, _, _ = o.edit("cart", "echo 'check: grpc' >>$f; false")
	left := tempFiles(t)
	require.Len(t, left, 1)
	assert.Contains(t, got.err, "nothing was written; your text is in "+left[0])
	got = command(t.Context(), Terminal{}, []string{"EDITOR=/no/such/editor", "PATH=" + os.Getenv("PATH")}, "policy", "edit", "cart")
	assert.Equal(t, exitFailure, got.code)
	assert.Contains(t, got.err, `run the editor "/no/such/editor": exit status 127`)
}
