// Package printable makes text from other systems safe to show on a terminal. Anyone who
// may register in Consul can choose names and messages: an escape sequence could write to
// the clipboard of the user of 'lbctl services', a newline could forge a row of a table,
// and a bidirectional override could show a row in another order.
package printable

import (
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line returns s as one printable line. It replaces control characters, characters that are not
// seen or change the direction of text, and bytes that are not UTF-8 by their escapes in a Go
// string, as %q does: \a, \x1b, \u202e, \U000e0041, \xff. It joins lines with "; ".
func Line(s string) string { return escape(s, "; ", `\t`) }

// Name is Line for a name, in which a line break is no separator: it is \n, as %q has it.
func Name(s string) string { return escape(s, `\n`, `\t`) }

// Lines is Line for text of several lines: it keeps newlines and tabs.
func Lines(s string) string { return escape(s, "\n", "\t") }

// escape writes newline and tab for these characters.
func escape(s, newline, tab string) string {
	if clean(s) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case r == '\n':
			out.WriteString(newline)
		case r == '\t':
			out.WriteString(tab)
		case !unsafeRune(r):
			out.WriteRune(r)
		default:
			escaped := strconv.QuoteRuneToASCII(r)
			out.WriteString(escaped[1 : len(escaped)-1])
		}
		i += size
	}
	return out.String()
}

// clean reports whether s needs no escapes.
func clean(s string) bool { return utf8.ValidString(s) && strings.IndexFunc(s, unsafeRune) < 0 }

// unsafeRune reports whether r can control a terminal, or is not seen there: two names that
// differ in such a character would look the same.
func unsafeRune(r rune) bool {
	// Some letters and marks, which count as printable, are not seen either: Hangul fillers,
	// joiners, variation selectors, the blank braille pattern.
	return !strconv.IsPrint(r) || r == '\u2800' ||
		r > unicode.MaxLatin1 && unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// Fields applies Line to every string in the value that v points to, in all its structs, slices
// and maps. It applies Name to fields with the tag `printable:"name"`.
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
			if v.Type().Field(i).Tag.Get("printable") == "name" {
				fields(v.Field(i), Name)
				continue
			}
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
