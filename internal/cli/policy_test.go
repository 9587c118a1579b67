package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/kv"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policytest"
	"lbctl/internal/render"
)

// operator runs commands about policies against a Consul of its own.
type operator struct {
	t      *testing.T
	consul *consultest.Server
	in     string // the standard input
}

// newOperator starts a Consul that has the services cart and stock.
func newOperator(t *testing.T) *operator {
	o := &operator{t: t, consul: consultest.Start(t)}
	t.Setenv("CONSUL_HTTP_ADDR", o.consul.Addr)
	for _, name := range []string{"cart", "stock"} {
		require.NoError(t, o.consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: name, Port: 80}))
	}
	return o
}

// policy runs "lbctl policy" with arguments.
func (o *operator) policy(args ...string) result {
	var out, err strings.Builder
	code := Main(o.t.Context(), System{
		Args: append([]string{"policy"}, args...), In: strings.NewReader(o.in), Out: &out, Err: &err,
		Now: func() time.Time { return now },
	})
	return result{out.String(), err.String(), code}
}

// ok runs "lbctl policy", which must work and say nothing else, and returns what it prints.
func (o *operator) ok(args ...string) string {
	o.t.Helper()
	got := o.policy(args...)
	require.Equal(o.t, exitOK, got.code, got.err)
	require.Empty(o.t, got.err)
	return got.out
}

// fails runs "lbctl policy", which must fail with a code and print nothing, and returns what it says.
func (o *operator) fails(code int, args ...string) string {
	o.t.Helper()
	got := o.policy(args...)
	assert.Equal(o.t, code, got.code, got.out)
	assert.Empty(o.t, got.out)
	return got.err
}

// byHand writes a key without lbctl.
func (o *operator) byHand(key, value string) {
	o.t.Helper()
	_, err := o.consul.Client().KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil)
	require.NoError(o.t, err)
}

// stored is a key's value, "" if there is none.
func (o *operator) stored(key string) string {
	o.t.Helper()
	pair, _, err := o.consul.Client().KV().Get(key, nil)
	require.NoError(o.t, err)
	if pair == nil {
		return ""
	}
	return string(pair.Value)
}

// read decodes a document of -o json.
func read[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	require.NoError(t, json.Unmarshal([]byte(text), &v), text)
	return v
}

func TestPolicySetAndUnset(t *testing.T) {
	o := newOperator(t)
	step := func(want string, args ...string) { t.Helper(); assert.Equal(t, want, o.ok(args...)) }
	step("service/cart created\n  min-instances  not set -> 2\n  timeout.read   not set -> 5s\n",
		"set", "cart", "timeout.read=5000ms", "min-instances=2", "-m", "slow disk")
	assert.Equal(t, "{\n  \"min-instances\": 2,\n  \"timeout.read\": \"5s\"\n}", o.stored("lb/service/cart"))
	step("service/cart changed\n  timeout.read  5s -> 10s\n", "set", "service/cart", "timeout.read=10s")
	step("service/cart changed\n  timeout.read for /shop.Cart/Watch  not set -> 1h\n", "set", "cart", "timeout.read=1h", "--path", "/shop.Cart/Watch")
	step("name: service/cart\nmin-instances: 2\ntimeout.read: 10s\npaths:\n  /shop.Cart/Watch:\n    timeout.read: 1h\n", "get", "cart")

	index := read[[]policyEntry](t, o.ok("history", "cart", "-o", "json"))[0].Number
	step("service/cart is unchanged: nothing was written\n", "set", "cart", "timeout.read=10000ms", "min-instances=2")
	step("service/cart would be changed\n  min-instances  2 -> default\n", "set", "cart", "min-instances=default", "--dry-run")
	assert.Equal(t, index, read[[]policyEntry](t, o.ok("history", "cart", "-o", "json"))[0].Number, "nothing was written")

	got := o.policy("unset", "cart", "timeout.send", "timeout.read", "--path", "/shop.Cart/Watch")
	assert.Equal(t, "service/cart does not set timeout.send for /shop.Cart/Watch\n", got.err)
	assert.Equal(t, "service/cart changed\n  timeout.read for /shop.Cart/Watch  1h -> not set\n", got.out)
	step("service/cart deleted\n  min-instances  2 -> not set\n  timeout.read   10s -> not set\n", "unset", "cart", "min-instances", "timeout.read")
	assert.Empty(t, o.stored("lb/service/cart"))
	step("default created\n  timeout.read  not set -> 1m\n", "set", "default", "timeout.read=1m")
	assert.NotEmpty(t, o.stored("lb/default"))

	result := read[policyResult](t, o.ok("set", "default", "timeout.read=2m", "-o", "json"))
	assert.Equal(t, policyResult{Changed: 1, Documents: []changedPolicy{{
		Name: "default", Key: "lb/default", Action: policyChanged,
		Differences: []policy.Difference{{Field: "timeout.read", Before: "1m", After: "2m"}},
	}}}, result)
	assert.Empty(t, read[policyResult](t, o.ok("set", "default", "timeout.read=2m", "-o", "json")).Changed)
}

