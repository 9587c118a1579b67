package cli

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPolicyHistoryAndUndo(t *testing.T) {
	o := newOperator(t)
	assert.Equal(t, "The policy \"service/cart\" has no history.\n", o.ok("history", "cart"))
	assert.Contains(t, o.fails(exitFailure, "undo", "cart"), `there is nothing to undo: the policy "service/cart" has no history`)
	o.ok("set", "cart", "timeout.read=1s", "-m", "one")
	o.ok("set", "cart", "timeout.read=2s", "check=none", "-m", "two")
	o.ok("delete", "cart", "-m", "three")
	assert.Regexp(t, `^WRITE +WHEN +BY +HOW +WHY
3 +\S.* +\S+@\S+ +delete +three
2 +\S.* +\S+@\S+ +set +two
1 +\S.* +\S+@\S+ +set +one
$`, o.ok("history", "cart"))
	assert.Regexp(t, `^write 3, .* by \S+@\S+ \(delete\): three
  check         none -> not set
  timeout.read  2s -> not set
  the policy was deleted
write 2, .* \(set\): two
  check         not set -> none
  timeout.read  1s -> 2s
write 1, .*: one
  timeout.read  not set -> 1s
$`, o.ok("history", "cart", "--diff"))

	undo := func(want string, args ...string) {
		t.Helper()
		got := o.policy(append([]string{"undo", "cart"}, args...)...)
		require.Equal(t, exitOK, got.code, got.err)
		assert.Equal(t, want, got.out)
	}
	undo("service/cart would be created\n  check         not set -> none\n  timeout.read  not set -> 2s\n", "--dry-run")
	assert.Empty(t, o.stored("lb/service/cart"))
	undo("service/cart created\n  check         not set -> none\n  timeout.read  not set -> 2s\n", "-m", "needed")
	undo("service/cart deleted\n  check         none -> not set\n  timeout.read  2s -> not set\n")
	undo("service/cart created\n  check         not set -> none\n  timeout.read  not set -> 2s\n")
	undo("service/cart changed\n  check         none -> not set\n  timeout.read  2s -> 1s\n", "2")
	undo("service/cart deleted\n  timeout.read  1s -> not set\n", "1")
	undo("service/cart is unchanged: nothing was written\n", "1")
	assert.Contains(t, o.fails(exitUsage, "undo", "cart", "last"), `write "last": want a number`)
	assert.Contains(t, o.fails(exitFailure, "undo", "cart", "77"), "the history has the writes 1 to 8")
	got := o.policy("undo", "cart")
	assert.Regexp(t, `^undo of write 8, by \S+@\S+ at .* \(undo\)\n$`, got.err)
	got = o.policy("undo", "cart", "7", "--dry-run")
	assert.Regexp(t, `^undo of 3 writes, 7 to 9:
  write 9, by \S+@\S+ at .* \(undo\)
  write 8, by \S+@\S+ at .* \(undo\)
  write 7, by \S+@\S+ at .* \(undo\)
$`, got.err)
	assert.Equal(t, "needed", read[[]policyEntry](t, o.ok("history", "cart", "-o", "json"))[5].Why)

	o.byHand("lb/service/cart", `{"timeout.read": "9s"}`)
	assert.Contains(t, o.fails(exitFailure, "undo", "cart"), "it was changed without lbctl since that write")
	assert.Contains(t, o.ok("history", "cart", "--diff"), "  what it changed is not known, because the policy was then changed without lbctl\n")
	assert.Regexp(t, `^The policy was changed without lbctl after write \d+\.\n$`, o.policy("history", "cart").err)
}

func TestPolicyDelete(t *testing.T) {
	o := newOperator(t)
	assert.Contains(t, o.fails(exitFailure, "delete", "cart"), `there is no policy "service/cart"`)
	o.byHand("lb/service/cart", "broken")
	assert.Equal(t, "service/cart would be deleted\n", o.ok("delete", "cart", "--dry-run"))
	assert.Equal(t, "service/cart deleted\n", o.ok("delete", "cart"))
	assert.Empty(t, o.stored("lb/service/cart"))
}
