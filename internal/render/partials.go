package render

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template/parse"

	"lbctl/internal/printable"
)

// partialDir has templates that render to no file. They define blocks, such as
// {{define "upstream"}}, that every template may use.
const partialDir = "partials/"

func isPartial(name string) bool { return strings.HasPrefix(name, partialDir) }

// partialSeparator is put before each partial. Without the comment, a partial that begins
// with "{{-" would trim the text before it.
const partialSeparator = "{{/*\n*/}}"

// joined is the text of a template together with the partials it may use.
type joined struct {
	text string
	// between is the white space between the definitions of partials. It is added to the
	// end of the output, but does not belong to the template.
	between string
	starts  []partialStart // in order
}

// partialStart is where a partial begins.
type partialStart struct {
	name string
	line int // of the joined text
}

// withPartials returns the template with the name and the partials it may use. It leaves
// out a partial that defines a block that the template itself defines.
func (s templateSet) withPartials(name string) joined {
	all := joined{text: s[name]}
	if all.text == "" {
		return all
	}
	own := defined(all.text)
	for _, partial := range s.partials() {
		text := s[partial]
		if slices.ContainsFunc(defined(text), func(name string) bool { return slices.Contains(own, name) }) {
			continue
		}
		all.text += partialSeparator
		all.starts = append(all.starts, partialStart{partial, 1 + strings.Count(all.text, "\n")})
		all.text += text
		between, _ := textBetween(text) // loadTemplates has checked for errors
		all.between += between
	}
	return all
}

var definition = regexp.MustCompile(`\{\{-?\s*(?:define|block)\s+"([^"]*)"`)

// defined returns the names of the blocks that a template defines.
func defined(text string) []string {
	var names []string
	for _, match := range definition.FindAllStringSubmatch(text, -1) {
		names = append(names, match[1])
	}
	return names
}

// textBetween returns the text between the definitions of a partial. Anything but white
// space is an error, because it would appear in every file.
func textBetween(partial string) (string, error) {
	t := parse.New("")
	t.Mode = parse.SkipFuncCheck
	if _, err := t.Parse("{{/**/}}"+partial, "", "", map[string]*parse.Tree{}); err != nil {
		return "", errors.New(joined{}.describe(err))
	}
	var between strings.Builder
	for _, node := range t.Root.Nodes {
		text, ok := node.(*parse.TextNode)
		if !ok || strings.TrimSpace(string(text.Text)) != "" {
			return "", fmt.Errorf("found %q outside of {{define}}, want definitions only", printable.Shorten(strings.TrimSpace(node.String())))
		}
		between.Write(text.Text)
	}
	return between.String(), nil
}

// place describes a line of the joined text: a line of the template or of a partial.
func (j joined) place(line int) string {
	where := ""
	for _, start := range j.starts {
		if line >= start.line {
			where = start.name + " line " + strconv.Itoa(line-start.line+1)
		}
	}
	if where == "" {
		return "line " + strconv.Itoa(line)
	}
	return where
}
