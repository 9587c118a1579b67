package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Level is the precedence of a layer.
type Level string

// The levels, the lowest precedence first. Below them is what is built in.
const (
	LevelDefault  Level = "default"  // the operator's document for all services
	LevelMetadata Level = "metadata" // what the service says
	LevelService  Level = "service"  // the operator's document for the service
)

var levels = []Level{LevelDefault, LevelMetadata, LevelService}

// Sources of values, besides the Consul keys of documents.
const (
	SourceBuiltIn  = "built in"
	SourceMetadata = "metadata"
)

// Layer is what one source says about a service.
type Layer struct {
	Level    Level    `json:"level"`
	Source   string   `json:"source"` // SourceMetadata, or the Consul key of a document: "lb/default"
	Document Document `json:"document"`
}

// Metadata is the layer of what a service says.
func Metadata(said Document) Layer { return Layer{LevelMetadata, SourceMetadata, said} }

// Settings is all that is said about how a service is balanced. It is immutable, and copies
// share their content. The zero Settings has the built-in defaults.
type Settings struct{ said *resolved }

// resolved is what layers say, merged.
type resolved struct {
	layers  []Layer
	general *Policy
	paths   []Path // wider ones first
	at      map[Path]*Policy
}

var builtIn = &Policy{}

// Resolve merges layers by their levels. What is said for a path wins over what is said for the
// whole service, whatever the levels: it is more specific.
func Resolve(layers ...Layer) Settings {
	layers = slices.DeleteFunc(slices.Clone(layers), func(l Layer) bool { return l.Document.IsZero() })
	if len(layers) == 0 {
		return Settings{}
	}
	slices.SortStableFunc(layers, func(a, b Layer) int { return slices.Index(levels, a.Level) - slices.Index(levels, b.Level) })
	s := &resolved{layers: layers, at: map[Path]*Policy{}}
	s.general = policyOf(s.values(""))
	for _, l := range layers {
		for path := range l.Document.paths {
			if !slices.Contains(s.paths, path) {
				s.paths = append(s.paths, path)
			}
		}
	}
	slices.SortFunc(s.paths, compareWidth)
	for _, path := range s.paths {
		s.at[path] = policyOf(s.values(path))
	}
	return Settings{s}
}

// compareWidth orders paths so that each comes after those that cover it.
func compareWidth(a, b Path) int {
	if n := len(strings.TrimPrefix(string(a), "=")) - len(strings.TrimPrefix(string(b), "=")); n != 0 {
		return n
	}
	return strings.Compare(string(a), string(b)) // "/a" covers "=/a", and "=" comes after "/"
}

// origin is the text of a value and where it comes from.
type origin struct {
	text, source string
	level        Level
	path         Path // for which it is said; "" is the whole service
	// with names the weaker layers that say some of the pairs, "lb/default, metadata".
	with string
}

// set reports whether there is a value, other than that of a switch that is off.
func (o origin) set() bool { return o.text != "" && o.text != BuiltIn && o.text != string(Off) }

// where returns the source, with the path if there is one, behind those of its other pairs.
func (o origin) where() string {
	where := o.source
	if o.path != "" {
		where += " for " + string(o.path)
	}
	if o.with != "" {
		return o.with + ", " + where
	}
	return where
}

// values returns the merged values for a path, by field.
func (s *resolved) values(path Path) map[string]origin {
	merged := map[string]origin{}
	add := func(l Layer, path Path, texts map[string]string) {
		for name, text := range texts {
			now := origin{text: text, source: l.Source, level: l.Level, path: path}
			if before, ok := merged[name]; ok && byName[name].kind == formPairs && text != BuiltIn && before.text != BuiltIn {
				if now.text = mergePairs(before.text, text); now.text != text {
					now.with = before.where()
				}
			}
			merged[name] = now
		}
	}
	for _, l := range s.layers {
		add(l, "", l.Document.fields)
	}
	if path == "" {
		return merged
	}
	for _, wider := range s.paths {
		if !wider.Covers(path) {
			continue
		}
		for _, l := range s.layers {
			add(l, wider, l.Document.paths[wider])
		}
	}
	return merged
}

func mergePairs(before, text string) string {
	pairs, more := map[string]string{}, map[string]string{}
	// Both are canonical texts.
	_ = json.Unmarshal([]byte(before), &pairs)
	_ = json.Unmarshal([]byte(text), &more)
	maps.Copy(pairs, more)
	return jsonText(pairs)
}

