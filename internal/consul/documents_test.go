package consul

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/endpoints"
)

const patience = 30 * time.Second

// follow starts a Follower of the keys below two prefixes.
func follow(t *testing.T, config *api.Config) *Follower {
	t.Helper()
	table, err := endpoints.Open("", endpoints.Options{})
	require.NoError(t, err)
	f, err := New(Options{Consul: config, Table: table, Documents: []string{"lb/", "lb-access/"}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(f.Stop)
	_, known, refused := f.Documents("lb/")
	assert.False(t, known, "Consul has not answered")
	assert.NoError(t, refused)
	require.NoError(t, f.Start())
	return f
}

// wait receives answers until the documents below a prefix are the wanted ones.
func wait(t *testing.T, f *Follower, prefix, want string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		documents, known, _ := f.Documents(prefix)
		found := "unknown"
		if known {
			texts := make([]string, len(documents))
			for n, d := range documents {
				texts[n] = fmt.Sprintf("%s=%s", d.Key, d.Value)
				assert.NotZero(t, d.Index)
			}
			found = strings.Join(texts, " ")
		}
		if found == want {
			return
		}
		select {
		case view := <-f.Answers():
			f.Receive(view)
			f.Follow()
		case <-deadline:
			t.Fatalf("documents below %s are %q, want %q", prefix, found, want)
		}
	}
}

func TestDocumentsAreFollowed(t *testing.T) {
	consul := consultest.Start(t)
	client := consul.Client()
	put := func(key, value string) {
		_, err := client.KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil)
		require.NoError(t, err)
	}
	f := follow(t, consul.Config())
	wait(t, f, "lb/", "")
	wait(t, f, "lb-access/", "")
	put("lb/service/cart", "1")
	put("lb/default", "2")
	wait(t, f, "lb/", "lb/default=2 lb/service/cart=1")
	put("lb-access/deny/00", "3")
	put("lbx", "not below a prefix")
	wait(t, f, "lb-access/", "lb-access/deny/00=3")
	_, err := client.KV().DeleteTree("lb/", nil)
	require.NoError(t, err)
	wait(t, f, "lb/", "")
	assert.Empty(t, f.Problems())

	consul.Stop()
	consultest.Eventually(t, patience, func() (bool, string) {
		list, _ := f.queries.failing()
		return len(list) > 0, "no query fails"
	})
	wait(t, f, "lb-access/", "lb-access/deny/00=3")
	_, _, refused := f.Documents("lb-access/")
	assert.NoError(t, refused, "Consul is away, which is not a refusal")
	consul.Start() // it has lost its data
	wait(t, f, "lb-access/", "")
}

func TestKeysThatACLsHideAreKept(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	client := consul.Client()
	put := func(value string) { putDenial(t, client, value) }
	policy, _, err := client.ACL().PolicyCreate(&api.ACLPolicy{Name: "lb", Rules: `key_prefix "lb" { policy = "read" } service_prefix "" { policy = "read" }`}, nil)
	require.NoError(t, err)
	token, _, err := client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	require.NoError(t, err)
	put("1")
	f := follow(t, &api.Config{Address: consul.Addr, Token: token.SecretID})
	wait(t, f, "lb-access/", "lb-access/deny/00=1")
	wait(t, f, "lb/", "")

	policy.Rules = `key_prefix "lb/" { policy = "read" } service_prefix "" { policy = "read" }`
	_, _, err = client.ACL().PolicyUpdate(policy, nil)
	require.NoError(t, err)
	put("1 once more") // ends the running query, which may have the rights that it began with
	waitRefused(t, f, func() { put("1") })
	put("2")
	const want = `the token can't read all keys below "lb-access/": it wants the rule key_prefix "lb-access/" { policy = "read" }`
	_, _, refused := f.Documents("lb-access/")
	assert.EqualError(t, refused, want)
	problems := f.Problems()
	require.Len(t, problems, 1)
	assert.Equal(t, `the keys below "lb-access/": Consul leaves some out, so its last answer counts: `+want, problems[0].Message)

	policy.Rules = `key_prefix "lb" { policy = "read" }`
	_, _, err = client.ACL().PolicyUpdate(policy, nil)
	require.NoError(t, err)
	wait(t, f, "lb-access/", "lb-access/deny/00=2")
}

// TestKeysThatACLsHideFromTheAnonymous: Consul does not say to clients without a token that it leaves
// keys out.
func TestKeysThatACLsHideFromTheAnonymous(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	client := consul.Client()
	put := func(value string) { putDenial(t, client, value) }
	policy, _, err := client.ACL().PolicyCreate(&api.ACLPolicy{Name: "lb", Rules: `key_prefix "lb" { policy = "read" } service_prefix "" { policy = "read" }`}, nil)
	require.NoError(t, err)
	_, _, err = client.ACL().TokenUpdate(&api.ACLToken{AccessorID: anonymousToken, Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	require.NoError(t, err)
	put("1")
	f := follow(t, &api.Config{Address: consul.Addr})
	wait(t, f, "lb-access/", "lb-access/deny/00=1")

	policy.Rules = `service_prefix "" { policy = "read" }`
	_, _, err = client.ACL().PolicyUpdate(policy, nil)
	require.NoError(t, err)
	waitRefused(t, f, func() { put("2") })
}

func putDenial(t *testing.T, client *api.Client, value string) {
	t.Helper()
	_, err := client.KV().Put(&api.KVPair{Key: "lb-access/deny/00", Value: []byte(value)}, nil)
	require.NoError(t, err)
}

// waitRefused waits until the keys about access are refused, and checks that the last answer about
// them stays. write ends the running query.
func waitRefused(t *testing.T, f *Follower, write func()) {
	t.Helper()
	consultest.Eventually(t, patience, func() (bool, string) {
		write()
		select {
		case view := <-f.Answers():
			f.Receive(view)
		default:
		}
		_, _, refused := f.Documents("lb-access/")
		return refused != nil, "the keys are not refused"
	})
	documents, known, _ := f.Documents("lb-access/")
	assert.True(t, known)
	assert.Len(t, documents, 1, "the last answer stays")
}
