package policyfile

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/policy"
)

// said lists what the documents of a file say.
func said(t *testing.T, text string) []string {
	t.Helper()
	documents, err := Parse("f.yaml", []byte(text))
	require.NoError(t, err)
	var all []string
	for _, d := range documents {
		all = append(all, d.Position+" "+d.Name)
		for _, v := range d.Policy.Values() {
			all = append(all, v.String())
		}
	}
	return all
}

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"one document": {
			"name: service/cart\ntimeout.read: 5s\npaths:\n  =/a:\n    timeout.send: 1s\n  /pkg.Svc/M: {timeout.read: default}\n",
			[]string{"f.yaml:1 service/cart", "timeout.read 5s", "timeout.read default for /pkg.Svc/M", "timeout.send 1s for =/a"},
		},
		"several, some of them comments": {
			"# head\n---\nname: default\ntimeout.read: 5s\n---\n# nothing\n---\n\nname: cart\n---\n",
			[]string{"f.yaml:3 default", "timeout.read 5s", "f.yaml:9 service/cart"},
		},
		"a list":                     {"- name: a\n  check: grpc\n- name: b\n", []string{"f.yaml:1 service/a", "check grpc", "f.yaml:3 service/b"}},
		"JSON, one after the other":  {"{\"name\": \"a\",\n\t\"min-instances\": 2}\n{\"name\": \"b\"}", []string{"f.yaml:1 service/a", "min-instances 2", "f.yaml:3 service/b"}},
		"JSON with a surrogate pair": {`[{"name": "a", "check": "http:/\u0061"}]`, []string{"f.yaml:1 service/a", "check http:/a"}},
		"JSON that is YAML only":     {"{name: a, check: grpc,}", []string{"f.yaml:1 service/a", "check grpc"}},
		"a service called default":   {"name: service/default", []string{"f.yaml:1 service/default"}},
		"text that is not text":      {"name: on\ncheck: 'none'\nmin-instances: \"3\"", []string{"f.yaml:1 service/on", "check none", "min-instances 3"}},
		"an alias":                   {"name: a\npaths:\n  /a: &x {timeout.read: 1s}\n  /b: *x\n", []string{"f.yaml:1 service/a", "timeout.read 1s for /a", "timeout.read 1s for /b"}},
		"a schema for editors":       {`{"$schema": "policy.schema.json", "name": "a"}`, []string{"f.yaml:1 service/a"}},
		"nothing":                    {"", nil},
		"CRLF":                       {"name: a\r\ncheck: grpc\r\n", []string{"f.yaml:1 service/a", "check grpc"}},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, said(t, tt.text)) })
	}
}

func TestMistakes(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"all at once": {
			"name: a b\ntimeout.raed: 5s\ntimeout.read: soon\npaths:\n  api: {timeout.read: 5s}\n  /a:\n    check: grpc\n---\ncheck: tcp\n",
			[]string{
				`f.yaml:1: name: "a b" is no name of a policy, want "default"`,
				`f.yaml:2: unknown field "timeout.raed", did you mean timeout.read?`,
				`f.yaml:3: timeout.read "soon", want a duration`,
				`f.yaml:5: path "api", want a path like`,
				`f.yaml:7: check can't differ between the paths`,
				`f.yaml:9: the document has no name`,
			},
		},
		"twice":                 {"name: a\ncheck: tcp\ncheck: grpc\n", []string{`f.yaml:3: "check" is there twice, first in line 2`}},
		"twice, in JSON":        {"{\"name\": \"a\",\n\"check\": \"tcp\",\n\"check\": \"grpc\"}", []string{`f.yaml:3: "check" is there twice, first in line 2`}},
		"a path twice":          {"name: a\npaths:\n  /a: {timeout.read: 1s}\n  /a: {timeout.read: 2s}\n", []string{`f.yaml:4: "/a" is there twice`}},
		"groups as mappings":    {"name: a\ntimeout:\n  read: 5s\n", []string{`f.yaml:2: "timeout" is not a field, want one of timeout.connect`}},
		"a mistyped name":       {"nmae: a\n", []string{`f.yaml:1: unknown field "nmae", did you mean name?`, "f.yaml:1: the document has no name"}},
		"mistyped paths":        {"name: a\npath: {/a: {timeout.read: 1s}}\n", []string{`f.yaml:2: unknown field "path", did you mean paths?`}},
		"a value that is empty": {"name: a\ncheck:\n", []string{`f.yaml:2: check: there is no value: leave the line out`}},
		"octal or not":          {"name: a\nmin-instances: 010\n", []string{`f.yaml:2: min-instances: 010 is a number that readers of YAML understand in different ways`}},
		"hexadecimal":           {"name: a\nmin-instances: 0x10\n", []string{`f.yaml:2: min-instances: 0x10 is a number`}},
		"with underscores":      {"name: a\nmin-instances: 1_0\n", []string{`f.yaml:2: min-instances: 1_0 is a number`}},
		"minutes and seconds":   {"name: a\ntimeout.read: 1:30\n", []string{`f.yaml:2: timeout.read "1:30", want a duration`}},
		"a float":               {"name: a\nmin-instances: 2.0\n", []string{`f.yaml:2: min-instances "2.0", want a whole number`}},
		"a tag":                 {"name: a\ncheck: !!binary dGNw\n", []string{`f.yaml:2: check: tag !!binary, want none`}},
		"a merge":               {"name: a\n<<: {check: tcp}\n", []string{`f.yaml:2: unknown field "<<"`}},
		"not a mapping":         {"- a\n", []string{`f.yaml:1: a document: found "a", want a mapping`}},
		"paths as a list":       {"name: a\npaths: [/a]\n", []string{`f.yaml:2: paths: found a list, want a mapping`}},
		"a path without fields": {"name: a\npaths:\n  /a:\n", []string{`f.yaml:3: path "/a": found nothing, want a mapping`}},
		"a list for one value":  {"name: a\ncheck: [tcp]\n", []string{`f.yaml:2: check "[\"tcp\"]", want`}},
		"a list of lists":       {"name: a\ncheck: [[tcp]]\n", []string{`f.yaml:2: check: found a list, want a single value`}},
		"an alias of itself":    {"name: a\npaths: &x {/a: *x}\n", []string{`f.yaml:2: `}},
		"no YAML":               {"name: a\n check: tcp\n", []string{`f.yaml:2: no valid YAML: mapping values are not allowed`}},
		"an unknown anchor":     {"name: *a\n", []string{`f.yaml: no valid YAML: unknown anchor 'a'`}},
		"JSON that ends":        {`{"name": "a", "check": `, []string{`f.yaml:1: `}},
		"a tab":                 {"name: a\npaths:\n\t/a: 1\n", []string{`f.yaml:3: no valid YAML: found character that cannot start any token`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(tt.text))
			require.Error(t, err)
			lines := strings.Split(err.Error(), "\n")
			require.Len(t, lines, len(tt.want), err.Error())
			for n, want := range tt.want {
				assert.Contains(t, lines[n], want)
			}
		})
	}
}

