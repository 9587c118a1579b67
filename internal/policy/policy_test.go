package policy

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/printable"
)

// leaves calls visit for every leaf of a Policy: a value that is no struct of this package.
func leaves(v reflect.Value, name string, visit func(name string, v reflect.Value)) {
	for n := range v.NumField() {
		field := v.Field(n)
		if field.Kind() == reflect.Struct {
			leaves(field, name+v.Type().Field(n).Name+".", visit)
			continue
		}
		visit(name+v.Type().Field(n).Name, field)
	}
}

func TestEveryLeafIsAField(t *testing.T) {
	by := map[string][]string{}
	for _, f := range Fields() {
		var p Policy
		require.True(t, f.set(&p, f.Example), f.Name)
		leaves(reflect.ValueOf(p), "", func(name string, v reflect.Value) {
			if !v.IsZero() {
				by[name] = append(by[name], f.Name)
			}
		})
	}
	leaves(reflect.ValueOf(Policy{}), "", func(name string, _ reflect.Value) {
		assert.Len(t, by[name], 1, "the field of Policy.%s", name)
	})
}

func TestFieldsAreDocumented(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Fields() {
		t.Run(f.Name, func(t *testing.T) {
			assert.Regexp(t, `^[a-z]+(-[a-z]+)*(\.[a-z]+(-[a-z]+)*)*$`, f.Name)
			assert.Regexp(t, regexp.MustCompile(`^[A-Z].*[.]$`), f.Doc)
			assert.NotEmpty(t, f.Want)
			assert.False(t, seen[f.Key()] && f.Key() != "", "two fields have the key %s", f.Key())
			seen[f.Key()] = true
			canonical, ok := f.canonical(f.Example)
			require.True(t, ok, "the example %q", f.Example)
			again, ok := f.canonical(canonical)
			assert.True(t, ok)
			assert.Equal(t, canonical, again, "the canonical text of the example")
			for _, bound := range f.Bounds {
				canonical, ok := f.canonical(bound)
				assert.True(t, ok, "the bound %q", bound)
				assert.Equal(t, canonical, bound)
			}
			for family, text := range f.Default {
				assert.True(t, f.For(family), family)
				_, ok := f.canonical(text)
				assert.True(t, ok, "the default %q for %s", text, family)
			}
			_, ok = f.canonical(BuiltIn)
			assert.False(t, ok && f.kind == formString && f.Default == nil, "%q would be a value", BuiltIn)
			for _, text := range []string{"", "\n", "x\ny", "a;b}", "$host", strings.Repeat("x", 5000)} {
				if _, ok := f.canonical(text); ok {
					t.Errorf("it takes %q", printable.Shorten(text))
				}
			}
		})
	}
}

func document(t *testing.T, text string) Document {
	t.Helper()
	d, err := ParseDocument([]byte(text))
	require.NoError(t, err)
	return d
}

func TestParseDocument(t *testing.T) {
	d := document(t, `{"timeout.read": "90s", "min-instances": 3, "paths": {"/a.B/C": {"timeout.read": "0.25s"}}}`)
	assert.Equal(t, []string{"min-instances 3", "timeout.read 90s", "timeout.read 250ms for /a.B/C"}, valuesOf(d))
	b, err := d.MarshalJSON()
	require.NoError(t, err)
	assert.Equal(t, `{"min-instances":3,"timeout.read":"90s","paths":{"/a.B/C":{"timeout.read":"250ms"}}}`, string(b))
	assert.True(t, d.Equal(document(t, string(b))))
	assert.True(t, document(t, "{}").IsZero())
}

func valuesOf(d Document) []string {
	var all []string
	for _, v := range d.Values() {
		all = append(all, v.String())
	}
	return all
}

