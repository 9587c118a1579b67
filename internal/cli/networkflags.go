package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"lbctl/internal/access"
	"lbctl/internal/printable"
)

// messageFlag defines -m.
func messageFlag(flags *flags, into *string) {
	define(flags, into, "message", "", "WHY", "reason, for those who look at it later", "", parseMessage)
}

func parseMessage(given string) (string, error) {
	if n := len([]rune(given)); n > access.MaxWhy || printable.Line(given) != given {
		return "", fmt.Errorf("want one line of at most %d characters", access.MaxWhy)
	}
	return given, nil
}

// parseServices returns a parser of names of services, separated by commas. Each further flag
// adds names.
func parseServices() func(string) (nameList, error) {
	var all nameList
	return func(given string) (nameList, error) {
		for name := range strings.SplitSeq(given, ",") {
			if err := access.CheckService(name); err != nil {
				return nil, fmt.Errorf("%w, separated by commas", err)
			}
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
		return all, nil
	}
}

// nameList is the value of a flag with several names.
type nameList []string

func (l nameList) String() string { return strings.Join(l, ",") }

// maxLines bounds a file of networks, in bytes: a network has at most 44.
const maxLines = 64 << 20

// readLines returns the lines of a file, or of the standard input for "-", without comments,
// which begin with "#", and without empty lines.
func readLines(path string, stdin io.Reader) ([]string, error) {
	from := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		from = file
	}
	var lines []string
	scanner := bufio.NewScanner(io.LimitReader(from, maxLines))
	for scanner.Scan() {
		line, _, _ := strings.Cut(scanner.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return lines, nil
}
