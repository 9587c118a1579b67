package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// writeYAML prints value as the YAML of its JSON: with the same names, in the same order.
// So a type needs the tags and methods of encoding/json only.
func writeYAML(w io.Writer, value any) error {
	var document bytes.Buffer
	if err := writeJSON(&document, value); err != nil {
		return err
	}
	decoder := json.NewDecoder(&document)
	decoder.UseNumber() // keeps the digits
	node, err := yamlNode(decoder)
	if err != nil {
		return err
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(node); err != nil {
		return err
	}
	return encoder.Close()
}

// yamlNode reads the next JSON value.
func yamlNode(decoder *json.Decoder) (*yaml.Node, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Delim:
		node := &yaml.Node{Kind: yaml.MappingNode}
		if token == '[' {
			node.Kind = yaml.SequenceNode
		}
		for decoder.More() { // in an object, names and values take turns
			child, err := yamlNode(decoder)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
		if len(node.Content) == 0 {
			node.Style = yaml.FlowStyle // [] or {}
		}
		_, err := decoder.Token() // the end of the object or the list
		return node, err
	case string:
		return yamlText(token), nil
	case json.Number:
		return yamlNumber(token.String()), nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(token)}, nil
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	}
}

// yamlNumber returns a number. A float has a point, which readers of YAML 1.1 want: 1.0e-7.
func yamlNumber(text string) *yaml.Node {
	digits, exponent, _ := strings.Cut(text, "e")
	if digits == text && !strings.Contains(text, ".") {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: text}
	}
	if !strings.Contains(digits, ".") {
		text = digits + ".0e" + exponent
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: text}
}

// yaml11 matches the text that readers of YAML 1.1 take for a boolean, a number with base 60
// or something else, while the encoder, which follows YAML 1.2, would not quote it.
var yaml11 = regexp.MustCompile(`^(?i:y|yes|n|no|on|off|=|<<|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)$`)

// yamlText returns a string, with quotes where a reader could take it for something else.
func yamlText(text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	if yaml11.MatchString(text) || strings.Contains(text, "\n") && strings.TrimLeft(text, " \t\n") != text {
		node.Style = yaml.DoubleQuotedStyle // the indentation of a block would be ambiguous
	}
	return node
}
