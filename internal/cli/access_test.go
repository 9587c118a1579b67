package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/kv"
)

// inConsul runs command lines against a Consul of its own.
func inConsul(t *testing.T, opts ...consultest.Option) (*consultest.Server, func(line string) result) {
	t.Helper()
	consul := consultest.Start(t, opts...)
	t.Setenv("CONSUL_HTTP_ADDR", consul.Addr)
	return consul, func(line string) result {
		return command(t.Context(), Terminal{}, os.Environ(), strings.Fields(line)...)
	}
}

var byWhom = regexp.MustCompile(`[a-z0-9]+@[A-Za-z0-9.-]+`)

func TestDenyAndAllow(t *testing.T) {
	consul, do := inConsul(t)
	const still = "203.0.113.9 is still denied for cart.\n203.0.113.9 is still denied for web.\n'lbctl allow 203.0.113.0/24 --service cart,web' lets it in there.\n"
	for _, step := range []struct {
		line, want string
		code       int
	}{
		{"access list", "No network is denied.\n", 0},
		{"allow 203.0.113.0/24", "Nothing changes: the networks are not denied.\n", 0},
		{"deny 203.0.113.0/24 --for 1h -m scan", "203.0.113.0/24 is denied for every service, until 10:16:30.\n", 0},
		{"deny 203.0.113.9 2001:db8::1 --service cart,web", "203.0.113.9 is denied for cart.\n203.0.113.9 is denied for web.\n2001:db8::1 is denied for cart.\n2001:db8::1 is denied for web.\n", 0},
		{"allow 203.0.113.7", "203.0.113.7 is allowed for every service, until 10:16:30.\n", 0},
		{"access list", `NETWORK         ACCESS   SERVICE  UNTIL     BY         WHY
203.0.113.0/24  denied   every    10:16:30  ME  scan
203.0.113.7     allowed  every    10:16:30  ME  -
203.0.113.9     denied   cart     for ever  ME  -
203.0.113.9     denied   web      for ever  ME  -
2001:db8::1     denied   cart     for ever  ME  -
2001:db8::1     denied   web      for ever  ME  -
`, 0},
		{"access check 203.0.113.8", "203.0.113.8 is denied for every service: 203.0.113.0/24 is denied for every service, until 10:16:30, by ME at 09:16:30, \"scan\".\n", 3},
		{"access check 203.0.113.7", "203.0.113.7 is let in for every service: 203.0.113.7 is allowed for every service, until 10:16:30, by ME at 09:16:30.\n", 0},
		{"access check 198.51.100.1", "198.51.100.1 is let in for every service: no rule is about it.\n", 0},
		{"allow 203.0.113.0/24", "203.0.113.0/24 is no longer denied for every service.\n203.0.113.7 is no longer allowed for every service.\n" + still, 0},
		{"allow 203.0.113.0/24", "Nothing changes: no rule for every service denies the networks.\n" + still, 0},
		{"access check 203.0.113.9", "203.0.113.9 is let in for every service but cart, web: no rule is about it.\n203.0.113.9 is denied for cart: 203.0.113.9 is denied for cart, by ME at 09:16:30.\n203.0.113.9 is denied for web: 203.0.113.9 is denied for web, by ME at 09:16:30.\n", 3},
		{"allow 203.0.113.0/24 --service cart", "203.0.113.9 is no longer denied for cart.\n", 0},
		{"allow 10.0.0.0/8 --only --service admin", "0.0.0.0/0 is denied for admin.\n10.0.0.0/8 is allowed for admin.\n::/0 is denied for admin.\n", 0},
		{"access check 192.0.2.1 --service admin,other", "192.0.2.1 is denied for admin: 0.0.0.0/0 is denied for admin, by ME at 09:16:30.\n192.0.2.1 is let in for other: no rule is about it.\n", 3},
		{"allow all --service admin", "0.0.0.0/0 is no longer denied for admin.\n10.0.0.0/8 is no longer allowed for admin.\n::/0 is no longer denied for admin.\n", 0},
	} {
		got := do(step.line)
		require.Equal(t, step.code, got.code, "%s: %s", step.line, got.err)
		found := byWhom.ReplaceAllString(got.out, "ME")
		found = regexp.MustCompile(`(BY|ME) +(WHY|scan|-)`).ReplaceAllString(found, "$1  $2")
		assert.Equal(t, strings.ReplaceAll(step.want, "BY         WHY", "BY  WHY"), found, step.line)
	}
	var rules []shownRule
	require.NoError(t, json.Unmarshal([]byte(do("access list -o json").out), &rules))
	require.Len(t, rules, 3)
	assert.Equal(t, "denied", rules[0].Access)
	pairs, _, err := consul.Client().KV().List("lb-access/networks/", nil)
	require.NoError(t, err)
	assert.Len(t, pairs, 2, "documents without rules are deleted")

	_, err = consul.Client().KV().Put(&api.KVPair{Key: "lb-access/networks/00", Value: []byte(`{"networks": {"x": []}}`)}, nil)
	require.NoError(t, err)
	const broken = `key "lb-access/networks/00" in Consul can't be read: network "x": want an address or a network, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32: mend it, or delete it with 'consul kv delete lb-access/networks/00'` + "\n"
	got := do("deny 203.0.113.0/24")
	assert.Equal(t, 0, got.code, "the rules of other networks can be changed")
	assert.Equal(t, "warning: its rules stay as they are: "+broken, got.err)
	got = do("access list")
	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.out, "203.0.113.0/24", "the others are listed")
	assert.Equal(t, "lbctl: "+broken, got.err)
	got = do("access check 203.0.113.1")
	assert.Equal(t, 1, got.code, "a rule that can't be read may say otherwise")
	assert.Contains(t, got.out, "203.0.113.1 is denied for every service")
	assert.Equal(t, "lbctl: "+broken, got.err)
	_, err = consul.Client().KV().Put(&api.KVPair{Key: pairs[0].Key, Value: []byte("garbage")}, nil)
	require.NoError(t, err)
	got = do("deny 203.0.113.9 2001:db8::1")
	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.err, fmt.Sprintf("key %q in Consul can't be read", pairs[0].Key), "a rule belongs into it")
}

