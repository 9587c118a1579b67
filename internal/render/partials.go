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

// withPartials returns the template with the name and the partials it uses. It leaves out a
// partial that defines a block that the template itself defines.
func (s templateSet) withPartials(name string) joined {
	own := s[name]
	all := joined{text: own.text}
	if own.text == "" {
		return all
	}
	used := s.used(own)
	for _, partial := range s.partials() {
		if !used[partial] {
			continue
		}
		c := s[partial]
		all.text += partialSeparator
		all.starts = append(all.starts, partialStart{partial, 1 + strings.Count(all.text, "\n")})
		all.text += c.text
		all.between += c.between
	}
	return all
}

// used returns the names of the partials that a template uses, also by other partials. Most
// templates use few of them, and consul-template parses all that it gets each time.
func (s templateSet) used(own *contents) map[string]bool {
	partials := s.partials()
	used := map[string]bool{}
	var add func(c *contents)
	add = func(c *contents) {
		for _, name := range partials {
			p := s[name]
			if used[name] || overlap(p.defines, own.defines) || !c.usesAny && !overlap(p.defines, c.uses) {
				continue
			}
			used[name] = true
			add(p)
		}
	}
	add(own)
	return used
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(name string) bool { return slices.Contains(b, name) })
}

// contents is the text of a template, with what others need to know of it.
type contents struct {
	text    string
	defines []string // the names of its blocks
	uses    []string // the names of the blocks that it writes
	usesAny bool     // it computes names of blocks
	between string   // white space between its blocks, if it is a partial
}

func newContents(text string) *contents {
	return &contents{
		text:    text,
		defines: blockNames(definition, text),
		uses:    blockNames(use, text),
		usesAny: strings.Contains(text, "executeTemplate"),
	}
}

var (
	definition = regexp.MustCompile(`\{\{-?\s*(?:define|block)\s+(?:"([^"]*)"|\x60([^\x60]*)\x60)`)
	use        = regexp.MustCompile(`\{\{-?\s*(?:template|block)\s+(?:"([^"]*)"|\x60([^\x60]*)\x60)`)
)

// blockNames returns the names of blocks in the actions that match the pattern.
func blockNames(pattern *regexp.Regexp, text string) []string {
	var names []string
	for _, match := range pattern.FindAllStringSubmatch(text, -1) {
		names = append(names, match[1]+match[2])
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
