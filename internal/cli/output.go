package cli

import (
	"encoding/json"
	"io"
)

// What -o takes.
const (
	outputText = "text"
	outputJSON = "json"
)

func outputFlag(flags *flags, into *string) {
	define(flags, into, "output", "", "FORMAT", "text for people, json for programs", outputText,
		parseChoice(outputText, outputJSON))
}

// writeJSON prints value for programs and eyes alike.
func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false) // "<" in a message stays readable
	return encoder.Encode(value)
}
