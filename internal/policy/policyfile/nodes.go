package policyfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// syntaxError is the error of a text that is no YAML.
type syntaxError struct {
	line    int // 0 if it is not known
	message string
}

func (e *syntaxError) Error() string { return e.message }

// nodes returns the documents of a text, without those that have only comments.
func nodes(text []byte) ([]*yaml.Node, error) {
	roots, ok := jsonNodes(text)
	if !ok {
		var err error
		if roots, err = yamlNodes(text); err != nil {
			return nil, err
		}
	}
	var all []*yaml.Node
	for _, root := range roots {
		switch {
		case root.Kind == yaml.SequenceNode:
			all = append(all, root.Content...)
		case root.ShortTag() != "!!null":
			all = append(all, root)
		}
	}
	return all, nil
}

var yamlMessage = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(.*)$`)

func yamlNodes(text []byte) (roots []*yaml.Node, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			if match := yamlMessage.FindStringSubmatch(err.Error()); match != nil {
				line, _ := strconv.Atoi(match[1]) // 0 for none
				err = &syntaxError{line, "no valid YAML: " + match[2]}
			}
			return nil, err
		}
		roots = append(roots, document.Content...)
	}
}

// jsonNodes reads JSON values; false if the text is something else. JSON is almost YAML, but
// for some escapes, and for values that follow each other without "---".
func jsonNodes(text []byte) (roots []*yaml.Node, ok bool) {
	if start := bytes.TrimSpace(text); len(start) == 0 || start[0] != '{' && start[0] != '[' {
		return nil, false
	}
	p := jsonParser{text: text, decoder: json.NewDecoder(bytes.NewReader(text))}
	p.decoder.UseNumber() // keeps the digits
	for {
		root, err := p.node(0)
		if errors.Is(err, io.EOF) {
			return roots, true
		}
		if err != nil {
			return nil, false
		}
		roots = append(roots, root)
	}
}

type jsonParser struct {
	text    []byte
	decoder *json.Decoder
	lines   int   // before seen
	seen    int64 // how much of the text has been counted
}

// line returns the line in which the last token ends.
func (p *jsonParser) line() int {
	end := p.decoder.InputOffset()
	p.lines += bytes.Count(p.text[p.seen:end], []byte("\n"))
	p.seen = end
	return 1 + p.lines
}

// maxDepth is how deep JSON may be nested. A document needs 5 levels.
const maxDepth = 50

// node reads the next value.
func (p *jsonParser) node(depth int) (*yaml.Node, error) {
	token, err := p.decoder.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errors.New("nested too deep")
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.line()}
	switch token := token.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		if token == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		for p.decoder.More() { // in an object, names and values take turns
			child, err := p.node(depth + 1)
			if err != nil {
				return nil, unexpected(err)
			}
			n.Content = append(n.Content, child)
		}
		if _, err := p.decoder.Token(); err != nil { // the end of the object or the list
			return nil, unexpected(err)
		}
	case string:
		n.Tag, n.Value, n.Style = "!!str", token, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!float", token.String()
	case bool:
		n.Tag, n.Value = "!!bool", fmt.Sprint(token)
	default:
		n.Tag = "!!null"
	}
	return n, nil
}

// unexpected is the error of a value that ends too early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
