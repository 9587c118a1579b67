package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"lbctl/internal/jsonobject"
	"lbctl/internal/printable"
)

// BuiltIn is the value that puts a field back to its built-in default, whatever other layers
// say.
const BuiltIn = "default"

// pathsKey is the key of a document that has the paths with settings of their own.
const pathsKey = "paths"

// maxPaths bounds the paths of one document: each may become a location of nginx.
const maxPaths = 64

// Document is what one layer says: canonical texts by field name, and the same for paths. The
// zero Document says nothing.
type Document struct {
	fields map[string]string
	paths  map[Path]map[string]string
}

// ParseDocument reads a document in JSON: an object of fields by name, with "paths" as an object
// of such objects by path. The error names all mistakes, one a line.
func ParseDocument(b []byte) (Document, error) {
	members, err := object(json.RawMessage(b))
	if err != nil {
		return Document{}, fmt.Errorf("not a JSON object: %w", err)
	}
	var d Document
	var errs []error
	for _, m := range members {
		if m.name != pathsKey {
			errs = append(errs, d.setJSON("", m))
			continue
		}
		errs = append(errs, d.setPaths(m.value))
	}
	if err := errors.Join(errs...); err != nil {
		return Document{}, err
	}
	return d, nil
}

// SetPaths sets fields for paths, as in the member "paths" of a document in JSON, for a service
// itself: it can't set the fields that are the operator's only. The error names all mistakes.
func (d *Document) SetPaths(text string) error {
	var said Document
	errs := []error{said.setPaths(json.RawMessage(text))}
	for _, v := range said.Values() {
		if v.Field.Operator {
			errs = append(errs, fmt.Errorf("path %q: only the operator can set %s", v.Path, v.Field.Name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	d.paths = said.paths
	return nil
}

func (d *Document) setPaths(value json.RawMessage) error {
	paths, err := object(value)
	if err != nil {
		return fmt.Errorf("want a JSON object of paths, each with an object of fields: %w", err)
	}
	var errs []error
	for _, p := range paths {
		fields, err := object(p.value)
		if err != nil {
			errs = append(errs, fmt.Errorf("path %q: want a JSON object of fields: %w", printable.Shorten(p.name), err))
			continue
		}
		if _, err := ParsePath(p.name); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, f := range fields {
			if err := d.setJSON(p.name, f); err != nil {
				errs = append(errs, fmt.Errorf("path %q: %w", printable.Shorten(p.name), err))
			}
		}
	}
	return errors.Join(errs...)
}

// member is one member of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// object returns the members of a JSON object in their order.
func object(b json.RawMessage) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	start, err := d.Token()
	if err != nil {
		return nil, plain(err)
	}
	if start != json.Delim('{') {
		return nil, fmt.Errorf("found %s", printable.Shorten(string(bytes.TrimSpace(b))))
	}
	var members []member
	err = jsonobject.Members(d, func(name string) error {
		m := member{name: name}
		err := d.Decode(&m.value)
		members = append(members, m)
		return err
	})
	if err != nil {
		return nil, plain(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more after its end")
	}
	return members, nil
}

func plain(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ends too early")
	}
	return err
}

func (d *Document) setJSON(path string, m member) error {
	text, err := valueText(m)
	if err != nil {
		return err
	}
	return d.SetAt(path, m.name, text)
}

// valueText turns a value in JSON into the text of the value.
func valueText(m member) (string, error) {
	value := bytes.TrimSpace(m.value)
	switch value[0] {
	case '"':
		var text string
		err := json.Unmarshal(value, &text)
		return text, err
	case '{':
		members, err := object(json.RawMessage(value))
		if err != nil {
			return "", fmt.Errorf("%s: %w", m.name, err)
		}
		pairs := make(map[string]string, len(members))
		for _, p := range members {
			if pairs[p.name], err = wordText(m.name, p.value); err != nil {
				return "", err
			}
		}
		return jsonText(pairs), nil
	case '[':
		var words []json.RawMessage
		if err := json.Unmarshal(value, &words); err != nil {
			return "", fmt.Errorf("%s: %w", m.name, err)
		}
		texts := make([]string, len(words))
		for n, word := range words {
			var err error
			if texts[n], err = wordText(m.name, word); err != nil {
				return "", err
			}
		}
		return jsonText(texts), nil
	case 'n':
		return "", fmt.Errorf("%s is null: leave it out, or write %q for its built-in value", m.name, BuiltIn)
	}
	return string(value), nil // a number, true or false
}

// wordText returns the text of one element of a list, or of one value of an object.
func wordText(field string, value json.RawMessage) (string, error) {
	value = bytes.TrimSpace(value)
	if bytes.ContainsAny(value[:1], "{[n") {
		return "", fmt.Errorf("%s has %s in it, want only texts and numbers there", field, printable.Shorten(string(value)))
	}
	return valueText(member{field, value})
}

// Set sets a field to the value of a text, such as "5s", or to BuiltIn.
func (d *Document) Set(name, text string) error { return d.SetAt("", name, text) }

// SetAt is like Set for the requests of a path; "" is the whole service.
func (d *Document) SetAt(path, name, text string) error {
	f, err := Find(name)
	if err != nil {
		return err
	}
	canonical, ok := BuiltIn, true
	if text != BuiltIn {
		canonical, ok = f.canonical(text)
	}
	if !ok {
		return f.Bad(f.Name, text)
	}
	if path == "" {
		d.fields = with(d.fields, name, canonical)
		return nil
	}
	p, err := ParsePath(path)
	if err != nil {
		return err
	}
	if !f.PerPath {
		return fmt.Errorf("%s can't differ between the paths of a service", name)
	}
	if _, known := d.paths[p]; !known && len(d.paths) == maxPaths {
		return fmt.Errorf("more than %d paths, want at most %d", maxPaths, maxPaths)
	}
	d.paths = with(d.paths, p, with(d.paths[p], name, canonical))
	return nil
}

// with returns a copy of a map with another value.
func with[K comparable, V any](m map[K]V, key K, value V) map[K]V {
	m = maps.Clone(m)
	if m == nil {
		m = map[K]V{}
	}
	m[key] = value
	return m
}

// Unset removes a field, so that the other layers say what it is. It reports whether the
// document had it.
func (d *Document) Unset(name string) (had bool, err error) { return d.UnsetAt("", name) }

// UnsetAt is like Unset for the requests of a path.
func (d *Document) UnsetAt(path, name string) (had bool, err error) {
	if _, err := Find(name); err != nil {
		return false, err
	}
	if path == "" {
		_, had = d.fields[name]
		d.fields = maps.Clone(d.fields)
		delete(d.fields, name)
		return had, nil
	}
	p, err := ParsePath(path)
	if err != nil {
		return false, err
	}
	_, had = d.paths[p][name]
	if had {
		d.paths = with(d.paths, p, maps.Clone(d.paths[p]))
		if delete(d.paths[p], name); len(d.paths[p]) == 0 {
			delete(d.paths, p)
		}
	}
	return had, nil
}

// Value is one value of a document.
type Value struct {
	Path  Path // empty: the whole service
	Field Field
	Text  string // canonical, or BuiltIn
}

// String returns the value for people: "timeout.read 5s for /api".
func (v Value) String() string {
	text := v.Field.Name + " " + printable.Shorten(v.Text)
	if v.Path != "" {
		text += " for " + string(v.Path)
	}
	return text
}

// Values returns what the document says: first for the whole service, then by path, each in
// the order of Fields.
func (d Document) Values() []Value {
	var all []Value
	add := func(path Path, texts map[string]string) {
		for _, f := range table {
			if text, ok := texts[f.Name]; ok {
				all = append(all, Value{path, f, text})
			}
		}
	}
	add("", d.fields)
	for _, path := range slices.Sorted(maps.Keys(d.paths)) {
		add(path, d.paths[path])
	}
	return all
}

// IsZero reports whether the document says nothing.
func (d Document) IsZero() bool { return len(d.fields) == 0 && len(d.paths) == 0 }

// Equal reports whether both say the same.
func (d Document) Equal(o Document) bool {
	return maps.Equal(d.fields, o.fields) &&
		maps.EqualFunc(d.paths, o.paths, func(a, b map[string]string) bool { return maps.Equal(a, b) })
}

// MarshalJSON writes the document as ParseDocument reads it, with fields in the order of
// Fields.
func (d Document) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	d.write(&b, d.fields)
	if len(d.paths) > 0 {
		if len(d.fields) > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:{", pathsKey)
		for n, path := range slices.Sorted(maps.Keys(d.paths)) {
			if n > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%s:{", jsonText(string(path)))
			d.write(&b, d.paths[path])
			b.WriteByte('}')
		}
		b.WriteByte('}')
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (d Document) write(b *bytes.Buffer, texts map[string]string) {
	first := true
	for _, f := range table {
		text, ok := texts[f.Name]
		if !ok {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		fmt.Fprintf(b, "%s:%s", jsonText(f.Name), f.jsonValue(text))
	}
}

// jsonValue writes the canonical text of a value as JSON.
func (f Field) jsonValue(text string) string {
	switch {
	case text == BuiltIn:
	case f.kind == formNumber, f.kind == formList, f.kind == formPairs:
		return text
	case f.kind == formBool:
		return strconv.FormatBool(text == string(On))
	}
	return jsonText(text)
}

// UnmarshalJSON reads a document that lbctl has stored. It leaves out what it does not know: a
// newer lbctl may have stored it.
func (d *Document) UnmarshalJSON(b []byte) error {
	members, err := object(b)
	if err != nil {
		return err
	}
	*d = Document{}
	for _, m := range members {
		if m.name == pathsKey {
			_ = d.setPaths(m.value)
		} else {
			_ = d.setJSON("", m)
		}
	}
	return nil
}

// Common returns, for each field, the value that most documents have; those without the field
// count too. Of several, it is the lowest text.
func Common(documents []Document) Document {
	var common Document
	for path, names := range said(documents) {
		for name := range names {
			count := map[string]int{}
			for _, d := range documents {
				count[d.text(path, name)]++
			}
			winner := ""
			for _, text := range slices.Sorted(maps.Keys(count)) {
				if count[text] > count[winner] {
					winner = text
				}
			}
			if winner != "" {
				_ = common.SetAt(string(path), name, winner) // it is a value of a document
			}
		}
	}
	return common
}

// said returns the fields that any of the documents has, by path; "" is the whole service.
func said(documents []Document) map[Path]map[string]bool {
	all := map[Path]map[string]bool{}
	for _, d := range documents {
		for _, v := range d.Values() {
			if all[v.Path] == nil {
				all[v.Path] = map[string]bool{}
			}
			all[v.Path][v.Field.Name] = true
		}
	}
	return all
}

func (d Document) text(path Path, name string) string {
	if path == "" {
		return d.fields[name]
	}
	return d.paths[path][name]
}