func TestPolicyMistakes(t *testing.T) {
	o := newOperator(t)
	text := o.fails(exitUsage, "set", "cart", "timeout.read=soon", "timeout.raed=1s", "foo", "timeout.send", "timeout=1s", "check=grpc", "check=tcp")
	for _, want := range []string{
		"6 mistakes in the settings:",
		`timeout.read "soon", want a duration from 10ms to 24h`,
		`unknown field "timeout.raed", did you mean timeout.read?`,
		`"foo", want FIELD=VALUE`,
		"timeout.send has no value, want timeout.send=VALUE with a duration",
		`"timeout" is not a field, want one of timeout.connect, timeout.read, timeout.send`,
		"check is there twice",
	} {
		assert.Contains(t, text, want)
	}
	assert.Contains(t, o.fails(exitUsage, "unset", "cart", "timeout.raed", "chek"), "did you mean timeout.read?\n  unknown field \"chek\", did you mean check?")
	assert.Contains(t, o.fails(exitUsage, "set", "cart", "check=grpc", "--path", "/api"), "check can't differ between the paths")
	assert.Contains(t, o.fails(exitUsage, "set", "cart", "timeout.read=1s", "--path", "api"), `--path "api": want a path like "/api"`)
	assert.Contains(t, o.fails(exitUsage, "set", "a/b", "timeout.read=1s"), `"a/b" is no name of a policy, want "default", or a service as "cart"`)
	assert.Contains(t, o.fails(exitUsage, "set", "cart"), `takes the name of a policy and FIELD=VALUE, got "cart"`)
	assert.Contains(t, o.fails(exitUsage, "sett", "cart"), `Did you mean "set"?`)
	assert.Contains(t, o.fails(exitUsage, "list", "--kv-prefix", "a b"), `--kv-prefix "a b": want up to 100 letters`)
	assert.Contains(t, o.fails(exitFailure, "get", "cart"), `there is no policy "service/cart"; 'lbctl policy set service/cart FIELD=VALUE' makes it`)
	o.ok("set", "cart", "check=tcp")
	assert.Contains(t, o.fails(exitFailure, "get", "crat"), `there is no policy "service/crat", did you mean "service/cart"?`)
	assert.Contains(t, o.fails(exitUsage, "get", "cart", "--path", "/a"), "--path wants --effective")
	assert.Contains(t, o.fails(exitUsage, "get", "default", "--effective"), "--effective is for one service")
}

func TestPolicyOfAnUnknownService(t *testing.T) {
	o := newOperator(t)
	got := o.policy("set", "stok", "timeout.read=1s")
	assert.Equal(t, exitOK, got.code)
	assert.Equal(t, "warning: Consul has no service \"stok\" (did you mean \"stock\"?): its policy has no effect until it comes\n", got.err)
	assert.NotEmpty(t, o.stored("lb/service/stok"))
	assert.Contains(t, o.ok("list"), "lb/service/stok: it matches nothing: Consul has no service stok\n")
}