func policyOf(values map[string]origin) *Policy {
	var p Policy
	for name, v := range values {
		if v.text != BuiltIn {
			byName[name].set(&p, v.text)
		}
	}
	return &p
}

// General returns the policy of the service, without what is said for paths. It must not be
// changed.
func (s Settings) General() *Policy {
	if s.said == nil {
		return builtIn
	}
	return s.said.general
}

// Paths returns the paths that have settings of their own, wider ones first.
func (s Settings) Paths() []Path {
	if s.said == nil {
		return nil
	}
	return s.said.paths
}

// At returns the policy for the requests of a path: that of the narrowest path that covers it,
// or General. It must not be changed.
func (s Settings) At(path Path) *Policy {
	if n := s.narrowest(path); n != "" {
		return s.said.at[n]
	}
	return s.General()
}

// PathOf returns the path for which the value is said that a field has for the requests of a
// path; "" is the whole service.
func (s Settings) PathOf(name string, path Path) Path {
	paths := s.Paths()
	for n := len(paths) - 1; n >= 0; n-- {
		if !paths[n].Covers(path) {
			continue
		}
		for _, l := range s.said.layers {
			if _, ok := l.Document.paths[paths[n]][name]; ok {
				return paths[n]
			}
		}
	}
	return ""
}

func (s Settings) narrowest(path Path) Path {
	paths := s.Paths()
	for n := len(paths) - 1; n >= 0; n-- {
		if paths[n].Covers(path) {
			return paths[n]
		}
	}
	return ""
}

// Owner returns the path for which one of the fields is said, of a policy that At or General has
// returned; "" if that is the whole service. Of several paths it is the narrowest.
func (s Settings) Owner(p *Policy, fields ...string) Path {
	if s.said == nil || p == s.said.general {
		return ""
	}
	var of Path
	for path, at := range s.said.at {
		if at == p {
			of = path
		}
	}
	for _, path := range slices.Backward(s.said.paths) {
		if !path.Covers(of) {
			continue
		}
		for _, l := range s.said.layers {
			for _, field := range fields {
				if l.Document.text(path, field) != "" {
					return path
				}
			}
		}
	}
	return ""
}

// Explained is one field of a service's policy, and where it comes from.
type Explained struct {
	Field Field  `json:"-"`
	Name  string `json:"field"`
	Value string `json:"value"` // empty: nothing is set, and the field has no default
	// Source is a Layer's Source, with " for PATH" if it is said for a path. Before it are those of
	// other pairs of the value, each with ", ".
	Source string `json:"source"`
}

// Explain returns all fields that services of a family can have, with their values for the
// requests of a path; "" is the whole service.
func (s Settings) Explain(family string, path Path) []Explained {
	var values map[string]origin
	if s.said != nil {
		values = s.said.values(s.narrowest(path))
	}
	var all []Explained
	for _, f := range table {
		if !f.For(family) {
			continue
		}
		e := Explained{Field: f, Name: f.Name, Value: f.Default[family], Source: SourceBuiltIn}
		if v, ok := values[f.Name]; ok {
			e.Source = v.where()
			if v.text != BuiltIn {
				e.Value = v.text
			}
		}
		all = append(all, e)
	}
	return all
}

// says reports whether any layer says what a field is, for the service or for a path.
func (s Settings) says(name string) bool {
	return slices.ContainsFunc(s.Layers(), func(l Layer) bool {
		if l.Document.text("", name) != "" {
			return true
		}
		for path := range l.Document.paths {
			if l.Document.text(path, name) != "" {
				return true
			}
		}
		return false
	})
}

// Says returns who says what about a field of the whole service, for people: "its lb-check says
// "tcp"", or "lb/default says check "tcp"". It is "" if nobody does.
func (s Settings) Says(name string) string {
	if s.said == nil {
		return ""
	}
	v, ok := s.said.values("")[name]
	switch {
	case !ok:
		return ""
	case v.source == SourceMetadata:
		return fmt.Sprintf("its %s says %q", byName[name].Key(), v.text)
	}
	return fmt.Sprintf("%s says %s %q", v.source, name, v.text)
}

// Layer returns the document of a level; the zero one if the level says nothing.
func (s Settings) Layer(level Level) Document {
	for _, l := range s.Layers() {
		if l.Level == level {
			return l.Document
		}
	}
	return Document{}
}

// Replace returns the settings with another layer of its level.
func (s Settings) Replace(layer Layer) Settings {
	layers := slices.DeleteFunc(slices.Clone(s.Layers()), func(l Layer) bool { return l.Level == layer.Level })
	return Resolve(append(layers, layer)...)
}

