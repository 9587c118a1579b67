package render

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template/parse"

	"lbctl/internal/metadata"
)

// partialDir holds templates that render to no file. They define blocks, such as
// {{define "upstream"}}, that every template may use.
const partialDir = "partials/"

func isPartial(name string) bool { return strings.HasPrefix(name, partialDir) }

// partialSeparator stands before each partial. The comment keeps a partial that
// begins with "{{-" from trimming what stands before it.
const partialSeparator = "{{/*\n*/}}"

// joined is a template together with the partials it may use, as one text.
type joined struct {
	text string
	// between is what the text between the definitions of partials adds to the end
	// of the output: line breaks and blanks, which are not the template's.
	between string
	starts  []partialStart // in order
}

// partialStart is where a partial begins.
type partialStart struct {
	name string
	line int // of the joined text
}

// withPartials is the template of that name and the partials it may use. A partial that defines
// something under a name that the template itself defines is left out.
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
		between, _ := textBetween(text) // loading has found no error
		all.between += between
	}
	return all
}

var definition = regexp.MustCompile(`\{\{-?\s*(?:define|block)\s+"([^"]*)"`)

// defined is the names of the blocks that a template defines.
func defined(text string) []string {
	var names []string
	for _, match := range definition.FindAllStringSubmatch(text, -1) {
		names = append(names, match[1])
	}
	return names
}

// textBetween is the text between the definitions of a partial. Anything but
// white space is an error, because it would appear in every file.
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
			return "", fmt.Errorf("found %q outside of {{define}}, want definitions only", metadata.Shorten(strings.TrimSpace(node.String())))
		}
		between.Write(text.Text)
	}
	return between.String(), nil
}

// place says in words which line of the joined text it is: the template's own, or
// one of a partial.
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