func TestPolicyList(t *testing.T) {
	o := newOperator(t)
	assert.Contains(t, o.ok("list"), "There is no policy")
	o.ok("set", "default", "timeout.read=1s", "timeout.send=1s", "-m", "slow disk")
	o.ok("set", "cart", "timeout.read=1s")
	o.byHand("lb/service/stock", `{"timeout.read": 5, "timeout.raed": "1s"}`)
	o.byHand("lb/services/cart", `{}`)
	listed := read[[]listedPolicy](t, o.ok("list", "-o", "json"))
	require.Len(t, listed, 4)
	for n, want := range []string{"default 2 []", "service/cart 1 []",
		`service/stock 0 [timeout.read "5", want a duration from 10ms to 24h, such as 500ms, 5s or 2m unknown field "timeout.raed", did you mean timeout.read?]`,
		`services/cart 0 [it is no policy: want the key of "default" or of "service/NAME"]`} {
		p := listed[n]
		assert.Equal(t, want, fmt.Sprint(p.Name, " ", p.Fields, " ", p.Problems))
		if assert.Equal(t, n < 2, p.Last != nil, "who wrote what was written by hand is not known") && n < 2 {
			assert.Regexp(t, `^\S+@\S+$`, p.Last.By)
			assert.WithinDuration(t, time.Now(), p.Last.When, time.Minute)
		}
	}
	assert.Equal(t, "slow disk", listed[0].Last.Why)
	text := o.ok("list")
	assert.Regexp(t, `(?m)^default +2 .* slow disk$`, text)
	assert.Regexp(t, `(?m)^service/stock +0 +- +without lbctl +-$`, text)
	assert.Contains(t, text, "\nlb/service/stock: unknown field \"timeout.raed\", did you mean timeout.read?\n")
	o.byHand("lb/service/cart", `{"timeout.read": "2s"}`)
	assert.Nil(t, read[[]listedPolicy](t, o.ok("list", "-o", "json"))[1].Last, "it was changed without lbctl since")
}

func TestPolicyGetOfAll(t *testing.T) {
	o := newOperator(t)
	assert.Equal(t, "[]\n", o.ok("get", "-o", "json"))
	assert.Empty(t, o.ok("get"))
	o.ok("set", "default", "timeout.read=1s")
	o.ok("set", "cart", "check=none")
	assert.Equal(t, "name: default\ntimeout.read: 1s\n---\nname: service/cart\ncheck: none\n", o.ok("get"))
	o.byHand("lb/service/stock", "{")
	got := o.policy("get")
	assert.Equal(t, exitFailure, got.code)
	assert.Contains(t, got.out, "name: service/cart\n", "the others are there")
	assert.Contains(t, got.err, "lb/service/stock can't be read and is left out:\n  not a JSON object: it ends too early")
	assert.Contains(t, o.fails(exitFailure, "get", "stock"), "'lbctl policy edit service/stock' mends it, and 'lbctl policy delete service/stock' removes it")
	assert.Contains(t, o.fails(exitFailure, "set", "stock", "check=tcp"), "lb/service/stock in Consul can't be read")
	assert.Equal(t, "{", o.stored("lb/service/stock"))
}

func TestPolicyPrefix(t *testing.T) {
	o := newOperator(t)
	o.ok("set", "cart", "check=none", "--kv-prefix", "shop/lb")
	assert.NotEmpty(t, o.stored("shop/lb/service/cart"))
	got := command(t.Context(), Terminal{}, []string{"LBCTL_KV_PREFIX=shop/lb"}, "policy", "get", "cart")
	assert.Equal(t, "name: service/cart\ncheck: none\n", got.out)
}

func TestPolicyGetEffective(t *testing.T) {
	d := newFakeDaemon()
	document := policytest.Layer(policy.LevelService, "lb/service/shop", "timeout.read", "5s")
	require.NoError(t, document.Document.SetAt("/api", "timeout.send", "9s"))
	d.entries[1].Policy = policy.Resolve(policytest.Layer(policy.LevelDefault, "lb/default", "timeout.read", "1s", "timeout.send", "2s"), document)
	d.status.Problems = []render.Problem{
		{Subject: "service shop", Message: "its own"},
		{Subject: "service shop", Message: "metadata: sticky.ttl 1h: it has no effect without sticky.cookie", Sources: []string{"metadata"}},
		{Subject: "service hello_server", Message: "another one's", Sources: []string{"metadata"}},
	}
	environ := []string{"LBCTL_RUN_DIR=" + d.start(t)}
	lbctl := func(args ...string) result {
		return command(t.Context(), Terminal{}, environ, append([]string{"policy", "get", "--effective"}, args...)...)
	}
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"shop", "--all"}, []string{"check +tcp +built in", "timeout.read +5s +lb/service/shop", "timeout.send +2s +lb/default", "These paths have settings of their own, which --path shows:", "  /api\n\nProblems\n  metadata: sticky.ttl 1h: it has no effect without sticky.cookie\n\\z"}},
		{[]string{"shop"}, []string{"FIELD +VALUE +FROM\ntimeout.read +5s +lb/service/shop\ntimeout.send +2s +lb/default\n\nAll other fields are as built in; --all shows them."}},
		{[]string{"hello_server"}, []string{"All fields are as built in; --all shows them."}},
		{[]string{"shop", "--path", "/api/v2"}, []string{"timeout.read +5s +lb/service/shop", "timeout.send +9s +lb/service/shop for /api"}},
	} {
		got := lbctl(tt.args...)
		require.Equal(t, exitOK, got.code, got.err)
		for _, want := range tt.want {
			assert.Regexp(t, "(?m)^"+want+"$", got.out)
		}
	}
	golden(t, "policy-effective-unknown", "lbctl policy get --effective shoop", lbctl("shoop"))
	golden(t, "policy-effective-unserved", "lbctl policy get --effective strange", lbctl("strange"))
	got := command(t.Context(), Terminal{}, []string{"LBCTL_RUN_DIR=" + shortDir(t)}, "policy", "get", "--effective", "shop")
	assert.Equal(t, exitUnreachable, got.code)
	assert.Contains(t, got.err, "only the daemon knows what holds for a service: no daemon answered")
}

