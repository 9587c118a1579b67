package policy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kind is a kind of value of a field: its text and its JSON.
type kind[T any] struct {
	want string // "a duration from 1ms to 24h, such as 5s"
	// parse reads the text of a value. The error is not shown: want is.
	parse func(text string) (T, bool)
	// text returns the canonical text of a value, "" for the zero value.
	text func(T) string
	json form
	// values are all values, if they can be listed.
	values []string
	// bounds are the smallest and the largest value, if values have an order.
	bounds []string
	// schema describes a value in a JSON schema; nil means any value of the form.
	schema map[string]any
	// fits checks a value of one document, if it is set: the values of several documents
	// together may be larger.
	fits func(T) bool
	// offender returns the first element of a list or of pairs that is invalid, "" if it can't
	// tell.
	offender func(text string) string
	// why says why an offender is invalid, and what to do, if want says it less well; "" if it
	// does not.
	why func(offender string) string
}

// form says how the text of a value is written in JSON.
type form int

const (
	formString form = iota
	formNumber
	formBool  // of a Switch
	formList  // the text is a JSON array
	formPairs // the text is a JSON object
)

func durations(from, to time.Duration) kind[Duration] {
	return kind[Duration]{
		want: fmt.Sprintf("a duration from %s to %s, such as 500ms, 5s or 2m", Duration(from), Duration(to)),
		parse: func(text string) (Duration, bool) {
			d, err := time.ParseDuration(text)
			return Duration(d), err == nil && d >= from && d <= to && d%time.Millisecond == 0
		},
		text: func(d Duration) string {
			if d == 0 {
				return ""
			}
			return d.String()
		},
		bounds: []string{Duration(from).String(), Duration(to).String()},
		schema: map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`},
	}
}

func wholes(from, to int) kind[int] {
	return kind[int]{
		want: fmt.Sprintf("a whole number from %d to %d", from, to),
		parse: func(text string) (int, bool) {
			n, err := strconv.Atoi(text)
			return n, err == nil && n >= from && n <= to
		},
		text: func(n int) string {
			if n == 0 {
				return ""
			}
			return strconv.Itoa(n)
		},
		json:   formNumber,
		bounds: []string{strconv.Itoa(from), strconv.Itoa(to)},
		schema: map[string]any{"type": "integer", "minimum": from, "maximum": to},
	}
}

var sizePattern = regexp.MustCompile(`^([1-9][0-9]{0,14})([kKmMgG]?)$`)

func sizes(from, to Size) kind[Size] {
	return kind[Size]{
		want: fmt.Sprintf("a size from %s to %s, in bytes or with k, m or g, such as 10m", from, to),
		parse: func(text string) (Size, bool) {
			match := sizePattern.FindStringSubmatch(text)
			if match == nil {
				return 0, false
			}
			n, _ := strconv.ParseInt(match[1], 10, 64) // the pattern has at most 15 digits
			shift := map[string]int{"": 0, "k": 10, "m": 20, "g": 30}[strings.ToLower(match[2])]
			if n > int64(to)>>shift {
				return 0, false
			}
			s := Size(n << shift)
			return s, s >= from
		},
		text: func(s Size) string {
			if s == 0 {
				return ""
			}
			return s.String()
		},
		bounds: []string{from.String(), to.String()},
		schema: map[string]any{"type": []string{"string", "integer"}, "pattern": sizePattern.String(), "minimum": from, "maximum": to},
	}
}

// switches also accepts true and false, because YAML turns on and off into them.
func switches() kind[Switch] {
	return kind[Switch]{
		want: `"on" or "off"`,
		parse: func(text string) (Switch, bool) {
			switch text {
			case "on", "true":
				return On, true
			case "off", "false":
				return Off, true
			}
			return "", false
		},
		text:   func(s Switch) string { return string(s) },
		json:   formBool,
		values: []string{string(On), string(Off)},
		schema: map[string]any{"enum": []any{true, false, On, Off}},
	}
}

func oneOf[T ~string](values ...T) kind[T] {
	quoted, all := make([]string, len(values)), make([]string, len(values))
	for n, v := range values {
		quoted[n], all[n] = strconv.Quote(string(v)), string(v)
	}
	want := quoted[len(quoted)-1]
	if rest := quoted[:len(quoted)-1]; len(rest) > 0 {
		want = strings.Join(rest, ", ") + " or " + want
	}
	return kind[T]{
		want:   want,
		parse:  func(text string) (T, bool) { return T(text), slices.Contains(values, T(text)) },
		text:   func(v T) string { return string(v) },
		values: all,
		schema: map[string]any{"enum": all},
	}
}

// texts is any text that valid accepts.
func texts[T ~string](want string, valid func(string) bool) kind[T] {
	return kind[T]{
		want:  want,
		parse: func(text string) (T, bool) { return T(text), valid(text) },
		text:  func(v T) string { return string(v) },
	}
}

// listsOf are several values of one kind, separated by commas or as a JSON array.
func listsOf[T any](want string, most int, element kind[T]) kind[[]T] {
	return kind[[]T]{
		want: want,
		parse: func(text string) ([]T, bool) {
			words, ok := listWords(text)
			if !ok || len(words) == 0 || len(words) > most {
				return nil, false
			}
			var list []T
			for _, word := range words {
				v, ok := element.parse(word)
				if !ok {
					return nil, false
				}
				list = append(list, v)
			}
			return list, true
		},
		text: func(list []T) string {
			if len(list) == 0 {
				return ""
			}
			words := make([]string, len(list))
			for n, v := range list {
				words[n] = element.text(v)
			}
			return jsonText(words)
		},
		json:   formList,
		values: element.values,
		schema: listSchema(most),
		offender: func(text string) string {
			words, _ := listWords(text)
			for _, word := range words {
				if _, ok := element.parse(word); !ok {
					return word
				}
			}
			return ""
		},
	}
}

// distinct are lists in which nothing is there twice.
func distinct[T comparable](k kind[[]T]) kind[[]T] {
	parse := k.parse
	k.parse = func(text string) ([]T, bool) {
		list, ok := parse(text)
		for n, v := range list {
			ok = ok && !slices.Contains(list[:n], v)
		}
		return list, ok
	}
	return k
}

// pairsOf are names with values: "name=value, name=value" or a JSON object. Their text is
// sorted by name. Where two layers have pairs, each name counts by itself.
func pairsOf(want string, most int, valid func(name, value string) bool) kind[[]Pair] {
	return kind[[]Pair]{
		want: want,
		parse: func(text string) ([]Pair, bool) {
			words, ok := pairWords(text)
			if !ok || len(words) == 0 {
				return nil, false
			}
			for _, p := range words {
				if !valid(p.Name, p.Value) {
					return nil, false
				}
			}
			slices.SortFunc(words, func(a, b Pair) int { return strings.Compare(a.Name, b.Name) })
			return words, true
		},
		text: func(pairs []Pair) string {
			if len(pairs) == 0 {
				return ""
			}
			object := make(map[string]string, len(pairs))
			for _, p := range pairs {
				object[p.Name] = p.Value
			}
			return jsonText(object)
		},
		json:   formPairs,
		schema: map[string]any{"type": []string{"object", "string"}, "minProperties": 1, "maxProperties": most},
		fits:   func(pairs []Pair) bool { return len(pairs) <= most },
		offender: func(text string) string {
			pairs, _ := pairWords(text)
			slices.SortFunc(pairs, func(a, b Pair) int { return strings.Compare(a.Name, b.Name) })
			for _, p := range pairs {
				if !valid(p.Name, p.Value) {
					return p.String()
				}
			}
			return ""
		},
	}
}

// listSchema describes a list, or its words in one string.
func listSchema(most int) map[string]any {
	word := map[string]any{"type": []string{"string", "number", "boolean"}}
	return map[string]any{"type": []string{"array", "string"}, "items": word, "minItems": 1, "maxItems": most}
}

func listWords(text string) ([]string, bool) {
	var words []string
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		return words, json.Unmarshal([]byte(text), &words) == nil
	}
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			words = append(words, word)
		}
	}
	return words, true
}

func pairWords(text string) ([]Pair, bool) {
	var pairs []Pair
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		var object map[string]string
		if json.Unmarshal([]byte(text), &object) != nil {
			return nil, false
		}
		for name, value := range object {
			pairs = append(pairs, Pair{name, value})
		}
		return pairs, true
	}
	words, _ := listWords(text)
	names := map[string]bool{}
	for _, word := range words {
		name, value, ok := strings.Cut(word, "=")
		name = strings.TrimSpace(name)
		if !ok || names[name] {
			return nil, false
		}
		names[name] = true
		pairs = append(pairs, Pair{name, strings.TrimSpace(value)})
	}
	return pairs, true
}

// jsonText writes strings as JSON, without escapes for HTML.
func jsonText(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // strings can always be encoded
	return strings.TrimSuffix(b.String(), "\n")
}
