// Package policyfile reads files with policy documents, in YAML or JSON. A document is a mapping
// of fields, as in Consul, with the document's name:
//
//	name: service/cart
//	timeout.read: 5s
//	paths:
//	  /shop.Cart/Watch:
//	    timeout.read: 1h
//
// A file may have several: separated by "---", or in a list. The text of a value counts as it is
// in the file, so that "on", 1.10 and 5s mean what they say, whatever readers of YAML make of them.
package policyfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"lbctl/internal/policy"
)

// The members of a document that are not fields.
const (
	nameKey   = "name"
	pathsKey  = "paths"
	schemaKey = "$schema"
)

// Default is the name of the document about all services.
const Default = "default"

const servicePrefix = "service/"

var serviceName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`) // of the services that lbctl balances

// Name returns the name of the document that a user means: "default", or the name of a service
// as "cart" or "service/cart". The second form is for a service that is called default.
func Name(text string) (string, error) {
	if text == Default {
		return Default, nil
	}
	service := strings.TrimPrefix(text, servicePrefix)
	if !serviceName.MatchString(service) {
		return "", fmt.Errorf(`%q is no name of a policy, want "default", or a service as "cart" or "service/cart"`, text)
	}
	return servicePrefix + service, nil
}

// Service returns the service that a document is about, "" for Default.
func Service(name string) string {
	service, _ := strings.CutPrefix(name, servicePrefix)
	if service == name {
		return ""
	}
	return service
}

// Problems says what is wrong with a document in Consul. services are those in Consul; nil if they
// are not known.
func Problems(name string, value []byte, services []string) []string {
	problems := []string{}
	if again, err := Name(name); err != nil || again != name {
		return append(problems, `it is no policy: want the key of "default" or of "service/NAME"`)
	}
	if _, err := policy.ParseDocument(value); err != nil {
		problems = append(problems, strings.Split(err.Error(), "\n")...)
	}
	if service := Service(name); service != "" && services != nil && !slices.Contains(services, service) {
		problems = append(problems, "it matches nothing: Consul has no service "+service)
	}
	return problems
}

// Document is one document of a file.
type Document struct {
	// Name is the document's name in Consul: "default" or "service/cart".
	Name   string
	Policy policy.Document
	// Position is where it begins: "FILE:LINE".
	Position string
}

// MarshalJSON writes the document as Parse reads it.
func (d Document) MarshalJSON() ([]byte, error) {
	fields, err := d.Policy.MarshalJSON()
	if err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, "{%q:%q", nameKey, d.Name) // a name has no character to escape
	if !d.Policy.IsZero() {
		text = append(text, ',')
	}
	return append(text, fields[1:]...), nil
}

// Parse reads the documents of a file. source names it in messages; without it they name the lines only. The error has a line for
// each mistake, with the line of the file.
func Parse(source string, text []byte) ([]Document, error) {
	return parse(source, text, "")
}

// ParseOne reads the document with a name. It need not have the name, but no other.
func ParseOne(source string, text []byte, name string) (policy.Document, error) {
	documents, err := parse(source, text, name)
	switch {
	case err != nil:
		return policy.Document{}, err
	case len(documents) > 1:
		return policy.Document{}, fmt.Errorf("%s: a second document, want one", documents[1].Position)
	case len(documents) == 0:
		return policy.Document{}, nil
	}
	return documents[0].Policy, nil
}

func parse(source string, text []byte, name string) ([]Document, error) {
	roots, err := nodes(text)
	if err != nil {
		var at *syntaxError
		if errors.As(err, &at) && at.line > 0 {
			return nil, fmt.Errorf("%s: %s", position(source, at.line), at.message)
		}
		return nil, fmt.Errorf("%s: %w", cmp.Or(source, "the text"), err)
	}
	var all []Document
	var errs []error
	for _, root := range roots {
		r := reader{source: source}
		d := r.document(root, name)
		all = append(all, d)
		errs = append(errs, r.mistakes...)
	}
	return all, errors.Join(errs...)
}

// IsEmpty reports whether a text has nothing but comments.
func IsEmpty(text []byte) bool {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && string(line) != "---" {
			return false
		}
	}
	return true
}