// Layers returns the layers that say anything, the lowest precedence first.
func (s Settings) Layers() []Layer {
	if s.said == nil {
		return nil
	}
	return s.said.layers
}

// For returns the settings without the fields that have no effect on services of a family, or
// that this nginx can't apply. problems names those that the service or its own document sets.
// atLeast reports whether the version of nginx is at least the given one.
func (s Settings) For(family string, nginxVersion string, atLeast func(version string) bool) (usable Settings, problems []Problem) {
	if s.said == nil {
		return s, nil
	}
	usable, problems = s.without(func(l Layer, v Value) (why string, told bool) {
		// The default is for the services of all families.
		return v.unusable(family, nginxVersion, atLeast), v.Field.For(family) || l.Level != LevelDefault
	})
	return usable, append(problems, usable.broken()...)
}

// Without returns the settings without some fields, because of why. problems names those that the
// service or its own document sets.
func (s Settings) Without(fields []string, why string) (usable Settings, problems []Problem) {
	if s.said == nil {
		return s, nil
	}
	return s.without(func(l Layer, v Value) (string, bool) {
		if !slices.Contains(fields, v.Field.Name) {
			return "", false
		}
		return why, l.Level != LevelDefault
	})
}

// without returns the settings without the values that unusable gives a reason for. problems names
// those that are to be told.
func (s Settings) without(unusable func(Layer, Value) (why string, told bool)) (usable Settings, problems []Problem) {
	layers := slices.Clone(s.said.layers)
	for n := range layers {
		l := &layers[n]
		for _, v := range l.Document.Values() {
			why, told := unusable(*l, v)
			if why == "" {
				continue
			}
			if told {
				problems = append(problems, Problem{[]string{l.Source}, fmt.Sprintf("%s: %s: %s", l.Source, v, why)})
			}
			_, _ = l.Document.UnsetAt(string(v.Path), v.Field.Name) // a value of the document
		}
	}
	return Resolve(layers...), problems
}

// unusable returns why a value has no effect, "" if it has one.
func (v Value) unusable(family, nginxVersion string, atLeast func(version string) bool) string {
	switch {
	case !v.Field.For(family), v.Path != "" && family == TCP:
		return fmt.Sprintf("it has no effect on %s services", family)
	case family == GRPC && strings.Count(string(v.Path), "/") > 2:
		return `it has no effect: paths of gRPC are "/package.Service" or "/package.Service/Method"`
	}
	if v.Text == BuiltIn {
		return ""
	}
	if v.Field.suits != nil {
		if why := v.Field.suits(family, v); why != "" {
			return why
		}
	}
	since := cmp.Or(v.Field.Since, v.Field.SinceFor[family])
	if since != "" && !atLeast(since) {
		return fmt.Sprintf("it has no effect with nginx %s, want %s or later", nginxVersion, since)
	}
	return ""
}

// Changes returns the names of the fields that another policy has other values of, for the whole
// service or for a path, in the order of Fields.
func (s Settings) Changes(o Settings) []string {
	differ := map[string]bool{}
	compare := func(a, b *Policy) {
		for _, f := range table {
			if f.text(a) != f.text(b) {
				differ[f.Name] = true
			}
		}
	}
	compare(s.General(), o.General())
	for _, path := range slices.Concat(s.Paths(), o.Paths()) {
		compare(s.At(path), o.At(path))
	}
	var fields []string
	for _, f := range table {
		if differ[f.Name] {
			fields = append(fields, f.Name)
		}
	}
	return fields
}

// Equal reports whether the same layers say the same.
func (s Settings) Equal(o Settings) bool {
	if s.said == o.said {
		return true
	}
	return slices.EqualFunc(s.Layers(), o.Layers(), func(a, b Layer) bool {
		return a.Level == b.Level && a.Source == b.Source && a.Document.Equal(b.Document)
	})
}

// IsZero reports whether no layer says anything.
func (s Settings) IsZero() bool { return s.said == nil }

// MarshalJSON writes the layers.
func (s Settings) MarshalJSON() ([]byte, error) { return json.Marshal(s.Layers()) }

// UnmarshalJSON reads what MarshalJSON wrote, without what this lbctl does not know.
func (s *Settings) UnmarshalJSON(b []byte) error {
	var layers []Layer
	if err := json.Unmarshal(b, &layers); err != nil {
		return err
	}
	*s = Resolve(layers...)
	return nil
}
