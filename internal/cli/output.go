package cli

import (
	"encoding/json"
	"io"
)

// The values of -o.
const (
	outputText = "text"
	outputJSON = "json"
)

func outputFlag(flags *flags, into *string) {
	define(flags, into, "output", "", "FORMAT", "text for people, json for programs", outputText,
		parseChoice(outputText, outputJSON))
}

// writeJSON prints value as indented JSON.
func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false) // keeps "<" in messages readable
	return encoder.Encode(value)
}
