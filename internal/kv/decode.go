package kv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"lbctl/internal/jsonobject"
)

// Decode reads a document strictly: unknown fields, a field that is given twice, and text
// after the end are errors.
func Decode(value []byte, into any) error {
	if err := noTwins(json.NewDecoder(bytes.NewReader(value))); err != nil {
		return fmt.Errorf("it is no valid JSON: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("it is no valid document: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("it is no valid JSON: there is text after its end, want one value")
	}
	return nil
}

// noTwins reads one value, and returns an error if an object in it has a field twice.
func noTwins(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if delim == '{' {
		return jsonobject.Members(d, func(string) error { return noTwins(d) })
	}
	for d.More() {
		if err := noTwins(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
