package kv_test

import (
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
)

func open(t *testing.T, consul *consultest.Server, token string) *kv.Store {
	t.Helper()
	s, err := kv.Open(&api.Config{Address: consul.Addr, Token: token}, kv.DefaultPrefix)
	require.NoError(t, err)
	return s
}

func read(t *testing.T, s *kv.Store, name string) kv.Document {
	t.Helper()
	d, err := s.Read(t.Context(), name)
	require.NoError(t, err)
	return d
}

func write(t *testing.T, s *kv.Store, name, value, why string) {
	t.Helper()
	edit := kv.Edit{Before: read(t, s, name)}
	if value != "" {
		edit.Value = []byte(value)
	}
	require.NoError(t, s.Write(t.Context(), kv.Change{Kind: "set", Why: why}, edit))
}

// undo takes back the last write, and returns its entry.
func undo(t *testing.T, s *kv.Store, name, why string) (kv.Entry, error) {
	t.Helper()
	plan, err := s.PlanUndo(t.Context(), name, 0)
	if err != nil {
		return kv.Entry{}, err
	}
	return plan.Entry, s.Undo(t.Context(), plan, why)
}

func TestDocumentsAreWrittenRecordedAndUndone(t *testing.T) {
	consul := consultest.Start(t)
	s := open(t, consul, "")
	const name = "service/cart"
	assert.False(t, read(t, s, name).Exists())
	_, err := undo(t, s, name, "")
	require.ErrorIs(t, err, kv.ErrNoHistory)

	write(t, s, name, `{"n": 1}`, "first <one>")
	write(t, s, name, `{"n": 2}`, "second")
	write(t, s, name, "", "gone")
	assert.False(t, read(t, s, name).Exists())
	pair, _, err := consul.Client().KV().Get("lb/service/cart", nil)
	require.NoError(t, err)
	assert.Nil(t, pair)

	entries, err := s.History(t.Context(), name)
	require.NoError(t, err)
	require.Len(t, entries, 3)
	var before []string
	for n, e := range entries {
		before = append(before, e.Why+": "+string(e.Before.Value))
		assert.Equal(t, 3-n, e.Number)
		assert.Equal(t, n == 0, e.Deleted)
		assert.WithinDuration(t, time.Now(), e.When, time.Minute)
		assert.Regexp(t, `^\S+@\S+$`, e.Who.String())
	}
	assert.Equal(t, []string{`gone: {"n": 2}`, `second: {"n": 1}`, "first <one>: "}, before)
	assert.False(t, entries[2].Before.Exists())

	undone, err := undo(t, s, name, "it was needed")
	require.NoError(t, err)
	assert.Equal(t, "gone", undone.Why)
	assert.Equal(t, `{"n": 2}`, string(read(t, s, name).Value))
	_, err = undo(t, s, name, "it was not") // takes back the first undo
	require.NoError(t, err)
	assert.False(t, read(t, s, name).Exists())
	_, err = undo(t, s, name, "")
	require.NoError(t, err)

	_, err = consul.Client().KV().Put(&api.KVPair{Key: "lb/service/cart", Value: []byte(`{by hand`)}, nil)
	require.NoError(t, err)
	_, err = undo(t, s, name, "")
	assert.ErrorContains(t, err, "it was changed without lbctl since that write")
	write(t, s, name, `{}`, "mend it")
	undone, err = undo(t, s, name, "")
	require.NoError(t, err, "what was written by hand is in the history once lbctl has replaced it")
	assert.Equal(t, "{by hand", string(undone.Before.Value))
}

func TestUndoRefusesADocumentThatWasDeletedByHand(t *testing.T) {
	consul := consultest.Start(t)
	s := open(t, consul, "")
	write(t, s, "default", `1`, "")
	write(t, s, "default", `2`, "")
	_, err := consul.Client().KV().Delete("lb/default", nil)
	require.NoError(t, err)
	_, err = undo(t, s, "default", "")
	assert.ErrorContains(t, err, "changed without lbctl")
}

func TestUndoOfSeveralWrites(t *testing.T) {
	s := open(t, consultest.Start(t), "")
	for n := range 4 {
		write(t, s, "default", fmt.Sprint(n), "")
	}
	plan, err := s.PlanUndo(t.Context(), "default", 2)
	require.NoError(t, err)
	require.NoError(t, s.Undo(t.Context(), plan, ""))
	assert.Equal(t, "0", string(read(t, s, "default").Value), "as before write 2")
	var conflict *kv.ConflictError
	require.ErrorAs(t, s.Undo(t.Context(), plan, ""), &conflict, "the plan is old")
	_, err = undo(t, s, "default", "") // and back
	require.NoError(t, err)
	assert.Equal(t, "3", string(read(t, s, "default").Value))
	plan, err = s.PlanUndo(t.Context(), "default", 1)
	require.NoError(t, err)
	require.NoError(t, s.Undo(t.Context(), plan, ""))
	assert.False(t, read(t, s, "default").Exists())
	plan, err = s.PlanUndo(t.Context(), "default", 1)
	require.NoError(t, err)
	assert.NoError(t, s.Undo(t.Context(), plan, ""), "it is as wanted")
	_, err = s.PlanUndo(t.Context(), "default", 99)
	assert.ErrorContains(t, err, "the history has the writes 1 to 7")
}

