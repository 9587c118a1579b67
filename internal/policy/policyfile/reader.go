package policyfile

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"lbctl/internal/policy"
	"lbctl/internal/spelling"
)

// reader turns the nodes of one document into a Document, and collects the mistakes.
type reader struct {
	source   string
	mistakes []error
}

func (r *reader) position(n *yaml.Node) string { return position(r.source, n.Line) }

func position(source string, line int) string {
	if source == "" {
		return fmt.Sprintf("line %d", line)
	}
	return fmt.Sprintf("%s:%d", source, line)
}

func (r *reader) mistake(at *yaml.Node, format string, args ...any) {
	r.mistakes = append(r.mistakes, fmt.Errorf("%s: %w", r.position(at), fmt.Errorf(format, args...)))
}

// document reads a document. expected is its name, "" if the document has to say it.
func (r *reader) document(root *yaml.Node, expected string) Document {
	d := Document{Name: expected, Position: r.position(root)}
	named := false
	r.each(root, "a document", func(key, value *yaml.Node) {
		switch key.Value {
		case nameKey:
			named = true
			r.name(&d, value, expected)
		case schemaKey: // for editors
		case pathsKey:
			r.each(value, "paths", func(path, fields *yaml.Node) {
				r.each(fields, fmt.Sprintf("path %q", path.Value), func(key, value *yaml.Node) { r.set(&d.Policy, path.Value, key, value) })
			})
		default:
			r.set(&d.Policy, "", key, value)
		}
	})
	if !named && expected == "" && resolve(root).Kind == yaml.MappingNode {
		r.mistake(root, `the document has no name, want "name: default" or "name: service/NAME"`)
	}
	return d
}

func (r *reader) name(d *Document, value *yaml.Node, expected string) {
	text, err := scalar(resolve(value))
	if err != nil {
		r.mistake(value, "name: %w", err)
		return
	}
	name, err := Name(text)
	switch {
	case err != nil:
		r.mistake(value, "name: %w", err)
	case expected != "" && name != expected:
		r.mistake(value, "name %q, want %q: a document can't be renamed", text, expected)
	default:
		d.Name = name
	}
}

// each calls do for the members of a mapping.
func (r *reader) each(n *yaml.Node, what string, do func(key, value *yaml.Node)) {
	at := n
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		r.mistake(at, "%s: found %s, want a mapping", what, kindOf(n))
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if key.Kind != yaml.ScalarNode {
			r.mistake(n.Content[i], "%s: a key is %s, want a text", what, kindOf(key))
			continue
		}
		if line := lines[key.Value]; line > 0 {
			r.mistake(n.Content[i], "%q is there twice, first in line %d", key.Value, line)
			continue
		}
		lines[key.Value] = n.Content[i].Line
		do(key, n.Content[i+1])
	}
}

// set sets a field to the value of a node.
func (r *reader) set(d *policy.Document, path string, key, value *yaml.Node) {
	text, err := valueText(resolve(value))
	if err == nil {
		err = d.SetAt(path, key.Value, text)
	} else {
		err = fmt.Errorf("%s: %w", key.Value, err)
	}
	if err == nil {
		return
	}
	if meant := spelling.Nearest(key.Value, []string{nameKey, pathsKey}); meant != "" && path == "" && !strings.Contains(key.Value, ".") && !known(key.Value) {
		err = fmt.Errorf("unknown field %q, did you mean %s?", key.Value, meant)
	}
	r.mistake(key, "%w", err)
}

func known(field string) bool {
	return slices.ContainsFunc(policy.Fields(), func(f policy.Field) bool { return f.Name == field })
}

// valueText returns a value as policy.Document.Set takes it.
func valueText(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.SequenceNode:
		words := []string{}
		for _, element := range n.Content {
			word, err := scalar(resolve(element))
			if err != nil {
				return "", err
			}
			words = append(words, word)
		}
		return jsonText(words), nil
	case yaml.MappingNode:
		pairs := map[string]string{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, err := scalar(resolve(n.Content[i]))
			if err != nil {
				return "", err
			}
			if _, twice := pairs[name]; twice {
				return "", fmt.Errorf("%q is there twice", name)
			}
			if pairs[name], err = scalar(resolve(n.Content[i+1])); err != nil {
				return "", err
			}
		}
		return jsonText(pairs), nil
	default:
		return scalar(n)
	}
}

var plainInteger = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*)$`)

// scalar returns the text of a scalar as it is in the file. It refuses what readers of YAML
// understand in different ways.
func scalar(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode {
		return "", fmt.Errorf("found %s, want a single value", kindOf(n))
	}
	switch tag := n.ShortTag(); tag {
	case "!!null":
		return "", fmt.Errorf("there is no value: leave the line out, or write %q for the built-in value", policy.BuiltIn)
	case "!!bool":
		return strings.ToLower(n.Value), nil
	case "!!int":
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 && !plainInteger.MatchString(n.Value) {
			return "", fmt.Errorf("%s is a number that readers of YAML understand in different ways: write it with decimal digits only, or in quotes", n.Value)
		}
	case "!!str", "!!float", "!!timestamp", "!!merge":
	default:
		return "", fmt.Errorf("tag %s, want none", tag)
	}
	return n.Value, nil
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias // which is no alias
	}
	return n
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!null":
		return "nothing"
	}
	return fmt.Sprintf("%q", n.Value)
}

func jsonText(v any) string {
	text, _ := json.Marshal(v) // strings can always be encoded
	return string(text)
}
