package cli

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A Terminal describes the terminal of the output. The zero value is a pipe or a
// file: no colours, and no text is cut or wrapped.
type Terminal struct {
	Width  int  // columns; 0: not a terminal
	Height int  // lines
	Colour bool // show colours
}

// TerminalOf describes the terminal that w writes to, the zero value if there is none.
// NO_COLOR (https://no-color.org) and TERM=dumb in environ switch colours off.
func TerminalOf(w io.Writer, environ []string) Terminal {
	file, ok := w.(*os.File)
	if !ok {
		return Terminal{}
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return Terminal{}
	}
	terminal := Terminal{Width: int(size.Col), Height: int(size.Row)}
	if terminal.Width == 0 { // a serial line, or a pseudo-terminal without a size
		terminal.Width, terminal.Height = 80, 24
	}
	noColour := lookup(environ, "NO_COLOR")
	terminal.Colour = noColour == "" && lookup(environ, "TERM") != "dumb"
	return terminal
}

// lookup returns the value of a variable in environ. The last one wins, as in a shell.
func lookup(environ []string, name string) string {
	value := ""
	for _, line := range environ {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			value = v
		}
	}
	return value
}

// A style is the ANSI code for a colour or a font.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

func (t Terminal) paint(s style, text string) string {
	if !t.Colour || s == plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// wrap breaks text at spaces so that it fits the terminal. The first line starts at
// column indent, and wrap indents the following lines by it.
func (t Terminal) wrap(text string, indent int) string {
	room := t.Width - indent
	if t.Width == 0 || room < 20 {
		return text
	}
	var out strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > room:
			out.WriteString("\n" + strings.Repeat(" ", indent))
			column = 0
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += n
	}
	return out.String()
}
