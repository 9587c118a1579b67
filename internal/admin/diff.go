package admin

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/rogpeppe/go-internal/diff"
)

// diffOf compares the files of two generations.
func diffOf(from, to int, before, after map[string][]byte) Diff {
	result := Diff{From: from, To: to, Files: []FileDiff{}}
	names := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(after))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		old, had := before[name]
		now, has := after[name]
		oldName, nowName := fmt.Sprintf("%d/%s", from, name), fmt.Sprintf("%d/%s", to, name)
		file := FileDiff{Name: name, Change: "changed"}
		switch {
		case !had:
			file.Change, oldName = "added", "/dev/null"
		case !has:
			file.Change, nowName = "removed", "/dev/null"
		case bytes.Equal(old, now):
			continue
		}
		text := diff.Diff(oldName, old, nowName, now)
		// The first line is the diff command; the rest is the input of patch(1).
		if _, rest, ok := bytes.Cut(text, []byte("\n")); ok {
			text = rest
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			switch {
			case i < 2: // --- and +++
			case bytes.HasPrefix(line, []byte("+")):
				file.Added++
			case bytes.HasPrefix(line, []byte("-")):
				file.Removed++
			}
		}
		file.Diff = string(text)
		result.Files = append(result.Files, file)
	}
	return result
}
