package nginx

import (
	"fmt"
	"regexp"
	"strings"
)

// Files of a generation that have a meaning of their own.
const (
	// MainFile is what nginx is started with.
	MainFile = "nginx.conf"
	// GenerationFile is written by lbctl: by it nginx tells which generation it
	// serves. MainFile must include it.
	GenerationFile = "generation.conf"

	noteFile = "generation.json"
)

// IsReserved reports whether lbctl itself writes the file of this name, so that a
// configuration can't have one.
func IsReserved(name string) bool { return name == GenerationFile || name == noteFile }

var includesGeneration = regexp.MustCompile(`(?m)^[^#\n]*\binclude\s+["']?(?:\./)?generation\.conf["']?\s*;`)

// IncludesGeneration reports whether the text of a file includes GenerationFile.
func IncludesGeneration(text []byte) bool {
	// The first look is for the regular expression's sake: files may be large.
	return strings.Contains(string(text), GenerationFile) && includesGeneration.Match(text)
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@*+~=-]+$`)

// Quote writes text as one word of nginx's configuration: as it is when it is a
// plain word, else in double quotes. It refuses control characters, and "$", which
// nginx takes for a variable and has no way to escape.
func Quote(text string) (string, error) {
	if plainWord.MatchString(text) {
		return text, nil
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("quote %q: nginx can't be given control characters", text)
	}
	if strings.Contains(text, "$") {
		return "", fmt.Errorf(`quote %q: nginx has no way to write a "$" that is not a variable`, text)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`, nil
}