func TestMistakesInNetworks(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1") // none of them asks Consul
	for line, want := range map[string]string{
		"deny":                                            "no networks, want at least one",
		"deny 203.0.113.7/24 example.com":                 "2 mistakes in flags and environment:\n  network \"203.0.113.7/24\" has bits beyond its length, want 203.0.113.0/24 or another length\n  network \"example.com\": want an address",
		"deny 203.0.113.7 --for 5":                        `--for "5": want a duration of at least 1m, such as 90s`,
		"deny 203.0.113.7 --service a;b":                  `--service "a;b": service "a;b": want up to 255 letters`,
		"deny 203.0.113.7 --kv-prefix /x":                 `--kv-prefix "/x": want up to 100 letters`,
		"allow 10.0.0.0/8 --only":                         "name it with --service",
		"access check":                                    "takes one IP address, got nothing",
		"access chek":                                     `there is no command "chek"`,
		"deny 203.0.113.7 -m " + strings.Repeat("x", 201): "want one line of at most 200 characters",
	} {
		got := command(t.Context(), Terminal{}, nil, strings.Fields(line)...)
		assert.Equal(t, exitUsage, got.code, line)
		assert.Contains(t, got.err, want, line)
	}
	got := command(t.Context(), Terminal{}, nil, "deny", "all")
	assert.Equal(t, exitFailure, got.code)
	assert.Contains(t, got.err, "this would deny everybody every service: name services with --service")
}

func TestAccessHistory(t *testing.T) {
	consul, do := inConsul(t)
	assert.Equal(t, "No command has changed rules or keys yet.\n", do("access history").out)
	for _, line := range []string{
		"deny 203.0.113.0/24 --for 1h -m scan",
		"deny 203.0.113.0/24 -m again",
		"allow 203.0.113.0/24 -m mistake",
		"allow 203.0.113.0/24", // changes nothing
		"allow 10.0.0.0/8 --service admin --only",
		"key create shop --services cart,web --for 2160h",
		"key revoke shop -m leaked",
	} {
		require.Equal(t, 0, do(line).code, line)
	}
	got := do("access history")
	found := regexp.MustCompile(`(?m)^.* ago  \S+  +`).ReplaceAllString(got.out, "")
	assert.Equal(t, `key revoke    key shop is revoked: leaked
key create    key shop is good for cart, web, until 2027-02-19 09:16:30
allow --only  0.0.0.0/0 is denied for admin, 10.0.0.0/8 is allowed for admin, ::/0 is denied for admin
allow         203.0.113.0/24 is no longer denied for every service: mistake
deny          203.0.113.0/24 is denied for every service: again
deny          203.0.113.0/24 is denied for every service, until 10:16:30: scan
`, found[strings.Index(found, "\n")+1:])
	assert.Equal(t, "4 more: --limit 6 shows all\n", do("access history --limit 2").err)
	var entries []accessEntry
	require.NoError(t, json.Unmarshal([]byte(do("access history -o json").out), &entries))
	require.Len(t, entries, 6)
	assert.Equal(t, "leaked", entries[0].Why)
	assert.Equal(t, "key revoke", entries[0].Command)
	assert.Equal(t, []string{"cart", "web"}, entries[0].Key.Services)
	assert.Equal(t, []int{0, 1}, []int{entries[3].Added, entries[3].Removed})
	pairs, _, err := consul.Client().KV().List("lb-history/", nil)
	require.NoError(t, err)
	for _, p := range pairs {
		assert.NotContains(t, string(p.Value), "sha256", "the history has no hash of a key")
	}
}