func TestPolicyWithoutRights(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	t.Setenv("CONSUL_HTTP_ADDR", consul.Addr)
	o := &operator{t: t, consul: consul}
	as := func(rules string) { t.Setenv("CONSUL_HTTP_TOKEN", consul.NewToken(rules)) }

	as(`key_prefix "lb" { policy = "read" }`)
	assert.Equal(t, "", o.ok("get"))
	assert.Contains(t, o.fails(exitFailure, "set", "cart", "check=tcp"), `the token wants the rule key_prefix "lb/" { policy = "write" }`)
	as(`key_prefix "lb" { policy = "write" }`)
	o.ok("set", "cart", "check=tcp") // no warning: what services there are is not known
	as(`service_prefix "" { policy = "read" }`)
	assert.Contains(t, o.fails(exitFailure, "list"), `the token wants the rule key_prefix "lb/" { policy = "read" }`)
	as(`key_prefix "lb" { policy = "read" }`)
	assert.Contains(t, o.ok("list"), "service/cart")
	assert.NotContains(t, o.ok("list"), "matches nothing")
	as(`key_prefix "lb/" { policy = "read" }`)
	got := o.policy("list")
	assert.Equal(t, exitOK, got.code)
	assert.Contains(t, got.err, `who wrote them is not known: `)
	assert.Regexp(t, `(?m)^service/cart +1 +- +- +-$`, got.out)
	t.Setenv("CONSUL_HTTP_TOKEN", "")
	assert.Contains(t, o.fails(exitFailure, "list"), `the token wants the rule key_prefix "lb/" { policy = "read" }`)
}

// TestTwoOperatorsLoseNothing has operators set the same field at once. Each gets its write, or a
// conflict; the history has all writes.
func TestTwoOperatorsLoseNothing(t *testing.T) {
	o := newOperator(t)
	const operators, each = 3, 5
	var writes, conflicts atomic.Int32
	var group sync.WaitGroup
	for n := range operators {
		group.Go(func() {
			for i := range each {
				got := o.policy("set", "cart", fmt.Sprintf("timeout.read=%dms", 100*(n+1)+i))
				if got.code == exitOK {
					writes.Add(1)
					continue
				}
				conflicts.Add(1)
				assert.Equal(t, exitFailure, got.code)
				assert.Regexp(t, `document "service/cart" was (changed|created) meanwhile, by \S+ at .* \(set\): nothing was written\n  +timeout.read  (\S+|not set) -> \S+\n`, got.err)
			}
		})
	}
	group.Wait()
	store, err := kv.Open(&api.Config{Address: o.consul.Addr}, kv.DefaultPrefix)
	require.NoError(t, err)
	entries, err := store.History(t.Context(), "service/cart")
	require.NoError(t, err)
	assert.Len(t, entries, int(writes.Load()))
	t.Logf("%d writes, %d conflicts", writes.Load(), conflicts.Load())
}

func TestPolicyExplain(t *testing.T) {
	explain := func(terminal Terminal, args ...string) result {
		return command(t.Context(), terminal, nil, append([]string{"policy", "explain"}, args...)...)
	}
	golden(t, "policy-explain-field", "lbctl policy explain timeout.read", explain(narrow, "timeout.read"))
	golden(t, "policy-explain-mistyped", "lbctl policy explain timeout.raed", explain(Terminal{}, "timeout.raed"))
	all := explain(Terminal{})
	for _, f := range policy.Fields() {
		assert.Contains(t, all.out, "\n"+f.Name+" ")
	}
	group := read[[]explainedField](t, explain(Terminal{}, "timeout", "-o", "json").out)
	require.Len(t, group, 3)
	assert.Equal(t, "timeout.connect", group[0].Name)
	assert.Equal(t, "lb-timeout-connect", group[0].MetadataKey)
}
