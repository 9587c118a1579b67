package cli

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func yamlOf(t *testing.T, value any) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, writeYAML(&out, value))
	return out.String()
}

func TestYAML(t *testing.T) {
	type inner struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	assert.Equal(t, `zeta: 1
alpha: text
share: 0.5
small: 1.0e-7
big: 12345678901234567890
up: true
nothing: null
list:
  - name: a
    tags: []
  - name: b
    tags:
      - one
      - "on"
none: {}
lines: |
  first
  second
quoted:
  - "1"
  - "true"
  - "null"
  - ""
  - "1:20"
  - "2026-11-21T09:16:30Z"
  - '# no comment'
  - "\e[2J"
  - <b> & 'c'
`, yamlOf(t, struct {
		Zeta    int            `json:"zeta"`
		Alpha   string         `json:"alpha"`
		Share   float64        `json:"share"`
		Small   float64        `json:"small"`
		Big     uint64         `json:"big"`
		Up      bool           `json:"up"`
		Nothing *int           `json:"nothing"`
		Left    string         `json:"left,omitempty"`
		List    []inner        `json:"list"`
		None    map[string]int `json:"none"`
		Lines   string         `json:"lines"`
		Quoted  []string       `json:"quoted"`
	}{
		Zeta: 1, Alpha: "text", Share: 0.5, Small: 1e-7, Big: 12345678901234567890, Up: true,
		List: []inner{{Name: "a", Tags: []string{}}, {Name: "b", Tags: []string{"one", "on"}}},
		None: map[string]int{}, Lines: "first\nsecond\n",
		Quoted: []string{"1", "true", "null", "", "1:20", "2026-11-21T09:16:30Z", "# no comment", "\x1b[2J", "<b> & 'c'"},
	}))
}

// FuzzYAML checks that a document is the same in YAML and in JSON, whatever text is in it.
func FuzzYAML(f *testing.F) {
	for _, text := range []string{"", " ", "\n", "a\nb", " a\n b\n\n", "\ta\n", "a: b", "- a", "\x00\x1b\u0085\u2028\ufeff\U0001f600", "!!int 1", "&a", "*a", "%", "`", "0x1f", "1_000", ".inf", "=", "<<", "---", "a #b", "\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		document := map[string]any{"text": text, "list": []any{text, map[string]any{"at": text}}}
		if _, taken := document[text]; !taken {
			document[text] = 1
		}
		want, err := json.Marshal(document)
		require.NoError(t, err)
		written := yamlOf(t, document)
		var read any
		require.NoError(t, yaml.Unmarshal([]byte(written), &read), written)
		got, err := json.Marshal(read)
		require.NoError(t, err, written)
		require.JSONEq(t, string(want), string(got), written)
	})
}
