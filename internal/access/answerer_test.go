package access

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/kv"
)

// withKeys returns a keeper with keys, and their secrets by name. A password is "password of NAME".
func withKeys(t *testing.T, all ...Key) (*Keeper, map[string]string) {
	t.Helper()
	secrets := map[string]string{}
	var documents []kv.Document
	for n, k := range all {
		secrets[k.Name] = "password of " + k.Name
		if k.Kind == APIKey {
			secrets[k.Name] = NewSecret()
		}
		k.SetSecret(secrets[k.Name])
		value, err := k.Document()
		require.NoError(t, err)
		assert.NotContains(t, string(value), secrets[k.Name])
		documents = append(documents, kv.Document{Name: KeyName(k.Name), Value: value, Index: uint64(n + 1)})
	}
	keeper, err := Open("")
	require.NoError(t, err)
	keeper.Observe(documents)
	require.Empty(t, keeper.Problems())
	return keeper, secrets
}

// ask asks as nginx does.
func ask(a *Answerer, service, kinds string, set func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set(headerService, service)
	r.Header.Set(headerKinds, kinds)
	if set != nil {
		set(r)
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	keeper, secrets := withKeys(t,
		Key{Name: "shop", Kind: APIKey},
		Key{Name: "only-cart", Kind: APIKey, Services: []string{"cart"}},
		Key{Name: "old", Kind: APIKey, Until: noon},
		Key{Name: "alice", Kind: Basic, Services: []string{"cart"}},
	)
	a := NewAnswerer(keeper)
	a.now = func() time.Time { return noon }
	bearer := func(key string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "bearer "+key) }
	}
	basic := func(name, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(name, password) }
	}
	for name, tt := range map[string]struct {
		service, kinds string
		set            func(*http.Request)
		code           int
		user           string
	}{
		"no key":                             {"cart", "key basic", nil, 401, ""},
		"a key":                              {"web", "key", bearer(secrets["shop"]), 204, "shop"},
		"a key in X-API-Key":                 {"web", "key", func(r *http.Request) { r.Header.Set("X-API-Key", secrets["shop"]) }, 204, "shop"},
		"a wrong key":                        {"web", "key", bearer(secrets["shop"] + "x"), 401, ""},
		"an empty key":                       {"web", "key", bearer(""), 401, ""},
		"a key's hash is no key":             {"web", "key", bearer(strings.TrimPrefix(hashOf(secrets["shop"]), "sha256:")), 401, ""},
		"a key for another service":          {"web", "key", bearer(secrets["only-cart"]), 403, ""},
		"a key that is over":                 {"web", "key", bearer(secrets["old"]), 401, ""},
		"a key where only passwords count":   {"web", "basic", bearer(secrets["shop"]), 401, ""},
		"a password":                         {"cart", "key basic", basic("alice", secrets["alice"]), 204, "alice"},
		"a wrong password":                   {"cart", "key basic", basic("alice", "x"), 401, ""},
		"an unknown name":                    {"cart", "key basic", basic("bob", "x"), 401, ""},
		"a password for another service":     {"web", "basic", basic("alice", secrets["alice"]), 403, ""},
		"a password where only keys count":   {"cart", "key", basic("alice", secrets["alice"]), 401, ""},
		"a key as the password of its name":  {"cart", "key basic", basic("shop", secrets["shop"]), 401, ""},
		"nothing is accepted without a kind": {"cart", "", bearer(secrets["shop"]), 401, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second time with the cache
				w := ask(a, tt.service, tt.kinds, tt.set)
				assert.Equal(t, tt.code, w.Code)
				assert.Equal(t, tt.user, w.Header().Get("X-Lb-User"))
			}
		})
	}
	assert.Equal(t, `Basic realm="cart"`, ask(a, "cart", "key basic", nil).Header().Get("WWW-Authenticate"))
	assert.Equal(t, `Bearer realm="cart"`, ask(a, "cart", "key", nil).Header().Get("WWW-Authenticate"))

	unknown, err := Open("")
	require.NoError(t, err)
	assert.Equal(t, 503, ask(NewAnswerer(unknown), "web", "key", bearer(secrets["shop"])).Code, "before Consul's first answer")
}

func hashOf(secret string) string {
	k := Key{Kind: APIKey}
	k.SetSecret(secret)
	return k.hash
}

