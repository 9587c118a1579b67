package jsonobject

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMembers(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                         "",
		`{"b": {"b": 1}, "a": [2]} `: `b={"b": 1} a=[2]`,
		`{"a": 1, "b": 2, "a": 3}`:   `a=1 b=2 error: "a" is there twice`,
		`{"a": 1, "\u0061": 2}`:      `a=1 error: "a" is there twice`,
		`{"a": 1`:                    "a=1 error: EOF",
		`{"a"}`:                      "error: expected colon after object key",
		`{"a": 1]`:                   "a=1 error: invalid character ']' after object key:value pair",
	} {
		d := json.NewDecoder(strings.NewReader(text))
		_, err := d.Token()
		require.NoError(t, err)
		var got []string
		if err := Members(d, func(name string) error {
			var value json.RawMessage
			err := d.Decode(&value)
			if err == nil {
				got = append(got, name+"="+string(value))
			}
			return err
		}); err != nil {
			got = append(got, "error: "+err.Error())
		}
		assert.Equal(t, want, strings.Join(got, " "), text)
	}
}
