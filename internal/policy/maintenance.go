package policy

import (
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Maintenance lets nginx answer instead of the instances.
type Maintenance struct {
	Enabled    Switch
	RetryAfter Duration // of whole seconds
	Message    string   // one line of text
	Body       string   // a page in HTML
}

// maxBody bounds a page. nginx sends it from a file.
const maxBody = 64 << 10

var messagePattern = regexp.MustCompile(`^[!-#%-z~]([ -#%-z~]{0,198}[!-#%-z~])?$`)

var maintenanceFields = []Field{
	field("maintenance.enabled", func(p *Policy) *Switch { return &p.Maintenance.Enabled }, switches(), "on",
		"Lets nginx answer all requests itself: HTTP with 503, gRPC with UNAVAILABLE. It changes nothing in Consul or in the instances.",
		defaults(string(Off)), perPath),
	field("maintenance.retry-after", func(p *Policy) *Duration { return &p.Maintenance.RetryAfter }, wholeSeconds(time.Second, 24*time.Hour), "10m",
		"When clients may try again: the header Retry-After of these answers.",
		unit("duration"), perPath),
	field("maintenance.message", func(p *Policy) *string { return &p.Maintenance.Message },
		texts[string](`a line of at most 200 printable ASCII characters without "$", "{", "|" and "}"`, func(text string) bool {
			return messagePattern.MatchString(text) && !strings.Contains(text, "{") && text != BuiltIn
		}), "Back at noon",
		"What these answers say: the message of gRPC, and the text of HTTP. Without it they say that the service is in maintenance.",
		perPath),
	field("maintenance.body", func(p *Policy) *string { return &p.Maintenance.Body },
		texts[string](`a page in HTML that begins with "<", in UTF-8, of at most 65536 bytes`, func(text string) bool {
			return strings.HasPrefix(text, "<") && len(text) <= maxBody && utf8.ValidString(text) && !strings.Contains(text, "\x00")
		}), "<!doctype html><title>Maintenance</title><h1>Back at noon</h1>",
		"The page that HTTP clients get, instead of the text.",
		families(HTTP), perPath),
}