func TestMistakesInADocument(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"a mistyped field", `{"timeout.raed": "5s"}`, []string{`unknown field "timeout.raed", did you mean timeout.read?`}},
		{"a field of nothing known", `{"colour": "blue"}`, []string{`unknown field "colour": "lbctl policy explain" lists all fields`}},
		{"nested fields", `{"timeout": {"read": "5s"}}`, []string{`"timeout" is not a field, want one of timeout.connect, timeout.read, timeout.send`}},
		{"all mistakes at once", `{"timeout.read": "5x", "min-instances": 0, "paths": {"/a": {"timeout.send": -1, "x": 1}}}`, []string{
			`timeout.read "5x", want a duration from 10ms to 24h, such as 500ms, 5s or 2m`,
			`min-instances "0", want a whole number from 1 to 10000`,
			`path "/a": timeout.send "-1", want a duration`,
			`path "/a": unknown field "x"`,
		}},
		{"a field twice", `{"check": "tcp", "check": "none"}`, []string{`"check" is there twice`}},
		{"a path that nginx never sees", `{"paths": {"/a/../b": {"timeout.read": "5s"}}}`, []string{`path "/a/../b", want a path like`}},
		{"a field that holds for the whole service", `{"paths": {"/a": {"check": "tcp"}}}`, []string{`path "/a": check can't differ between the paths of a service`}},
		{"a path without fields", `{"paths": {"not a path": {}}}`, []string{`path "not a path", want a path like`}},
		{"a list in a list", `{"compression.types": [["text/css"]]}`, []string{`compression.types has ["text/css"] in it, want only texts and numbers there`}},
		{"an object in pairs", `{"headers.request.set": {"X-A": {"b": 1}}}`, []string{`headers.request.set has {"b": 1} in it, want only texts and numbers there`}},
		{"one bad element of many", `{"compression.types": ["text/css", "text css", "text/plain"]}`, []string{`compression.types "text css", want`}},
		{"one bad pair of many", `{"headers.request.set": {"X-A": "1", "Host": "x"}}`, []string{`headers.request.set "Host=x", want`}},
		{"null", `{"check": null}`, []string{`check is null: leave it out, or write "default" for its built-in value`}},
		{"no JSON", `timeout.read: 5s`, []string{`not a JSON object`}},
		{"a list", `["check"]`, []string{`not a JSON object: found ["check"]`}},
		{"half of a document", `{"check": "tcp"`, []string{`it ends too early`}},
		{"nothing", ``, []string{`it ends too early`}},
		{"two documents", `{} {}`, []string{`there is more after its end`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseDocument([]byte(tt.text))
			require.Error(t, err)
			for _, want := range tt.want {
				assert.ErrorContains(t, err, want)
			}
		})
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add(`{"timeout.read": "90s", "paths": {"/a.B/C": {"timeout.read": "0.25s"}}}`)
	f.Add(`{"check": {"a": [1, {"b": null}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDocument([]byte(text))
		if err != nil {
			return
		}
		b, err := d.MarshalJSON()
		require.NoError(t, err)
		again, err := ParseDocument(b)
		require.NoError(t, err, "%s", b)
		assert.True(t, d.Equal(again), "%s", b)
	})
}

func layer(t *testing.T, source, text string) Layer {
	t.Helper()
	level := LevelService
	switch source {
	case SourceMetadata:
		level = LevelMetadata
	case "lb/default":
		level = LevelDefault
	}
	return Layer{level, source, document(t, text)}
}

func TestPrecedence(t *testing.T) {
	s := Resolve( // the order of the arguments does not matter
		layer(t, SourceMetadata, `{"timeout.read": "2s", "timeout.send": "2s", "paths": {"/a": {"timeout.read": "20s"}}}`),
		layer(t, "lb/service/web", `{"timeout.read": "3s", "timeout.connect": "default", "paths": {"/a/b": {"timeout.send": "30s"}, "=/a/b": {"timeout.send": "31s"}}}`),
		layer(t, "lb/default", `{"timeout.read": "1s", "timeout.send": "1s", "timeout.connect": "1s"}`),
	)
	of := func(path Path) []string {
		p := s.At(path).Timeout
		return []string{p.Connect.String(), p.Read.String(), p.Send.String()}
	}
	assert.Equal(t, []string{"0ms", "3s", "2s"}, of(""), "0 stands for the built-in value")
	assert.Equal(t, []string{"0ms", "3s", "2s"}, of("/ab"))
	assert.Equal(t, []string{"0ms", "20s", "2s"}, of("/a"), "what is said for a path wins over what is said for the whole service")
	assert.Equal(t, []string{"0ms", "20s", "2s"}, of("/a/x"))
	assert.Equal(t, []string{"0ms", "20s", "30s"}, of("/a/b"), "a path has what is said for those above it")
	assert.Equal(t, []string{"0ms", "20s", "30s"}, of("/a/b/c"))
	assert.Equal(t, []string{"0ms", "20s", "31s"}, of("=/a/b"))
	assert.Equal(t, []Path{"/a", "/a/b", "=/a/b"}, s.Paths())

	explained := map[string]string{}
	for _, e := range s.Explain(HTTP, "/a/b/c") {
		explained[e.Name] = e.Value + " from " + e.Source
	}
	assert.Equal(t, "500ms from lb/service/web", explained["timeout.connect"])
	assert.Equal(t, "20s from metadata for /a", explained["timeout.read"])
	assert.Equal(t, "30s from lb/service/web for /a/b", explained["timeout.send"])
	assert.Equal(t, "tcp from built in", explained["check"])
}

// TestPairsNameAllTheirLayers: a value that layers make together names those that have a part.
func TestPairsNameAllTheirLayers(t *testing.T) {
	of := func(path Path, layers ...Layer) string {
		for _, e := range Resolve(layers...).Explain(HTTP, path) {
			if e.Name == "headers.request.set" {
				return e.Value + " from " + e.Source
			}
		}
		return ""
	}
	byDefault := layer(t, "lb/default", `{"headers.request.set": {"X-A": "1", "X-B": "1"}}`)
	said := layer(t, SourceMetadata, `{"headers.request.set": {"X-A": "2"}, "paths": {"/p": {"headers.request.set": {"X-C": "2"}}}}`)
	assert.Equal(t, `{"X-A":"2","X-B":"1"} from lb/default, metadata`, of("", byDefault, said))
	assert.Equal(t, `{"X-A":"2","X-B":"1","X-C":"2"} from lb/default, metadata, metadata for /p`, of("/p", byDefault, said))
	assert.Equal(t, `{"X-A":"3","X-B":"3"} from lb/service/web`,
		of("", byDefault, layer(t, "lb/service/web", `{"headers.request.set": {"X-A": "3", "X-B": "3"}}`)), "nothing is left of the default's")
	assert.Equal(t, `{"X-A":"2"} from metadata`, of("", layer(t, "lb/default", `{"headers.request.set": "default"}`), said))
}

func TestSettingsAreStored(t *testing.T) {
	s := Resolve(layer(t, "lb/default", `{"timeout.read": "1s"}`), layer(t, SourceMetadata, `{"paths": {"/a": {"timeout.read": "20s"}}}`))
	b, err := s.MarshalJSON()
	require.NoError(t, err)
	var again Settings
	require.NoError(t, again.UnmarshalJSON(b))
	assert.True(t, s.Equal(again), "%s", b)
	assert.Equal(t, s.At("/a"), again.At("/a"))
	newer := strings.Replace(string(b), `"timeout.read":"1s"`, `"timeout.read":"1s","timeout.warp":9`, 1)
	require.NotEqual(t, string(b), newer)
	require.NoError(t, again.UnmarshalJSON([]byte(newer)), "a newer lbctl has stored it")
	assert.True(t, s.Equal(again))
}

func TestWhatHasNoEffectIsLeftOut(t *testing.T) {
	s := Resolve(
		layer(t, "lb/default", `{"timeout.send": "1s"}`),
		layer(t, "lb/service/db", `{"timeout.send": "2s", "timeout.read": "3s", "paths": {"/a": {"timeout.read": "4s"}}}`),
	)
	all := func(string) bool { return true }
	usable, found := s.For(TCP, "1.30.6", all)
	assert.Equal(t, Policy{Timeout: Timeout{Read: 3e9}}, *usable.General())
	assert.Empty(t, usable.Paths())
	assert.Equal(t, []string{
		"lb/service/db: timeout.send 2s: it has no effect on tcp services",
		"lb/service/db: timeout.read 4s for /a: it has no effect on tcp services",
	}, messages(found))
	assert.Equal(t, []string{"lb/service/db"}, found[0].Sources)
	_, found = Resolve(layer(t, "lb/service/x", `{"paths": {"/a/b/c": {"timeout.read": "4s"}}}`)).For(GRPC, "1.30.6", all)
	assert.Equal(t, []string{`lb/service/x: timeout.read 4s for /a/b/c: it has no effect: paths of gRPC are "/package.Service" or "/package.Service/Method"`}, messages(found))
	usable, found = s.For(HTTP, "1.30.6", all)
	assert.True(t, usable.Equal(s))
	assert.Empty(t, found)
}

func TestWithout(t *testing.T) {
	s := Resolve(
		layer(t, "lb/default", `{"timeout.read": "1s", "retry.tries": 2}`),
		layer(t, "lb/service/db", `{"timeout.read": "2s", "min-instances": 3}`),
	)
	usable, problems := s.Without([]string{"timeout.read", "retry.tries"}, "there is none")
	assert.Equal(t, Policy{MinInstances: 3}, *usable.General())
	assert.Equal(t, []Problem{{[]string{"lb/service/db"}, "lb/service/db: timeout.read 2s: there is none"}}, problems, "the default is for other services too")
	usable, problems = Settings{}.Without([]string{"timeout.read"}, "there is none")
	assert.True(t, usable.IsZero())
	assert.Empty(t, problems)
}

func TestChanges(t *testing.T) {
	of := func(text string) Settings { return Resolve(layer(t, "lb/service/x", text)) }
	assert.Equal(t, []string{"check", "timeout.read"}, of(`{"timeout.read": "1s", "check": "none"}`).Changes(of(`{"timeout.read": "2s"}`)))
	assert.Equal(t, []string{"timeout.send"}, of(`{"timeout.read": "1s"}`).Changes(of(`{"timeout.read": "1s", "paths": {"/a": {"timeout.send": "1s"}}}`)))
	assert.Empty(t, of(`{"timeout.read": "1s"}`).Changes(Resolve(layer(t, "lb/default", `{"timeout.read": "1s"}`))), "only the layer differs")
}

func TestCommon(t *testing.T) {
	of := func(texts ...string) []string {
		var all []Document
		for _, text := range texts {
			all = append(all, document(t, text))
		}
		return valuesOf(Common(all))
	}
	assert.Equal(t, []string{"timeout.read 2s"}, of(`{"timeout.read": "1s"}`, `{"timeout.read": "2s"}`, `{"timeout.read": "2s"}`))
	assert.Empty(t, of(`{"timeout.read": "1s"}`, `{}`, `{}`), "those without the field count")
	assert.Equal(t, []string{"timeout.read 5s for /a"}, of(`{"paths": {"/a": {"timeout.read": "5s"}}}`, `{"paths": {"/a": {"timeout.read": "5s"}}}`, `{}`))
}

func TestUnsetAndCopies(t *testing.T) {
	d := document(t, `{"timeout.read": "1s", "paths": {"/a": {"timeout.read": "5s"}}}`)
	copied := d
	had, err := d.Unset("timeout.read")
	require.NoError(t, err)
	assert.True(t, had)
	had, err = d.UnsetAt("/a", "timeout.read")
	require.NoError(t, err)
	assert.True(t, had)
	assert.True(t, d.IsZero())
	assert.Len(t, copied.Values(), 2, "a copy keeps its content")
	_, err = d.Unset("timeout.reed")
	assert.ErrorContains(t, err, "did you mean timeout.read?")
	had, err = d.Unset("check")
	assert.NoError(t, err)
	assert.False(t, had)
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]string{"1500ms": "1500ms", "60s": "1m", "1h30m": "90m", "24h": "24h", "1.5s": "1500ms"} {
		d, ok := durations(1e6, 24*3600e9).parse(text)
		assert.True(t, ok, text)
		assert.Equal(t, want, d.String())
	}
	for text, want := range map[string]string{"1024": "1k", "1000": "1000", "64k": "64k", "1024m": "1g", "10M": "10m"} {
		s, ok := sizes(1, 1<<40).parse(text)
		assert.True(t, ok, text)
		assert.Equal(t, want, s.String())
	}
	for _, text := range []string{"", "0", "-1", "1t", "1 k", "99999999999999g"} {
		_, ok := sizes(1, 1<<40).parse(text)
		assert.False(t, ok, text)
	}
}

func TestPairsAndLists(t *testing.T) {
	pairs := pairsOf("pairs", 3, func(name, value string) bool { return name != "" && value != "bad" })
	p, ok := pairs.parse("b = 2, a=1=x")
	assert.True(t, ok)
	assert.Equal(t, []Pair{{"a", "1=x"}, {"b", "2"}}, p)
	assert.Equal(t, `{"a":"1=x","b":"2"}`, pairs.text(p))
	p, ok = pairs.parse(`{"cache-control": "no-store, private"}`)
	assert.True(t, ok)
	assert.Equal(t, []Pair{{"cache-control", "no-store, private"}}, p)
	for _, text := range []string{"", "a", "a=bad", "=1", "a=1,a=2", `{"a": 1}`, "{"} {
		_, ok := pairs.parse(text)
		assert.False(t, ok, text)
	}
	p, ok = pairs.parse("a=1,b=2,c=3,d=4")
	assert.True(t, ok)
	assert.False(t, pairs.fits(p), "too many for one document")
	list := listsOf("list", 2, wholes(1, 9))
	n, ok := list.parse("3, 1")
	assert.True(t, ok)
	assert.Equal(t, []int{3, 1}, n)
	assert.Equal(t, `["3","1"]`, list.text(n))
	n, ok = list.parse(list.text(n))
	assert.True(t, ok)
	assert.True(t, slices.Equal([]int{3, 1}, n))
	assert.Equal(t, `{"a":"2","b":"1"}`, mergePairs(`{"a":"1","b":"1"}`, `{"a":"2"}`))
}

// TestAServiceCantSetTheOperatorsFields: neither by a key nor for a path.
func TestAServiceCantSetTheOperatorsFields(t *testing.T) {
	before := byName["timeout.read"]
	t.Cleanup(func() { byName["timeout.read"] = before })
	f := before
	operatorOnly(&f)
	byName["timeout.read"] = f
	assert.Empty(t, f.Key())
	n := slices.IndexFunc(table, func(f Field) bool { return f.Name == "timeout.read" })
	table[n] = f
	t.Cleanup(func() { table[n] = before })
	var d Document
	assert.EqualError(t, d.SetPaths(`{"/a": {"timeout.read": "1s", "timeout.send": "1s"}}`), `path "/a": only the operator can set timeout.read`)
	assert.True(t, d.IsZero())
	assert.NoError(t, d.SetPaths(`{"/a": {"timeout.send": "1s"}}`))
}

func TestRedirectHost(t *testing.T) {
	var d Document
	for _, text := range []string{"www.example.com", "a", "a:8080", "a:65535"} {
		assert.NoError(t, d.Set("redirect.host", text), text)
	}
	for _, text := range []string{"", "A", "a.", "a:", "a:0", "a:80", "a:443", "a:65536", "a/b", "http://a"} {
		assert.Error(t, d.SetAt("/x", "redirect.host", text), text)
	}
}

// TestBegins: what is offered is a value, or goes on.
func TestBegins(t *testing.T) {
	for _, f := range Fields() {
		for _, value := range f.Begins {
			if strings.HasSuffix(value, ":") {
				value += "x"
			}
			var d Document
			assert.NoError(t, d.Set(f.Name, value))
		}
	}
}