func TestLatest(t *testing.T) {
	consul := consultest.Start(t)
	s := open(t, consul, "")
	write(t, s, "default", `1`, "one")
	write(t, s, "default", `2`, "two")
	write(t, s, "service/cart", `1`, "cart")
	_, err := consul.Client().KV().Put(&api.KVPair{Key: "lb/service/hand", Value: []byte(`1`)}, nil)
	require.NoError(t, err)
	documents, err := s.List(t.Context(), "")
	require.NoError(t, err)
	latest, err := s.Latest(t.Context(), documents)
	require.NoError(t, err)
	require.Len(t, latest, 2)
	assert.Equal(t, "two", latest["default"].Why)
	assert.Equal(t, 2, latest["default"].Number)
	assert.Equal(t, "cart", latest["service/cart"].Why)
	assert.Equal(t, read(t, s, "service/cart").Index, latest["service/cart"].Index)
}

func TestBytesThatAreNoTextAreKept(t *testing.T) {
	consul := consultest.Start(t)
	s := open(t, consul, "")
	garbage := []byte{0xff, 0, 0xfe, '\n'}
	_, err := consul.Client().KV().Put(&api.KVPair{Key: "lb/default", Value: garbage}, nil)
	require.NoError(t, err)
	write(t, s, "default", `{}`, "")
	entries, err := s.History(t.Context(), "default")
	require.NoError(t, err)
	assert.Equal(t, garbage, entries[0].Before.Value)
}

func TestTheHistoryIsBounded(t *testing.T) {
	s := open(t, consultest.Start(t), "")
	for n := range kv.MaxHistory + 5 {
		write(t, s, "default", fmt.Sprint(n), fmt.Sprint("write ", n))
		write(t, s, "default/nested", fmt.Sprint(n), "another document's history is not counted")
	}
	entries, err := s.History(t.Context(), "default")
	require.NoError(t, err)
	require.Len(t, entries, kv.MaxHistory)
	assert.Equal(t, "write 24", entries[0].Why)
	assert.Equal(t, 25, entries[0].Number)
	assert.Equal(t, "write 5", entries[kv.MaxHistory-1].Why)
}

func TestTheSecondOfTwoWritersGetsAConflict(t *testing.T) {
	consul := consultest.Start(t)
	s := open(t, consul, "")
	write(t, s, "service/cart", `{"n": 1}`, "")
	read := read(t, s, "service/cart")
	other := kv.Document{Name: "service/web"}
	write(t, s, "service/cart", `{"n": 2}`, "quicker")

	err := s.Write(t.Context(), kv.Change{Kind: "apply"}, kv.Edit{Before: read, Value: []byte(`{"n": 3}`)}, kv.Edit{Before: other, Value: []byte(`{}`)})
	var conflict *kv.ConflictError
	require.ErrorAs(t, err, &conflict)
	assert.Equal(t, `{"n": 1}`, string(conflict.Read.Value))
	assert.Equal(t, `{"n": 2}`, string(conflict.Stored.Value))
	require.NotNil(t, conflict.By)
	assert.Equal(t, "quicker", conflict.By.Why)
	assert.Regexp(t, `^document "service/cart" was changed meanwhile, by \S+@\S+ at .* \(set\): "quicker": nothing was written$`, err.Error())
	documents, err := s.List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, documents, 1, "none of the edits was written")
	assert.Equal(t, "service/cart", documents[0].Name)

	_, err = consul.Client().KV().Delete("lb/service/cart", nil)
	require.NoError(t, err)
	err = s.Write(t.Context(), kv.Change{Kind: "set"}, kv.Edit{Before: conflict.Stored, Value: []byte(`{"n": 3}`)})
	require.ErrorAs(t, err, &conflict)
	assert.False(t, conflict.Stored.Exists())
	assert.ErrorContains(t, err, "was deleted meanwhile")
	created := kv.Document{Name: "service/web"}
	write(t, s, "service/web", `{}`, "")
	err = s.Write(t.Context(), kv.Change{Kind: "set"}, kv.Edit{Before: created, Value: []byte(`1`)})
	assert.ErrorContains(t, err, "was created meanwhile")
}

