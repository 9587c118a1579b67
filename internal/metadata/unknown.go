package metadata

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"lbctl/internal/spelling"
)

// prefix is how lbctl's keys begin. No other program should have keys that begin so.
const prefix = "lb-"

// Mistakes returns what is wrong with the names of an instance's metadata keys, a readable
// line each: keys that begin with "lb-" and that lbctl doesn't know, keys that are like
// one of lbctl's, and keys that are written as tags.
func Mistakes(tags []string, meta map[string]string) []string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		if !isUnknown(key) {
			continue
		}
		if meant := mistyped(key); meant != "" {
			lines = append(lines, fmt.Sprintf("unknown key %q, did you mean %s?", Shorten(key), meant))
			continue
		}
		lines = append(lines, fmt.Sprintf("unknown key %q, want one of %s", Shorten(key), strings.Join(keys, ", ")))
	}
	for _, tag := range tags {
		if isPair(tag) {
			lines = append(lines, fmt.Sprintf("tag %q, want it as metadata, not as a tag", Shorten(tag)))
		}
	}
	return lines
}

// isUnknown reports whether a key is meant for lbctl, which doesn't know it.
func isUnknown(key string) bool {
	return !slices.Contains(keys, key) && (strings.HasPrefix(key, prefix) || mistyped(key) != "")
}

// mistyped returns the key that somebody meant who wrote this one, "" if it is not like
// any. Keys that don't begin with "lb" in some way are other programs'.
func mistyped(key string) string {
	if slices.Contains(keys, key) || !strings.HasPrefix(strings.ToLower(key), "lb") {
		return ""
	}
	return spelling.Nearest(key, keys)
}

// isPair reports whether a tag is a pair of metadata, such as "lb-path=/x".
func isPair(tag string) bool {
	key, _, pair := strings.Cut(tag, "=")
	key = strings.TrimSpace(key)
	return pair && (slices.Contains(keys, key) || isUnknown(key))
}

// MistypedTag returns the first tag that is like one of those that make a service a
// balanced one, and the tag that was meant. Both are "" if there is none. Such a tag is no
// mistake by itself: it may be another program's.
func MistypedTag(tags []string) (tag, meant string) {
	for _, tag := range tags {
		for _, known := range []string{TagGRPC, TagHTTP} {
			protocol, _, _ := strings.Cut(known, "_")
			if tag != known && (strings.EqualFold(tag, protocol) || spelling.Nearest(tag, []string{known}) != "") {
				return tag, known
			}
		}
	}
	return "", ""
}
