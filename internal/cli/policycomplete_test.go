package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// complete returns the completions of a command line, and the directive's number.
func (o *operator) complete(args ...string) (words []string, directive string) {
	o.t.Helper()
	got := command(o.t.Context(), Terminal{}, nil, append([]string{"__complete", "policy"}, args...)...)
	require.Equal(o.t, exitOK, got.code, got.err)
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

func TestPolicyCompletion(t *testing.T) {
	o := newOperator(t)
	require.NoError(t, o.consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "default", Port: 80}))
	o.ok("set", "cart", "check=grpc", "timeout.read=1s", "-m", "one")
	o.ok("set", "cart", "timeout.send=1s", "--path", "/a")
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"get", ""}, []string{"cart\t3 fields", "consul\tno policy yet", "default\tthe policy of all services", "service/default\tno policy yet", "stock\tno policy yet"}},
		{[]string{"set", ""}, []string{"cart\t3 fields", "consul\tno policy yet", "default\tthe policy of all services", "service/default\tno policy yet", "stock\tno policy yet"}},
		{[]string{"history", ""}, []string{"cart\t3 fields"}},
		{[]string{"delete", "cart", ""}, nil},
		{[]string{"unset", "cart", ""}, []string{"check\tgrpc", "timeout.read\t1s", "timeout.send\t1s for /a"}},
		{[]string{"unset", "cart", "check", ""}, []string{"timeout.read\t1s", "timeout.send\t1s for /a"}},
		{[]string{"set", "cart", "endpoints="}, []string{"endpoints=auto", "endpoints=reload", "endpoints=default"}},
		{[]string{"set", "cart", "check="}, []string{"check=tcp", "check=http:/", "check=grpc", "check=grpc:", "check=none", "check=default"}},
		{[]string{"set", "cart", "nope="}, nil},
		{[]string{"set", "cart", "retry.on=error,http_50"}, []string{"retry.on=error,timeout", "retry.on=error,invalid_header", "retry.on=error,http_403", "retry.on=error,http_404",
			"retry.on=error,http_429", "retry.on=error,http_500", "retry.on=error,http_502", "retry.on=error,http_503", "retry.on=error,http_504"}},
		{[]string{"set", "cart", "--path", ""}, []string{"/a"}},
		{[]string{"unset", "cart", "--path", ""}, []string{"/a"}},
	} {
		words, _ := o.complete(tt.args...)
		assert.Equal(t, tt.want, append([]string(nil), words...), tt.args)
	}
	words, directive := o.complete("set", "cart", "check=grpc", "tim")
	assert.Contains(t, words, "timeout.read=\ta duration from 10ms to 24h, such as 500ms, 5s or 2m")
	assert.NotContains(t, strings.Join(words, "\n"), "check=")
	assert.Equal(t, ":38", directive, "no file, the order, and no space after =")
	words, _ = o.complete("set", "cart", "--path", "/a", "")
	assert.Contains(t, words, "timeout.read=\ta duration from 10ms to 24h, such as 500ms, 5s or 2m")
	assert.NotContains(t, strings.Join(words, "\n"), "check=", "it can't differ between paths")
	words, _ = o.complete("explain", "")
	assert.Contains(t, words, "timeout.read\ta duration from 10ms to 24h, such as 500ms, 5s or 2m")
	words, _ = o.complete("undo", "cart", "")
	require.Len(t, words, 2)
	assert.Regexp(t, `^1\tby \S+ at .* \(set\): "one"$`, words[1])
}

// TestPolicyCompletionWithoutConsul: a shell must not show an error, or wait.
func TestPolicyCompletionWithoutConsul(t *testing.T) {
	o := newOperator(t)
	o.consul.Stop()
	began := time.Now()
	words, _ := o.complete("set", "")
	assert.Empty(t, words)
	assert.Less(t, time.Since(began), patience)
	words, _ = o.complete("set", "cart", "timeout.re")
	assert.NotEmpty(t, words, "the fields are known without Consul")
}