// TestManyNetworks denies 100,000 networks from a file, changes one of them, and lets all in again.
func TestManyNetworks(t *testing.T) {
	consul, do := inConsul(t)
	var text strings.Builder
	text.WriteString("# a feed\n\n")
	const n = 100_000
	for k := range n {
		fmt.Fprintf(&text, "%d.%d.%d.0/24  # number %d\n", 11+k>>16, k>>8&255, k&255, k)
	}
	file := filepath.Join(t.TempDir(), "networks.txt")
	require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o644))
	began := time.Now()
	got := do("deny -f " + file + " --for 1h -m feed")
	require.Equal(t, 0, got.code, got.err)
	t.Logf("denied in %s", time.Since(began))
	assert.Contains(t, got.out, "11.0.0.0/24 is denied for every service, until 10:16:30.\n")
	assert.Contains(t, got.out, "And 99980 more.\n")
	pairs, _, err := consul.Client().KV().List("lb-access/networks/", nil)
	require.NoError(t, err)
	assert.Len(t, pairs, 256)

	began = time.Now()
	require.Equal(t, 0, do("allow 11.0.0.0/24").code)
	t.Logf("allowed one in %s", time.Since(began))
	var rules []shownRule
	require.NoError(t, json.Unmarshal([]byte(do("access list -o json").out), &rules))
	assert.Len(t, rules, n-1)
	require.Equal(t, 0, do("allow -f "+file).code)
	assert.Contains(t, do("access history --limit 1").out, "11.0.4.0/24 is no longer denied for every service, and 99995 more")
	assert.Equal(t, "No network is denied.\n", do("access list").out)
}

// TestOperatorsAtOnceLoseNoRule has several operators deny networks that are all in one document.
func TestOperatorsAtOnceLoseNoRule(t *testing.T) {
	_, do := inConsul(t)
	const operators, each = 4, 8
	var group sync.WaitGroup
	for n := range operators {
		group.Go(func() {
			for k := range each {
				got := do(fmt.Sprintf("deny 203.0.113.7 --service s%d-%d", n, k))
				assert.Equal(t, 0, got.code, got.err)
				assert.Equal(t, fmt.Sprintf("203.0.113.7 is denied for s%d-%d.\n", n, k), got.out, "not also what others did meanwhile")
			}
		})
	}
	group.Wait()
	var rules []shownRule
	require.NoError(t, json.Unmarshal([]byte(do("access list -o json").out), &rules))
	assert.Len(t, rules, operators*each)
}

func TestTokensForAccess(t *testing.T) {
	consul, do := inConsul(t, consultest.ACL())
	t.Setenv("CONSUL_HTTP_TOKEN", consul.NewToken(`key_prefix "lb-access/" { policy = "read" }`))
	got := do("deny 203.0.113.7")
	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.err, `the token wants the rule key_prefix "lb-access/" { policy = "write" }`)
	assert.Equal(t, "No network is denied.\n", do("access list").out)
	t.Setenv("CONSUL_HTTP_TOKEN", consul.NewToken(`key_prefix "lb-access/" { policy = "write" }`))
	assert.Contains(t, do("deny 203.0.113.7").err, `the token wants the rule key_prefix "lb-history/" { policy = "write" }`)
	for _, line := range []string{"access list", "access check 203.0.113.7", "key list", "policy list"} {
		t.Setenv("CONSUL_HTTP_TOKEN", consul.NewToken(`service_prefix "" { policy = "read" }`))
		got := do(line)
		assert.Equal(t, exitFailure, got.code, "%s: there may be some that the token can't read", line)
		assert.Contains(t, got.err, `{ policy = "read" }`, line)
	}
	t.Setenv("CONSUL_HTTP_TOKEN", consul.NewToken(`key_prefix "lb-access/" { policy = "write" } key_prefix "lb-history/" { policy = "write" }`))
	require.Equal(t, 0, do("deny 203.0.113.7").code)
	var rules []shownRule
	require.NoError(t, json.Unmarshal([]byte(do("access list -o json").out), &rules))
	require.Len(t, rules, 1)
	assert.Contains(t, rules[0].By, "with token ")
}

