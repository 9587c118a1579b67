package reference

import (
	"fmt"
	"strings"

	"lbctl/internal/policy"
)

// Markdown returns the part of docs/policy.md that documents the fields.
func Markdown() string {
	var out strings.Builder
	out.WriteString("| Field | Default | Values |\n|---|---|---|\n")
	for _, f := range policy.Fields() {
		fmt.Fprintf(&out, "| [`%s`](#%s) | %s | %s |\n", f.Name, anchor(f), escape(shorten(Default(f))), escape(f.Want))
	}
	for _, f := range policy.Fields() {
		fmt.Fprintf(&out, "\n### %s\n\n%s\n\n| | |\n|---|---|\n", f.Name, escape(f.Doc))
		for _, fact := range Facts(f) {
			text := escape(fact.Text)
			if fact.Name == "Example" {
				text = "`" + strings.ReplaceAll(fact.Text, "|", `\|`) + "`"
			}
			fmt.Fprintf(&out, "| %s | %s |\n", fact.Name, text)
		}
	}
	return out.String()
}

// shorten cuts a long list in the table; the field's own section has all of it.
func shorten(text string) string {
	if len(text) <= 50 {
		return text
	}
	return text[:strings.LastIndexByte(text[:50], ' ')+1] + "..."
}

// anchor is the heading's link as GitHub makes it.
func anchor(f policy.Field) string { return strings.ReplaceAll(f.Name, ".", "") }

// escape keeps a text from being taken for Markdown.
var escape = strings.NewReplacer("|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;", "`", "\\`").Replace
