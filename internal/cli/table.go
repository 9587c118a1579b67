package cli

import (
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// A cell is one field of a table.
type cell struct {
	text  string
	style style
}

func text(s string) cell { return cell{text: orDash(s)} }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// A table prints aligned columns, two spaces apart.
type table struct {
	header []string
	rows   [][]cell
	// shrinkFirst is the first column to be cut, with an ellipsis, if the terminal is
	// too narrow.
	shrinkFirst int
	// prose wraps the last column instead of cutting columns.
	prose bool
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

const (
	gap      = 2  // spaces between columns
	minWidth = 12 // shrink cuts no column to less than this
)

func (t *table) write(w io.Writer, terminal Terminal) error {
	widths := make([]int, len(t.header))
	for i, title := range t.header {
		widths[i] = utf8.RuneCountInString(title)
	}
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	last := len(widths) - 1
	if terminal.Width > 0 && !t.prose {
		t.shrink(widths, terminal.Width)
	}
	indent := gap * last // where the last column begins
	for _, width := range widths[:last] {
		indent += width
	}
	var out strings.Builder
	line := func(cells []cell) {
		for i, c := range cells {
			shown := cut(c.text, widths[i])
			if t.prose && i == last {
				shown = terminal.wrap(c.text, indent)
			}
			out.WriteString(terminal.paint(c.style, shown))
			if i < last { // no spaces at the end of a line
				out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(shown)+gap))
			}
		}
		out.WriteByte('\n')
	}
	header := make([]cell, len(t.header))
	for i, title := range t.header {
		header[i] = cell{title, bold}
	}
	line(header)
	for _, row := range t.rows {
		line(row)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// shrink cuts columns until they fit into room: shrinkFirst, then the widest ones.
func (t *table) shrink(widths []int, room int) {
	over := gap*(len(widths)-1) - room
	order := make([]int, len(widths))
	for i, width := range widths {
		over += width
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch t.shrinkFirst {
		case a:
			return -1
		case b:
			return 1
		default:
			return widths[b] - widths[a]
		}
	})
	for _, i := range order {
		if spare := widths[i] - minWidth; over > 0 && spare > 0 {
			widths[i] -= min(spare, over)
			over -= min(spare, over)
		}
	}
}

func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
