// Package jsonobject reads JSON objects strictly: encoding/json alone accepts a name that is there
// twice, and then takes the last one.
package jsonobject

import (
	"encoding/json"
	"fmt"

	"lbctl/internal/printable"
)

// Members calls member for each name of the object whose "{" the decoder has just read, and reads up
// to its end. member must read the value. A name that is there twice is an error.
func Members(d *json.Decoder, member func(name string) error) error {
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name := token.(string) // a decoder accepts nothing else here
		if seen[name] {
			return fmt.Errorf("%q is there twice", printable.Shorten(name))
		}
		seen[name] = true
		if err := member(name); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}
