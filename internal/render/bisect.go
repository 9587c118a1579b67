package render

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"lbctl/internal/endpoints"
)

// culprit is a service that makes the configuration fail.
type culprit struct{ service, why string }

// An attempt makes and tests a configuration of entries; why is why it fails, "" if it passes. err
// means that it could not be tested.
type attempt func(entries []endpoints.Entry) (files map[string][]byte, why string, err error)

// A namer returns the name that a reason is about, if it is about a single one.
type namer func(why string, files map[string][]byte, names []string) (string, bool)

// bisection finds the suspects that make a configuration fail, one after the other: the
// one that nginx's reason names, or else one found by trying halves.
type bisection struct {
	entries []endpoints.Entry
	accused map[string]bool // all suspects
	left    []string        // suspects that are neither found nor cleared
	try     attempt
	named   namer // if it is nil, only bisection is used

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

// run returns the culprits. why is why the configuration of all entries fails. It returns
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
	// nginx names only the first error that it finds, so a guess may be wrong. Try each
	// guessed service again, without the other culprits.
	var confirmed []culprit
	for _, c := range found {
		if guessed[c.service] {
			with := append(slices.Clone(s.left), c.service)
			if _, why, err := s.attempt(with); err == nil && why == "" {
				s.left = with
				continue
			}
		}
		confirmed = append(confirmed, c)
	}
	return confirmed
}

// halve finds one culprit among the suspects in left, which together fail for the given
// reason. It returns "" if the configuration fails without them too.
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

// attempt tries all services that are not suspects, together with the suspects in with.
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

// namedAt returns the name in the line that nginx's reason points to, or, if that line has
// none, the name in the smallest block around it that has any. It returns false if there
// are several.
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

// mentioned returns the names that occur in the lines as a word, or as the end of a word,
// such as the name of an upstream.
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

// enclosing returns the block around some lines, found by its braces; false at the top
// level. It also counts braces in comments and strings. That can give a wrong name, which
// run finds out by trying.
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