// TestARevokedKeyAndAChangedPassword checks that neither counts any more, in spite of the cache.
func TestARevokedKeyAndAChangedPassword(t *testing.T) {
	keeper, secrets := withKeys(t, Key{Name: "shop", Kind: APIKey}, Key{Name: "alice", Kind: Basic})
	a := NewAnswerer(keeper)
	key := func(r *http.Request) { r.Header.Set("X-API-Key", secrets["shop"]) }
	password := func(text string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth("alice", text) }
	}
	assert.Equal(t, 204, ask(a, "web", "key", key).Code)
	assert.Equal(t, 204, ask(a, "web", "basic", password(secrets["alice"])).Code)
	assert.Equal(t, 401, ask(a, "web", "basic", password("new")).Code)

	alice := Key{Name: "alice", Kind: Basic}
	alice.SetSecret("new")
	value, err := alice.Document()
	require.NoError(t, err)
	keeper.Observe([]kv.Document{{Name: KeyName("alice"), Value: value, Index: 99}})
	assert.Equal(t, 401, ask(a, "web", "key", key).Code)
	assert.Equal(t, 401, ask(a, "web", "basic", password(secrets["alice"])).Code)
	assert.Equal(t, 204, ask(a, "web", "basic", password("new")).Code)
}

// TestWrongPasswordsAreBounded sends more wrong passwords at once than may wait: the others are
// refused at once, and a password that is in the cache is not affected.
func TestWrongPasswordsAreBounded(t *testing.T) {
	keeper, secrets := withKeys(t, Key{Name: "alice", Kind: Basic})
	a := NewAnswerer(keeper)
	good := func(r *http.Request) { r.SetBasicAuth("alice", secrets["alice"]) }
	require.Equal(t, 204, ask(a, "web", "basic", good).Code)
	a.slots <- struct{}{} // a check that takes long
	var group sync.WaitGroup
	for n := range checksAtOnce + checksWaiting {
		group.Go(func() {
			ask(a, "web", "basic", func(r *http.Request) { r.SetBasicAuth("alice", strings.Repeat("x", n+1)) })
		})
	}
	require.Eventually(t, func() bool { return len(a.queue) == cap(a.queue) }, 10*time.Second, time.Millisecond)
	assert.Equal(t, 503, ask(a, "web", "basic", func(r *http.Request) { r.SetBasicAuth("alice", "one more") }).Code)
	assert.Equal(t, 204, ask(a, "web", "basic", good).Code)
	<-a.slots
	group.Wait()
	assert.LessOrEqual(t, len(a.cache), cachePasswords)
}

func TestBrokenKeys(t *testing.T) {
	good := hashPassword("x")
	for value, want := range map[string]string{
		`{"kind":"key","hash":"sha256:00","by":"x","at":"2026-11-27T12:00:00Z"}`:                                                   "64 hexadecimal digits",
		`{"kind":"basic","hash":"sha256:00","by":"x","at":"2026-11-27T12:00:00Z"}`:                                                 "not one of Argon2id",
		`{"kind":"basic","hash":"` + strings.Replace(good, "m=19456", "m=99999999", 1) + `","by":"x","at":"2026-11-27T12:00:00Z"}`: "at most 64 MiB",
		`{"kind":"token","hash":"","by":"x","at":"2026-11-27T12:00:00Z"}`:                                                          `kind "token", want "key" or "basic"`,
		`{"kind":"basic","hash":"` + good + `","services":["a b"],"by":"x","at":"2026-11-27T12:00:00Z"}`:                           "want up to 255 letters",
		`{"kind":"basic","hash":"` + good + `","secret":"x","by":"x","at":"2026-11-27T12:00:00Z"}`:                                 "unknown field",
	} {
		_, err := ReadKey(kv.Document{Name: KeyName("x"), Value: []byte(value)})
		assert.ErrorContains(t, err, want, value)
	}
	_, err := ReadKey(kv.Document{Name: KeyName("a:b"), Value: []byte(`{"kind":"basic","hash":"` + good + `","by":"x","at":"2026-11-27T12:00:00Z"}`)})
	assert.ErrorContains(t, err, `name "a:b"`)
}

func BenchmarkAnswerKey(b *testing.B) {
	k := Key{Name: "shop", Kind: APIKey}
	secret := NewSecret()
	k.SetSecret(secret)
	value, err := k.Document()
	require.NoError(b, err)
	keeper, err := Open("")
	require.NoError(b, err)
	keeper.Observe([]kv.Document{{Name: KeyName("shop"), Value: value, Index: 1}})
	a := NewAnswerer(keeper)
	for b.Loop() {
		ask(a, "web", "key", func(r *http.Request) { r.Header.Set("X-API-Key", secret) })
	}
}

func BenchmarkHashPassword(b *testing.B) {
	for b.Loop() {
		hashPassword("x")
	}
}