func TestKeys(t *testing.T) {
	consul, do := inConsul(t)
	assert.Equal(t, "There are no keys.\n", do("key list").out)
	got := do("key create shop --services cart,web --for 2160h -m front-end")
	require.Equal(t, 0, got.code, got.err)
	secret := regexp.MustCompile(`lbk_[A-Za-z0-9_-]{43}`).FindString(got.out)
	require.NotEmpty(t, secret)
	assert.Equal(t, "Key shop is good for cart, web, until 2027-02-19 09:16:30.\nIt is shown only now:\n"+secret+"\n", got.out)
	var created createdKey
	require.NoError(t, json.Unmarshal([]byte(do("key create alice --basic -o json").out), &created))
	assert.Equal(t, "basic", created.Kind)
	assert.NotEmpty(t, created.Secret)
	got = do("key create shop")
	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.err, `create key "shop": there is one already`)
	pair, _, err := consul.Client().KV().Get("lb-access/key/shop", nil)
	require.NoError(t, err)
	assert.NotContains(t, string(pair.Value), secret)
	assert.Contains(t, string(pair.Value), `"hash":"sha256:`)

	list := do("key list").out
	assert.Contains(t, list, "alice  basic  every service  for ever")
	assert.Contains(t, list, "shop   key    cart, web      2027-02-19 09:16:30")
	assert.NotContains(t, list, secret)
	assert.Equal(t, "Key shop is revoked.\n", do("key revoke shop").out)
	got = do("key revoke shop")
	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.err, `revoke key "shop": there is no such key`)

	_, err = consul.Client().KV().Put(&api.KVPair{Key: "lb-access/key/bad", Value: []byte(`{}`)}, nil)
	require.NoError(t, err)
	got = do("key list")
	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.out, "alice", "the others are listed")
	assert.Contains(t, got.err, `key "lb-access/key/bad" in Consul can't be read: kind "", want "key" or "basic": 'lbctl key revoke bad' deletes it`)
	assert.Equal(t, 0, do("key revoke bad").code)

	for line, want := range map[string]string{
		"key create":                    "takes the name of a key, got nothing",
		"key create a:b":                `name "a:b": want up to 63 letters`,
		"key create x --password-stdin": "want it with --basic",
		"key create x --services a;b":   "want up to 255 letters",
		"key rename":                    `there is no command "rename"`,
	} {
		got := do(line)
		assert.Equal(t, exitUsage, got.code, line)
		assert.Contains(t, got.err, want, line)
	}
}

func TestPasswordFromTheStandardInput(t *testing.T) {
	inConsul(t)
	var out strings.Builder
	opts := &keyOptions{
		Out: &out, In: strings.NewReader("correct horse\nmore"), Now: func() time.Time { return now }, Name: "alice", Basic: true, Stdin: true,
		Store: &storeAddress{prefix: kv.DefaultPrefix}, Wait: &accessWaiter{},
	}
	require.NoError(t, runKeyCreate(t.Context(), opts))
	assert.Equal(t, "Key alice is good for every service.\n", out.String())
	opts.Name, opts.In = "bob", strings.NewReader("short\n")
	assert.ErrorContains(t, runKeyCreate(t.Context(), opts), "has 5 characters, want at least 8")
}

func TestUnknownServicesOfAccess(t *testing.T) {
	consul, do := inConsul(t)
	require.NoError(t, consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "cart"}))
	require.Eventually(t, func() bool {
		services, _, err := consul.Client().Catalog().Services(nil)
		return err == nil && services["cart"] != nil
	}, patience, often)
	for line, want := range map[string]string{
		"deny 203.0.113.7 --service cart,crat": "warning: Consul has no service \"crat\" (did you mean \"cart\"?): the rule has no effect until it comes\n",
		"allow 203.0.113.8 --service crat":     "warning: Consul has no service \"crat\" (did you mean \"cart\"?): the rule has no effect until it comes\n",
		"key create shop --services crat,cart": "warning: Consul has no service \"crat\" (did you mean \"cart\"?): the key has no effect until it comes\n",
		"deny 203.0.113.8":                     "",
		"key create web --services cart":       "",
	} {
		got := do(line)
		assert.Equal(t, exitOK, got.code, line)
		assert.Equal(t, want, got.err, line)
	}
	assert.Empty(t, do("allow 203.0.113.7 --service crat").err, "a rule of a service that is gone can be removed")
}
