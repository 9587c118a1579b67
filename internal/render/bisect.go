package render

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"lbctl/internal/endpoints"
)

// culprit is a service at fault.
type culprit struct{ service, why string }

// bisection finds the suspects without which a configuration passes, one after the
// other: the one that nginx's reason names, else one by trying halves.
type bisection struct {
	entries []endpoints.Entry
	accused map[string]bool // all suspects
	left    []string        // suspects that are neither found nor cleared
	// try makes a configuration of entries: why is what is wrong with it.
	try func(entries []endpoints.Entry) (files map[string][]byte, why string, err error)
	// named is the one of names that a reason is about, if it is just one. Nil
	// is bisection alone.
	named func(why string, files map[string][]byte, names []string) (string, bool)

	tries int
	based bool // the configuration without any suspect passes
}

func newBisection(entries []endpoints.Entry, suspects []endpoints.Suspect) *bisection {
	s := &bisection{entries: entries, accused: map[string]bool{}}
	for _, suspect := range suspects {
		s.accused[suspect.Name] = true
		s.left = append(s.left, suspect.Name)
	}
	return s
}

// run returns the culprits. why is what is wrong with all entries together. It returns
// none if the suspects are not the cause.
func (s *bisection) run(files map[string][]byte, why string) []culprit {
	var found []culprit
	guessed := map[string]bool{}
	for why != "" {
		name, guess := "", false
		if s.named != nil {
			name, guess = s.named(why, files, s.left)
		}
		if !guess {
			var err error
			if name, why, err = s.halve(why); err != nil {
				return found
			}
			if name == "" {
				return nil
			}
		}
		guessed[name] = guess
		found = append(found, culprit{name, why})
		s.left = slices.DeleteFunc(s.left, func(x string) bool { return x == name })
		var err error
		if files, why, err = s.attempt(s.left); err != nil {
			return found
		}
	}
	if len(found) == 1 {
		return found
	}
	// Each guess was about what nginx came to first: it may pass with one of
	// them, now that the others are out.
	var sure []culprit
	for _, c := range found {
		if guessed[c.service] {
			with := append(slices.Clone(s.left), c.service)
			if _, why, err := s.attempt(with); err == nil && why == "" {
				s.left = with
				continue
			}
		}
		sure = append(sure, c)
	}
	return sure
}

// halve finds one culprit among those left, which together fail for the given reason;
// "" if the rest fails without them too.
func (s *bisection) halve(why string) (service, because string, err error) {
	if !s.based {
		_, why, err := s.attempt(nil)
		if why != "" || err != nil {
			return "", "", err
		}
		s.based = true
	}
	if len(s.left) == 0 {
		return "", "", nil
	}
	passing, failing := 0, len(s.left)
	for failing-passing > 1 {
		middle := (passing + failing) / 2
		_, found, err := s.attempt(s.left[:middle])
		switch {
		case err != nil:
			return "", "", err
		case found == "":
			passing = middle
		default:
			failing, why = middle, found
		}
	}
	return s.left[failing-1], why, nil
}

var errEnough = errors.New("enough attempts")

// attempt tries all services that are not suspected, together with some that are.
func (s *bisection) attempt(with []string) (files map[string][]byte, why string, err error) {
	if s.tries++; s.tries > bisectTries {
		return nil, "", errEnough
	}
	entries := slices.DeleteFunc(slices.Clone(s.entries), func(e endpoints.Entry) bool {
		return s.accused[e.Name] && !slices.Contains(with, e.Name)
	})
	return s.try(entries)
}

var placeNamed = regexp.MustCompile(` in (\S+):(\d+)$`)

// namedAt is the one of names in the line that nginx names in its reason, or, if
// it has none, in the smallest block around it that has any. A block with two of
// them says nothing.
func namedAt(why string, files map[string][]byte, names []string) (string, bool) {
	place := placeNamed.FindStringSubmatch(why)
	if place == nil {
		return "", false
	}
	lines := strings.Split(string(files[place[1]]), "\n")
	number, err := strconv.Atoi(place[2])
	if err != nil || number < 1 || number > len(lines) {
		return "", false
	}
	first, last := number-1, number-1
	for {
		found := mentioned(lines[first:last+1], names)
		if len(found) > 0 {
			return found[0], len(found) == 1
		}
		var ok bool
		if first, last, ok = enclosing(lines, first, last); !ok {
			return "", false
		}
	}
}

// mentioned is those of names that are a word of the lines, or the end of one, as
// in an upstream's name.
func mentioned(lines, names []string) []string {
	words := map[string]bool{}
	for _, line := range lines {
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return !strings.ContainsRune(wordCharacters, r) }) {
			for more := true; more; _, word, more = strings.Cut(word, "-") {
				words[word] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !words[name] })
}

const wordCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// enclosing is the block around some lines, by its braces; false at the top. It
// takes braces in comments and strings for real ones: what comes of it is tried.
func enclosing(lines []string, first, last int) (int, int, bool) {
	depth := 0
	for depth <= 0 {
		if first--; first < 0 {
			return 0, 0, false
		}
		depth += strings.Count(lines[first], "{") - strings.Count(lines[first], "}")
	}
	for last++; last < len(lines); last++ {
		if depth += strings.Count(lines[last], "{") - strings.Count(lines[last], "}"); depth <= 0 {
			return first, last, true
		}
	}
	return 0, 0, false
}
