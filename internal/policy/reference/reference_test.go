package reference

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"lbctl/internal/policy"
)

var update = flag.Bool("update", false, "write docs/policy.md and docs/policy.schema.json again")

const (
	manual = "../../../docs/policy.md"
	schema = "../../../docs/policy.schema.json"
	again  = "write it again with: go test ./internal/policy/reference -update"
)

// The part of the manual between them is made from the table of fields.
const (
	begin = "<!-- The fields: written by go test ./internal/policy/reference -update -->\n"
	end   = "<!-- The end of the fields -->\n"
)

func TestManual(t *testing.T) {
	text, err := os.ReadFile(manual)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), begin)
	require.True(t, found, "%s has no line %s", manual, begin)
	_, after, found := strings.Cut(rest, end)
	require.True(t, found, "%s has no line %s", manual, end)
	want := before + begin + "\n" + subjects(t) + "\n" + Markdown() + "\n" + end + after
	if *update {
		require.NoError(t, os.WriteFile(manual, []byte(want), 0o644))
		return
	}
	assert.Equal(t, want, string(text), again)
}

// subjects links the documents about single subjects.
func subjects(t *testing.T) string {
	t.Helper()
	paths, err := filepath.Glob("../../../docs/policies/*.md")
	require.NoError(t, err)
	var links []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		links = append(links, fmt.Sprintf("- [%s](policies/%s)\n", title, filepath.Base(path)))
	}
	return "Some subjects have a text of their own, with prices and traps:\n\n" + strings.Join(links, "")
}

func TestManualSchema(t *testing.T) {
	if *update {
		require.NoError(t, os.WriteFile(schema, Schema(), 0o644))
		return
	}
	text, err := os.ReadFile(schema)
	require.NoError(t, err)
	assert.Equal(t, string(Schema()), string(text), again)
}

var compiled = sync.OnceValues(func() (*jsonschema.Schema, error) {
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("policy.json", parsed); err != nil {
		return nil, err
	}
	return compiler.Compile("policy.json")
})

// validate checks a document in YAML against the schema.
func validate(t *testing.T, document string) error {
	t.Helper()
	schema, err := compiled()
	require.NoError(t, err)
	var value any
	require.NoError(t, yaml.Unmarshal([]byte(document), &value), document)
	text, err := json.Marshal(value)
	require.NoError(t, err)
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	return schema.Validate(instance)
}

func TestSchemaAcceptsEveryField(t *testing.T) {
	for _, f := range policy.Fields() {
		var d policy.Document
		require.NoError(t, d.Set(f.Name, f.Example))
		text, err := d.MarshalJSON()
		require.NoError(t, err)
		assert.NoError(t, validate(t, string(text)), "as lbctl writes it")
		assert.NoError(t, validate(t, f.Name+": default"))
		for _, value := range f.Values {
			d := policy.Document{}
			require.NoError(t, d.Set(f.Name, value), f.Name)
			text, err := d.MarshalJSON()
			require.NoError(t, err)
			assert.NoError(t, validate(t, string(text)))
		}
		if f.PerPath {
			assert.NoError(t, validate(t, "paths: {/api: {"+f.Name+": default}}"))
		} else {
			assert.Error(t, validate(t, "paths: {/api: {"+f.Name+": default}}"), f.Name)
		}
		assert.Error(t, validate(t, f.Name+": null"), f.Name)
	}
}

func TestSchema(t *testing.T) {
	for document, valid := range map[string]bool{
		"name: service/cart\ntimeout.read: 5s\npaths: {/a.B/C: {timeout.read: 1h30m}}": true,
		"name: default":                     true,
		"min-instances: 3":                  true,
		"endpoints: reload":                 true,
		"name: a/b/c":                       false,
		"nmae: cart":                        false,
		"timeout.raed: 5s":                  false,
		"timeout.read: 5":                   false,
		"timeout.read: soon":                false,
		"timeout: {read: 5s}":               false,
		"min-instances: 0":                  false,
		"min-instances: many":               false,
		"endpoints: dns":                    false,
		"paths: {api: {timeout.read: 5s}}":  false,
		"paths: {/api: {timeout.read: 5}}":  false,
		"paths: {/api: {timeout.raed: 5s}}": false,
		"paths: {/api: {paths: {}}}":        false,
		"- name: cart":                      false,
		"name: cart\npaths: [/api]":         false,
	} {
		err := validate(t, document)
		assert.Equal(t, valid, err == nil, "%s: %v", document, err)
	}
}

func TestFind(t *testing.T) {
	names := func(name string) (names []string) {
		fields, err := Find(name)
		require.NoError(t, err)
		for _, f := range fields {
			names = append(names, f.Name)
		}
		return names
	}
	assert.Equal(t, []string{"timeout.read"}, names("timeout.read"))
	assert.Equal(t, []string{"timeout.connect", "timeout.read", "timeout.send"}, names("timeout"))
	assert.Equal(t, names("timeout"), names("timeout."))
	_, err := Find("timeout.raed")
	assert.ErrorContains(t, err, "did you mean timeout.read?")
}

func TestFacts(t *testing.T) {
	f, err := policy.Find("timeout.read")
	require.NoError(t, err)
	assert.Equal(t, "1h for gRPC and TCP, 5m for HTTP", Default(f))
	assert.Equal(t, "every version that lbctl supports", Since(f))
	f.Since = "1.29.6"
	assert.Equal(t, "1.29.6 or later", Since(f))
	f.Default = nil
	assert.Equal(t, "none", Default(f))
}
