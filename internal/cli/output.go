package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
)

// The values of -o.
const (
	outputText = "text"
	outputJSON = "json"
	outputYAML = "yaml"
)

// outputFlag defines -o. A command that has it prints its result with printResult.
func outputFlag(flags *flags, into *string) {
	choose(flags, into, "output", "", "FORMAT", "text for people, json or yaml for programs", outputText, outputText, outputJSON, outputYAML)
}

// forPrograms reports whether -o asks for a document. It has the exact text of what
// services and Consul say; text for people is made printable.
func forPrograms(output string) bool { return output != outputText }

// printResult prints the result of a command in the format of -o: value as a document,
// which is the same in JSON and in YAML, or what text prints for people.
func printResult(w io.Writer, output string, value any, text func() error) error {
	switch output {
	case outputJSON:
		return writeJSON(w, value)
	case outputYAML:
		return writeYAML(w, value)
	default:
		return text()
	}
}

// ofStream returns value as one of several documents, without the last newline: as one line
// of JSON, or as YAML that begins with "---". It is for values that JSON can hold.
func ofStream(output string, value any) string {
	var document bytes.Buffer
	if output == outputYAML {
		document.WriteString("---\n")
		_ = writeYAML(&document, value)
	} else {
		_ = json.NewEncoder(&document).Encode(value)
	}
	return strings.TrimSuffix(document.String(), "\n")
}

// writeJSON prints value as indented JSON.
func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false) // keeps "<" in messages readable
	return encoder.Encode(value)
}
