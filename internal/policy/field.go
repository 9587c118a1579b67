package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"lbctl/internal/printable"
	"lbctl/internal/spelling"
)

// Field describes one field of a policy.
type Field struct {
	Name    string // "timeout.read"
	Doc     string // what it does, in sentences
	Want    string // which values it takes, as in "want a whole number from 1 to 10"
	Unit    string // "duration", "bytes" ...; empty if the value has none
	Example string // a value
	// Default is the text of the built-in value by family; none means that nothing happens
	// without the field. A family that is not in it can't have the field, unless Families
	// names it.
	Default map[string]string
	// Families has the families of protocols that can have the field.
	Families []string
	// Operator is true if only the operator can set it, in Consul's KV: not the service itself
	// in its metadata.
	Operator bool
	// PerPath is true if it can differ between the paths of a service.
	PerPath bool
	// Since is the first version of nginx that has what it needs; empty means all that lbctl
	// supports.
	Since string
	// SinceFor is like Since, for the services of one family.
	SinceFor map[string]string

	// Values are all values that it takes, if they can be listed; those of an element if it
	// takes a list.
	Values []string
	// Begins are values that it takes, and beginnings of such, which end with ":": if Values
	// can't be listed because some of them have a parameter.
	Begins []string
	// Bounds are the smallest and the largest value, if values have an order.
	Bounds []string

	suits    func(family string, v Value) string
	kind     form
	schema   map[string]any
	set      func(p *Policy, text string) bool
	text     func(p *Policy) string
	fits     func(p *Policy) bool
	offender func(text string) string
	why      func(offender string) string
}

// option changes a Field in the table.
type option func(*Field)

// field makes a Field of a leaf of Policy.
func field[T any](name string, leaf func(*Policy) *T, k kind[T], example, doc string, options ...option) Field {
	f := Field{
		Name: name, Doc: doc, Want: k.want, Example: example,
		Families: []string{GRPC, HTTP},
		Values:   k.values,
		Bounds:   k.bounds,
		kind:     k.json,
		schema:   k.schema,
		set: func(p *Policy, text string) bool {
			v, ok := k.parse(text)
			if ok {
				*leaf(p) = v
			}
			return ok
		},
		text: func(p *Policy) string { return k.text(*leaf(p)) },
		fits: func(p *Policy) bool { return k.fits == nil || k.fits(*leaf(p)) },

		offender: k.offender,
		why:      k.why,
	}
	for _, o := range options {
		o(&f)
	}
	return f
}

// defaults gives the built-in values: one for all families of the field, or pairs of family
// and value.
func defaults(values ...string) option {
	return func(f *Field) {
		f.Default = map[string]string{}
		if len(values) == 1 {
			for _, family := range f.Families {
				f.Default[family] = values[0]
			}
			return
		}
		for n := 0; n < len(values); n += 2 {
			f.Default[values[n]] = values[n+1]
		}
	}
}

func families(names ...string) option { return func(f *Field) { f.Families = names } }

func unit(name string) option { return func(f *Field) { f.Unit = name } }

// perPath is for fields that nginx applies in a location.
func perPath(f *Field) { f.PerPath = true }

// operatorOnly is for fields that name files or let requests in.
func operatorOnly(f *Field) { f.Operator = true }

// begins is for fields of which some values have a parameter.
func begins(values ...string) option { return func(f *Field) { f.Begins = values } }

// since is for fields that need a version of nginx.
func since(version string) option {
	return func(f *Field) { f.Since = version }
}

// sinceOf is for fields that need a version of nginx for the services of one family.
func sinceOf(family, version string) option {
	return func(f *Field) { f.SinceFor = map[string]string{family: version} }
}

// suits is for fields of which some values, or paths, have no effect on the services of a family:
// why is "" for those that have one.
func suits(why func(family string, v Value) string) option {
	return func(f *Field) { f.suits = why }
}

// For reports whether services of a family can have the field.
func (f Field) For(family string) bool { return slices.Contains(f.Families, family) }

// Key returns the metadata key of the field, or "" if it has none: "lb-timeout-read".
func (f Field) Key() string {
	if f.Operator {
		return ""
	}
	return "lb-" + strings.ReplaceAll(f.Name, ".", "-")
}

// Schema returns a JSON schema of the field's values, without BuiltIn. It may accept values that
// the field does not. It must not be changed.
func (f Field) Schema() map[string]any {
	if f.schema != nil {
		return f.schema
	}
	types := map[form]string{formString: "string", formNumber: "number", formBool: "boolean", formList: "array", formPairs: "object"}
	return map[string]any{"type": types[f.kind]}
}

// canonical checks the text of a value, and returns its canonical form.
func (f Field) canonical(text string) (string, bool) {
	var p Policy
	if !f.set(&p, text) || !f.fits(&p) {
		return "", false
	}
	return f.text(&p), true
}

// Bad returns the error for a value that the field can't have. as is what the field is called
// there: its name, or its metadata key.
func (f Field) Bad(as, found string) error {
	if f.offender != nil {
		found = cmp.Or(f.offender(found), found)
	}
	if f.why != nil {
		if why := f.why(found); why != "" {
			return fmt.Errorf("%s %q: %s", as, printable.Shorten(found), why)
		}
	}
	return fmt.Errorf("%s %q, want %s", as, printable.Shorten(found), f.Want)
}

// Fields returns all fields, in the order of the documentation.
func Fields() []Field { return table }

// Find returns the field with the name.
func Find(name string) (Field, error) {
	if f, ok := byName[name]; ok {
		return f, nil
	}
	return Field{}, unknown(name)
}

// Default returns the built-in value of a field for a family.
func Default(family, name string) (string, error) {
	f, err := Find(name)
	if err != nil {
		return "", err
	}
	text, ok := f.Default[family]
	if !ok {
		return "", fmt.Errorf("%s has no built-in value for %s", name, family)
	}
	return text, nil
}

func unknown(name string) error {
	var below []string
	for _, known := range names {
		if strings.HasPrefix(known, name+".") {
			below = append(below, known)
		}
	}
	if len(below) > 0 {
		return fmt.Errorf("%q is not a field, want one of %s", printable.Shorten(name), strings.Join(below, ", "))
	}
	if meant := spelling.Nearest(name, names); meant != "" {
		return fmt.Errorf("unknown field %q, did you mean %s?", printable.Shorten(name), meant)
	}
	return fmt.Errorf(`unknown field %q: "lbctl policy explain" lists all fields`, printable.Shorten(name))
}

var (
	table = slices.Concat(
		instanceFields, outlierFields, timeoutFields, limitFields,
		balanceFields, retryFields, bufferingFields, keepaliveFields,
		headerFields, compressionFields, corsFields, redirectFields, pathFields,
		authFields,
		mirrorFields, tlsFields, maintenanceFields, healthFields,
	)
	byName, names = index(table)
)

func index(table []Field) (byName map[string]Field, names []string) {
	byName = map[string]Field{}
	for _, f := range table {
		byName[f.Name] = f
		names = append(names, f.Name)
	}
	return byName, names
}