// TestWritersAtOnceLoseNothing has several operators add one to a number, again and again.
// Each value that was ever stored must be in the history or in the document.
func TestWritersAtOnceLoseNothing(t *testing.T) {
	consul := consultest.Start(t)
	const writers, each = 4, 5 // fewer writes than MaxHistory
	var conflicts atomic.Int32
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			s := open(t, consul, "")
			for done := 0; done < each; {
				before, err := s.Read(t.Context(), "default")
				if !assert.NoError(t, err) {
					return
				}
				number := 0
				_, _ = fmt.Sscan(string(before.Value), &number) // none at the start
				err = s.Write(t.Context(), kv.Change{Kind: "set", Why: fmt.Sprintf("writer %d", w)}, kv.Edit{Before: before, Value: fmt.Append(nil, number+1)})
				var conflict *kv.ConflictError
				switch {
				case err == nil:
					done++
				case assert.ErrorAs(t, err, &conflict):
					conflicts.Add(1)
				default:
					return
				}
			}
		})
	}
	group.Wait()
	s := open(t, consul, "")
	assert.Equal(t, fmt.Sprint(writers*each), string(read(t, s, "default").Value))
	entries, err := s.History(t.Context(), "default")
	require.NoError(t, err)
	require.Len(t, entries, writers*each)
	for n, e := range entries[:len(entries)-1] {
		assert.Equal(t, fmt.Sprint(writers*each-1-n), string(e.Before.Value))
	}
	t.Logf("%d conflicts", conflicts.Load())
}

func TestAccessHasItsOwnPrefix(t *testing.T) {
	consul := consultest.Start(t)
	s := open(t, consul, "")
	write(t, s, "access/key/shop", `{}`, "")
	write(t, s, "service/access", `{}`, "")
	for begin, want := range map[string]string{"access/": "access/key/shop", "": "service/access"} {
		documents, err := s.List(t.Context(), begin)
		require.NoError(t, err)
		require.Len(t, documents, 1)
		assert.Equal(t, want, documents[0].Name)
	}
	pair, _, err := consul.Client().KV().Get("lb-access/key/shop", nil)
	require.NoError(t, err)
	assert.NotNil(t, pair)
	require.NoError(t, s.Write(t.Context(), kv.Change{}, kv.Edit{Before: kv.Document{Name: "access/deny/00"}, Value: []byte(`{}`), Unrecorded: true}))
	entries, err := s.History(t.Context(), "access/deny/00")
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestTokens(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	full := open(t, consul, consul.NewToken(`key_prefix "lb" { policy = "write" }`))
	write(t, full, "default", `{}`, "")
	entries, err := full.History(t.Context(), "default")
	require.NoError(t, err)
	assert.NotEmpty(t, entries[0].Who.Accessor)
	assert.Contains(t, entries[0].Who.String(), "with token "+entries[0].Who.Accessor)

	before := read(t, full, "default")
	for _, tt := range []struct {
		name, rules string
		key, rule   string
	}{
		{"no right to write", `key_prefix "lb" { policy = "read" }`, "lb/default", `key_prefix "lb/" { policy = "write" }`},
		{"no right to write the history", `key_prefix "lb/" { policy = "write" } key_prefix "lb-history/" { policy = "read" }`, "lb-history/default/00000002", `key_prefix "lb-history/" { policy = "write" }`},
		{"no right to read the history", `key_prefix "lb/" { policy = "write" }`, "lb-history/default/", `key_prefix "lb-history/" { policy = "read" }`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, consul, consul.NewToken(tt.rules))
			err := s.Write(t.Context(), kv.Change{Kind: "set"}, kv.Edit{Before: before, Value: []byte(`1`)})
			var denied *kv.PermissionError
			require.ErrorAs(t, err, &denied)
			assert.Equal(t, tt.key, denied.Key)
			assert.Equal(t, tt.rule, denied.Rule)
			assert.ErrorContains(t, err, "the token wants the rule "+tt.rule)
			assert.Equal(t, `{}`, string(read(t, full, "default").Value))
		})
	}
	none := open(t, consul, consul.NewToken(`service_prefix "" { policy = "read" }`))
	_, err = none.Read(t.Context(), "default")
	assert.ErrorContains(t, err, `the token wants the rule key_prefix "lb/" { policy = "read" }`)
	_, err = none.List(t.Context(), "")
	assert.ErrorContains(t, err, `the token wants the rule key_prefix "lb/" { policy = "read" }`)
	_, err = open(t, consul, "").List(t.Context(), "")
	assert.ErrorContains(t, err, `the token wants the rule key_prefix "lb/" { policy = "read" }`, "Consul says nothing of its filter to clients without a token")
	_, err = open(t, consul, "").Index(t.Context(), "")
	assert.ErrorContains(t, err, `the token wants the rule key_prefix "lb/" { policy = "read" }`)
	_, err = open(t, consul, "12345678-1234-1234-1234-123456789012").Read(t.Context(), "default")
	assert.ErrorContains(t, err, "refuses the token")
}

