package cli

import (
	"io"
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
	give   int // the column that is cut, with an ellipsis, where the terminal is too narrow
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

const (
	gap     = 2  // spaces between columns
	tooSlim = 12 // a column is not cut to fewer columns than that
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
	if terminal.Width > 0 {
		total := gap * (len(widths) - 1)
		for _, width := range widths {
			total += width
		}
		if over := total - terminal.Width; over > 0 {
			widths[t.give] = max(widths[t.give]-over, min(tooSlim, widths[t.give]))
		}
	}
	var out strings.Builder
	line := func(cells []cell) {
		for i, c := range cells {
			shown := cut(c.text, widths[i])
			out.WriteString(terminal.paint(c.style, shown))
			if i < len(cells)-1 { // no spaces at the end of a line
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

func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
