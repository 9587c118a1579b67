package nginx

import (
	"fmt"
	"regexp"
	"strings"
)

// The files of a generation that lbctl itself needs.
const (
	// MainFile is the configuration file with which nginx starts.
	MainFile = "nginx.conf"
	// GenerationFile makes nginx answer which generation it serves. lbctl writes it,
	// and MainFile must include it.
	GenerationFile = "generation.conf"

	noteFile = "generation.json"
)

// IsReserved reports whether lbctl itself writes the file of this name. A configuration
// must not contain it.
func IsReserved(name string) bool { return name == GenerationFile || name == noteFile }

var includesGeneration = regexp.MustCompile(`(?m)^[^#\n]*\binclude\s+["']?(?:\./)?generation\.conf["']?\s*;`)

// IncludesGeneration reports whether the text of a file includes GenerationFile.
func IncludesGeneration(text []byte) bool {
	// Contains is fast, and most files fail it: the regular expression is slow on large
	// files.
	return strings.Contains(string(text), GenerationFile) && includesGeneration.Match(text)
}

// isPlainWord reports whether nginx reads text as one word without quotes. It is not a regular
// expression, because templates quote each address of each instance.
func isPlainWord(text string) bool {
	for n := range len(text) {
		switch c := text[n]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("_./:@*+~=-", c) >= 0:
		default:
			return false
		}
	}
	return text != ""
}

// Quote writes text as one word of nginx's configuration, in double quotes unless it is
// a plain word. It refuses control characters, and "$", which starts a variable and
// can't be escaped in nginx.
func Quote(text string) (string, error) {
	if isPlainWord(text) {
		return text, nil
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("quote %q: want text without control characters", text)
	}
	if strings.Contains(text, "$") {
		return "", fmt.Errorf(`quote %q: want text without "$", which starts a variable in nginx and can't be escaped`, text)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`, nil
}
