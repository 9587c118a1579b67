package metadata

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"lbctl/internal/policy"
	"lbctl/internal/printable"
	"lbctl/internal/spelling"
)

// prefix is the beginning of lbctl's keys. Other programs should not use it.
const prefix = "lb-"

// Mistakes returns a readable line for each mistake in the names of an instance's metadata keys:
// unknown keys that begin with "lb-", keys that are similar to one of lbctl's, and keys that are
// written as tags.
func Mistakes(tags []string, meta map[string]string) []string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		if !isUnknown(key) {
			continue
		}
		if field := operatorsField(key); field != "" {
			lines = append(lines, fmt.Sprintf("key %q: only the operator can set %s, in Consul's KV", key, field))
			continue
		}
		if meant := mistyped(key); meant != "" {
			lines = append(lines, fmt.Sprintf("unknown key %q, did you mean %s?", printable.Shorten(key), meant))
			continue
		}
		lines = append(lines, fmt.Sprintf("unknown key %q, want one of %s, or that of a policy field (lbctl policy explain)", printable.Shorten(key), strings.Join(ownKeys, ", ")))
	}
	for _, tag := range tags {
		if isPair(tag) {
			lines = append(lines, fmt.Sprintf("tag %q, want it as metadata, not as a tag", printable.Shorten(tag)))
		}
	}
	return lines
}

// isUnknown reports whether a key is meant for lbctl, but unknown to it.
func isUnknown(key string) bool {
	return !slices.Contains(keys, key) && (strings.HasPrefix(key, prefix) || mistyped(key) != "")
}

// operatorsField returns the field that a key would have if the service could set it; "" if there
// is none.
func operatorsField(key string) string {
	for _, f := range policy.Fields() {
		if f.Operator && key == prefix+strings.ReplaceAll(f.Name, ".", "-") {
			return f.Name
		}
	}
	return ""
}

// mistyped returns the known key that is similar to this one, "" if there is none. Keys that
// don't begin with "lb" in some form belong to other programs.
func mistyped(key string) string {
	if slices.Contains(keys, key) || !strings.HasPrefix(strings.ToLower(key), "lb") {
		return ""
	}
	return spelling.Nearest(key, keys)
}

// isPair reports whether a tag looks like a pair of metadata, such as "lb-path=/x".
func isPair(tag string) bool {
	key, _, pair := strings.Cut(tag, "=")
	key = strings.TrimSpace(key)
	return pair && (slices.Contains(keys, key) || isUnknown(key))
}

// MistypedTag returns the first tag that is similar to one of lbctl's tags, and lbctl's tag. Both
// are "" if there is none. Such a tag alone is no mistake, because it may belong to another
// program.
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
