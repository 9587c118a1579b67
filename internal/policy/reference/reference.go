// Package reference documents the fields of policies: as facts for people, as a part of
// docs/policy.md, and as a JSON schema for editors. All of it comes from the table of fields.
package reference

import (
	"fmt"
	"strings"

	"lbctl/internal/policy"
)

// Fact is one fact about a field.
type Fact struct{ Name, Text string }

// Facts returns the facts about a field besides its description.
func Facts(f policy.Field) []Fact {
	facts := []Fact{{"Values", f.Want}, {"Default", Default(f)}}
	if f.Unit != "" {
		facts = append(facts, Fact{"Unit", f.Unit})
	}
	facts = append(facts, Fact{"Example", Example(f)}, Fact{"Services", services(f)})
	if f.Operator {
		facts = append(facts, Fact{"Set by", "the operator only"})
	} else {
		facts = append(facts, Fact{"Set by", "the operator, and the service with the metadata key " + f.Key()})
	}
	if f.PerPath {
		facts = append(facts, Fact{"Paths", "can differ between paths and gRPC methods"})
	} else {
		facts = append(facts, Fact{"Paths", "one value for the whole service"})
	}
	return append(facts, Fact{"nginx", Since(f)})
}

// Default says what holds without the field: "1h for gRPC and TCP, 5m for HTTP".
func Default(f policy.Field) string {
	var texts []string // each once, in the order of the families
	families := map[string][]string{}
	for _, family := range f.Families {
		text, ok := f.Default[family]
		if !ok || text == "" {
			text = "none"
		}
		if families[text] == nil {
			texts = append(texts, text)
		}
		families[text] = append(families[text], familyNames[family])
	}
	if len(texts) == 1 {
		return texts[0]
	}
	for n, text := range texts {
		texts[n] = text + " for " + and(families[text])
	}
	return strings.Join(texts, ", ")
}

// Example is a setting as "lbctl policy set" takes it: "timeout.read=5s".
func Example(f policy.Field) string { return f.Name + "=" + f.Example }

var familyNames = map[string]string{policy.GRPC: "gRPC", policy.HTTP: "HTTP", policy.TCP: "TCP"}

func services(f policy.Field) string {
	names := make([]string, len(f.Families))
	for n, family := range f.Families {
		names[n] = familyNames[family]
	}
	return and(names)
}

func and(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// Since says which versions of nginx can apply the field.
func Since(f policy.Field) string {
	const every = "every version that lbctl supports"
	if f.Since != "" {
		return f.Since + " or later"
	}
	text := every
	for _, family := range f.Families {
		if version := f.SinceFor[family]; version != "" {
			text += fmt.Sprintf("; for %s %s or later", familyNames[family], version)
		}
	}
	return text
}

// Find returns the field with a name, or all whose names begin with it and a point: "timeout".
func Find(name string) ([]policy.Field, error) {
	var found []policy.Field
	for _, f := range policy.Fields() {
		if f.Name == name || strings.HasPrefix(f.Name, strings.TrimSuffix(name, ".")+".") {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		_, err := policy.Find(name)
		return nil, err
	}
	return found, nil
}