// TestNoDocumentsAndNoRight: where there are no documents, Consul does not say that the token could
// not read them.
func TestNoDocumentsAndNoRight(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	const want = `the token wants the rule key_prefix "lb-access/" { policy = "read" }`
	s := open(t, consul, consul.NewToken(`key_prefix "lb/" { policy = "read" }`))
	_, err := s.List(t.Context(), "access/networks/")
	assert.ErrorContains(t, err, want)
	_, err = s.Index(t.Context(), "access/networks/")
	assert.ErrorContains(t, err, want)
	for _, begin := range []string{"", "service/"} {
		documents, err := s.List(t.Context(), begin)
		assert.NoError(t, err, "it may read them")
		assert.Empty(t, documents)
	}
}

func TestConsulAway(t *testing.T) {
	consul := consultest.Start(t)
	s := open(t, consul, "")
	before := read(t, s, "default")
	consul.Stop()
	_, err := s.Read(t.Context(), "default")
	assert.ErrorContains(t, err, `read "lb/default": Consul at `+consul.Addr+" does not answer")
	err = s.Write(t.Context(), kv.Change{}, kv.Edit{Before: before, Value: []byte(`{}`)})
	assert.ErrorContains(t, err, "does not answer")
}

func TestWhatIsRefused(t *testing.T) {
	s := open(t, consultest.Start(t), "")
	for name, tt := range map[string]struct {
		edit kv.Edit
		want string
	}{
		"a value that is no JSON":    {kv.Edit{Before: kv.Document{Name: "default"}, Value: []byte("timeout: 5s")}, "it is not JSON"},
		"a value that is too large":  {kv.Edit{Before: kv.Document{Name: "default"}, Value: []byte(`"` + strings.Repeat("x", kv.MaxDocument) + `"`)}, "want at most 131072"},
		"a name with an empty part":  {kv.Edit{Before: kv.Document{Name: "service//x"}, Value: []byte("1")}, "can't be in Consul"},
		"a name that needs escaping": {kv.Edit{Before: kv.Document{Name: "service/ü"}, Value: []byte("1")}, "can't be in Consul"},
		"to delete what is not":      {kv.Edit{Before: kv.Document{Name: "default"}}, "there is none"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.ErrorContains(t, s.Write(t.Context(), kv.Change{}, tt.edit), tt.want)
		})
	}
	assert.ErrorContains(t, s.Write(t.Context(), kv.Change{}), "want 1 to 32")
}

func TestTheLargestDocumentsFit(t *testing.T) {
	s := open(t, consultest.Start(t), "")
	large := `"` + strings.Repeat("x", kv.MaxDocument-2) + `"`
	write(t, s, "default", large, "")
	write(t, s, "default", large, "")
	var edits []kv.Edit
	for n := range kv.MaxEdits {
		edits = append(edits, kv.Edit{Before: kv.Document{Name: fmt.Sprint("service/s", n)}, Value: []byte(`{}`)})
	}
	require.NoError(t, s.Write(t.Context(), kv.Change{Kind: "apply"}, edits...))
	for n := range edits {
		edits[n].Value = []byte(large)
		edits[n].Before = read(t, s, edits[n].Before.Name)
	}
	assert.ErrorContains(t, s.Write(t.Context(), kv.Change{Kind: "apply"}, edits...), "write fewer documents at once")
}

func TestPrefixes(t *testing.T) {
	for _, good := range []string{"lb", "teams/shop.eu/lb", "LB_2"} {
		assert.NoError(t, kv.CheckPrefix(good), good)
	}
	for _, bad := range []string{"", "/lb", "lb/", "lb//x", "l b", "../lb", "..", "ü", strings.Repeat("x", 101)} {
		assert.Error(t, kv.CheckPrefix(bad), bad)
	}
	_, err := kv.Open(nil, "lb/")
	assert.ErrorContains(t, err, `prefix of keys "lb/": want up to 100 letters`)
}

func TestDecodeIsStrict(t *testing.T) {
	type document struct {
		N int `json:"n"`
	}
	var d document
	require.NoError(t, kv.Decode([]byte(` {"n": 3} `), &d))
	assert.Equal(t, 3, d.N)
	for text, want := range map[string]string{
		`{"n": 1, "n": 2}`:   `"n" is there twice`,
		`{"n": 1} {}`:        "text after its end",
		`{"m": 1}`:           `unknown field "m"`,
		`{"n": "1"}`:         "no valid document",
		`{"n": [{"a":1,"a"`:  "no valid JSON",
		``:                   "no valid JSON",
		`{"n": 1, "x": [{}]`: "no valid JSON",
	} {
		assert.ErrorContains(t, kv.Decode([]byte(text), new(document)), want, text)
	}
}
