package metadata

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var versionLabel = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// splitList parses a comma-separated list; an empty one has one element, the zero value.
func splitList[T comparable](list string, parse func(string) (T, error)) ([]T, error) {
	var elements []T
	for element := range strings.SplitSeq(list, ",") {
		element = strings.TrimSpace(element)
		if element == "" {
			continue
		}
		element, err := parse(element)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(elements, element) {
			elements = append(elements, element)
		}
	}
	if len(elements) == 0 {
		elements = make([]T, 1)
	}
	return elements, nil
}

func listOf(ports []int) string {
	words := make([]string, len(ports))
	for n, port := range ports {
		words[n] = strconv.Itoa(port)
	}
	return strings.Join(words, ", ")
}

// joinLines is like errors.Join, but in one line.
func joinLines(errs []error) error {
	words := make([]string, len(errs))
	for n, err := range errs {
		words[n] = err.Error()
	}
	return errors.New(strings.Join(words, "; "))
}
