package printable

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// unsafe has texts that control a terminal.
var unsafe = map[string]string{
	"\x1b]52;c;aGk=\a": `\x1b]52;c;aGk=\a`, // writes to the clipboard
	"a\x00b":           `a\x00b`,
	"a\rb":             `a\rb`,
	"a\tb":             `a\tb`,
	"a\x7fb":           `a\x7fb`,
	"a\u009b31mb":      `a\u009b31mb`,
	"a\u061cb":         `a\u061cb`,
	"a\u200eb\u200f":   `a\u200eb\u200f`,
	"a\u202ab\u202e":   `a\u202ab\u202e`,
	"a\u2066b\u2069":   `a\u2066b\u2069`,
	"a\u2028b\u2029":   `a\u2028b\u2029`,
	"a\v\f\bb":         `a\v\f\bb`,
	"a\u200bb\u200d":   `a\u200bb\u200d`, // of no width
	"a\u2060b\ufeff":   `a\u2060b\ufeff`,
	"a\u00adb\u00a0":   `a\u00adb\u00a0`, // a soft hyphen, a space that looks like another
	"a\U000e0041b":     `a\U000e0041b`,   // a tag
	"a\u115fb\u3164":   `a\u115fb\u3164`, // Hangul fillers
	"a\u1160b\uffa0":   `a\u1160b\uffa0`,
	"a\u034fb\ufe0f":   `a\u034fb\ufe0f`, // a joiner, a variation selector
	"a\u2800b\ue000":   `a\u2800b\ue000`, // blank braille, for private use
	"a\xffb\xc3":       `a\xffb\xc3`,
	"one\ntwo":         "one; two",
}

func TestLine(t *testing.T) {
	for text, want := range unsafe {
		assert.Equal(t, want, Line(text))
		assert.Equal(t, want, Line(want), "printable text does not change")
		assert.Equal(t, `"`+Name(text)+`"`, Line(fmt.Sprintf("%q", text)), "a quoted name has the same escapes")
		assert.Equal(t, want, strings.ReplaceAll(Name(text), `\n`, "; "))
	}
	for _, text := range []string{"", "web-1", `a "b" \x`, "größer", "負荷分散", "부하", "👩", "e\u0301", "\ufffd"} {
		assert.Equal(t, text, Line(text))
	}
}

func TestLines(t *testing.T) {
	assert.Equal(t, "one\n\ttwo\\x1b[2J\n", Lines("one\n\ttwo\x1b[2J\n"))
}

type named string

type everything struct {
	ID      string `printable:"name"`
	Text    string
	Named   named
	List    []string
	Pointer *string
	Map     map[string]named
	Inner   struct{ Lists [][]string }
	At      time.Time
	Number  int
	Nothing *everything
}

func TestFields(t *testing.T) {
	const bad, good = "a\x1bb\nc", `a\x1bb; c`
	at, other := time.Now(), bad
	v := everything{
		ID: bad, Text: bad, Named: bad, List: []string{"x", bad}, Pointer: &other,
		Map: map[string]named{bad: bad}, At: at, Number: 7,
	}
	v.Inner.Lists = [][]string{{bad}}
	Fields(&v)
	want := good
	assert.Equal(t, everything{
		ID: `a\x1bb\nc`, Text: good, Named: good, List: []string{"x", good}, Pointer: &want,
		Map: map[string]named{good: good}, At: at, Number: 7,
		Inner: struct{ Lists [][]string }{[][]string{{good}}},
	}, v)

	text := bad
	FieldsOfLines(&text)
	assert.Equal(t, "a\\x1bb\nc", text)
}

// TestLog checks that a log in text format is printable. slog quotes everything but DEL.
func TestLog(t *testing.T) {
	for text := range unsafe {
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(Writer(&log), nil)).Warn("a problem", "subject", "service "+text, "error", errorText(text))
		line := bytes.TrimSuffix(log.Bytes(), []byte("\n"))
		assert.Equal(t, string(line), Line(string(line)))
		assert.NotContains(t, string(line), "\n", "a message can't forge a line")
	}
}

type errorText string

func (e errorText) Error() string { return string(e) }
