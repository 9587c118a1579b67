// Package printable makes text from other systems safe to show on a terminal. Anyone who
// may register in Consul can choose names and messages: an escape sequence could write to
// the clipboard of the user of 'lbctl services', a newline could forge a row of a table,
// and a bidirectional override could show a row in another order.
package printable

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line returns s as one printable line. It replaces control characters, characters that change
// the direction of text, line and paragraph separators, and bytes that are not UTF-8 by their
// escapes in a Go string: \x1b, \u202e, \xff. It joins lines with "; ".
func Line(s string) string { return escape(s, false) }

// Lines is Line for text of several lines: it keeps newlines and tabs.
func Lines(s string) string { return escape(s, true) }

func escape(s string, lines bool) string {
	if clean(s) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case lines && (r == '\n' || r == '\t'):
			out.WriteRune(r)
		case r == '\n':
			out.WriteString("; ")
		case !unsafeRune(r):
			out.WriteRune(r)
		case r == '\t':
			out.WriteString(`\t`)
		case r == '\r':
			out.WriteString(`\r`)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&out, `\x%02x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
		i += size
	}
	return out.String()
}

// clean reports whether s needs no escapes.
func clean(s string) bool { return utf8.ValidString(s) && strings.IndexFunc(s, unsafeRune) < 0 }

// unsafeRune reports whether r can control a terminal.
func unsafeRune(r rune) bool {
	switch {
	case unicode.IsControl(r): // C0, DEL and C1
		return true
	case unicode.Is(unicode.Bidi_Control, r): // U+061C, U+200E, U+200F, U+202A-E, U+2066-9
		return true
	default:
		return r == '\u2028' || r == '\u2029' // line and paragraph separator
	}
}

// Fields applies Line to every string in the value that v points to, in all its structs, slices
// and maps.
func Fields(v any) { fields(reflect.ValueOf(v), Line) }

// FieldsOfLines is Fields with Lines.
func FieldsOfLines(v any) { fields(reflect.ValueOf(v), Lines) }

func fields(v reflect.Value, safe func(string) string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fields(v.Elem(), safe)
		}
	case reflect.String:
		if v.CanSet() { // a field that is not exported can't be
			v.SetString(safe(v.String()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fields(v.Field(i), safe)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			fields(v.Index(i), safe)
		}
	case reflect.Map:
		mapFields(v, safe)
	}
}

// mapFields replaces the keys and values of a map, which can't be changed in place.
func mapFields(v reflect.Value, safe func(string) string) {
	if v.IsNil() || !v.CanSet() {
		return
	}
	result := reflect.MakeMapWithSize(v.Type(), v.Len())
	for _, key := range v.MapKeys() {
		newKey := reflect.New(v.Type().Key()).Elem()
		newKey.Set(key)
		fields(newKey, safe)
		value := reflect.New(v.Type().Elem()).Elem()
		value.Set(v.MapIndex(key))
		fields(value, safe)
		result.SetMapIndex(newKey, value)
	}
	v.Set(result)
}

// Writer returns a writer that applies Lines, for slog's text handler, which quotes values but
// does not escape DEL. Each Write must have complete characters.
func Writer(w io.Writer) io.Writer { return writer{w} }

type writer struct{ to io.Writer }

func (w writer) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.to, Lines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