func TestParseOne(t *testing.T) {
	d, err := ParseOne("f", []byte("# head\ncheck: grpc\n"), "service/cart")
	require.NoError(t, err)
	assert.Len(t, d.Values(), 1)
	d, err = ParseOne("f", []byte("# head\n"), "service/cart")
	require.NoError(t, err)
	assert.True(t, d.IsZero())
	_, err = ParseOne("f", []byte("name: cart\ncheck: grpc\n"), "service/cart")
	require.NoError(t, err)
	_, err = ParseOne("f", []byte("name: card\ncheck: grpc\n"), "service/cart")
	assert.EqualError(t, err, `f:1: name "card", want "service/cart": a document can't be renamed`)
	_, err = ParseOne("f", []byte("check: grpc\n---\ncheck: tcp\n"), "service/cart")
	assert.EqualError(t, err, "f:3: a second document, want one")
}

func TestNames(t *testing.T) {
	for text, want := range map[string]string{"default": "default", "cart": "service/cart", "service/cart": "service/cart", "service/default": "service/default"} {
		name, err := Name(text)
		require.NoError(t, err)
		assert.Equal(t, want, name)
	}
	for _, text := range []string{"", "a/b", "service/", "service/a/b", "../x", "a b", "ä", "service//a"} {
		_, err := Name(text)
		assert.Error(t, err, text)
	}
	assert.Equal(t, "cart", Service("service/cart"))
	assert.Empty(t, Service("default"))
}

// TestDocumentsSurvive checks that what is written is read again.
func TestDocumentsSurvive(t *testing.T) {
	for _, f := range policy.Fields() {
		d := Document{Name: "service/cart"}
		require.NoError(t, d.Policy.Set(f.Name, f.Example))
		if f.PerPath {
			require.NoError(t, d.Policy.SetAt("/a", f.Name, f.Example))
		}
		text, err := d.MarshalJSON()
		require.NoError(t, err)
		again, err := Parse("f", text)
		require.NoError(t, err, string(text))
		require.Len(t, again, 1)
		assert.True(t, d.Policy.Equal(again[0].Policy), string(text))
		assert.Equal(t, d.Name, again[0].Name)
		assert.NotContains(t, []string{nameKey, pathsKey}, f.Name)
	}
	text, err := Document{Name: "default"}.MarshalJSON()
	require.NoError(t, err)
	assert.Equal(t, `{"name":"default"}`, string(text))
}

func FuzzParse(f *testing.F) {
	f.Add("name: a\ncheck: tcp\npaths: &x {/a: *x}\n")
	f.Add(`{"name":"a","paths":{"/a":{"timeout.read":"1s"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		documents, err := Parse("f", []byte(text))
		if err != nil {
			return
		}
		for _, d := range documents {
			written, err := d.MarshalJSON()
			require.NoError(t, err)
			again, err := Parse("f", written)
			require.NoError(t, err)
			assert.True(t, d.Policy.Equal(again[0].Policy))
		}
	})
}
