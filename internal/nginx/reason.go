package nginx

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// A message is an entry of nginx's error log, or a line of its output.
type message struct {
	level string // "emerg", "alert", ...; "" if there is none
	pid   int    // 0 if unknown, as in nginx's output
	text  string
}

var (
	// 2026/11/21 09:21:39 [emerg] 26783#26783: *1 text
	logged = regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(\w+)\] (\d+)#\d+: (?:\*\d+ )?(.*)$`)
	// nginx: [emerg] text
	printed = regexp.MustCompile(`^nginx: (?:\[(\w+)\] )?(.*)$`)
)

// parseMessages parses an error log or nginx's output. A line that does not start a
// message continues the one before, because nginx does not escape line breaks.
func parseMessages(text string) []message {
	var messages []message
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if match := logged.FindStringSubmatch(line); match != nil {
			pid, _ := strconv.Atoi(match[2])
			messages = append(messages, message{level: match[1], pid: pid, text: match[3]})
		} else if match := printed.FindStringSubmatch(line); match != nil {
			messages = append(messages, message{level: match[1], text: match[2]})
		} else if n := len(messages); n > 0 {
			messages[n-1].text += " " + line
		} else if strings.TrimSpace(line) != "" {
			messages = append(messages, message{text: line})
		}
	}
	return messages
}

// reason is the cause of a failure in nginx's output: the first [emerg] message, or
// else the first message, on one line, with paths relative to dir, the generation. It
// is "" if there is no message.
func reason(output, dir string) string {
	messages := parseMessages(output)
	for _, m := range messages {
		if m.level == "emerg" {
			return readable(m.text, dir) + hint(m.text)
		}
	}
	for _, m := range messages {
		if text := readable(m.text, dir); text != "" {
			return text
		}
	}
	return ""
}

// foreignVariable is what nginx says of a variable that other files of lbctl's
// configuration would define.
var foreignVariable = regexp.MustCompile(`^unknown "lb_\w+" variable`)

// hint is what to do about a message that doesn't say it; "" where it does.
func hint(text string) string {
	if foreignVariable.MatchString(text) {
		return ": a template that replaces a built-in one may come from another version of lbctl, compare it with the one of this version"
	}
	return ""
}

// readable shortens a message to one line of a status page.
func readable(text, dir string) string {
	if dir != "" {
		text = strings.ReplaceAll(text, dir+"/", "")
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	const most = 400 // an unknown "directive" may be half a file
	if runes := []rune(text); len(runes) > most {
		// Keep the end, where nginx names file and line.
		text = string(runes[:most-100]) + " ... " + string(runes[len(runes)-95:])
	}
	return text
}
