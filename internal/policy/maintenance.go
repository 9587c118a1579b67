package policy

import (
	"fmt"
	"regexp"
	"slices"
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

// A Closure says which requests of a service nginx answers itself, because the service is in
// maintenance.
type Closure struct {
	// Whole is true if it is for all requests, but for those of the paths in Except.
	Whole  bool   `json:"whole"`
	Paths  []Path `json:"paths,omitempty"`
	Except []Path `json:"except,omitempty"`
	// By is who says so: the Sources of the layers.
	By []string `json:"by"`
}

// Closure returns which requests of a service in a family nginx answers itself; nil if none.
func (s Settings) Closure(family string) *Closure {
	if !s.says("maintenance.enabled") { // the common case costs little
		return nil
	}
	s, _ = s.For(family, "", func(string) bool { return true })
	if s.said == nil {
		return nil
	}
	c := Closure{Whole: s.General().Maintenance.Enabled == On}
	add := func(path Path) {
		for _, source := range s.Sources(path, "maintenance.enabled") {
			if !slices.Contains(c.By, source) {
				c.By = append(c.By, source)
			}
		}
	}
	if c.Whole {
		add("")
	}
	for _, path := range s.Paths() {
		switch enabled := s.At(path).Maintenance.Enabled == On; {
		case enabled && s.PathOf("maintenance.enabled", path) == path:
			add(path)
			if !c.Whole {
				c.Paths = append(c.Paths, path)
			}
		case !enabled && c.Whole && s.PathOf("maintenance.enabled", path) == path:
			c.Except = append(c.Except, path)
		}
	}
	if len(c.By) == 0 {
		return nil
	}
	return &c
}

// All reports whether nginx answers all requests itself.
func (c *Closure) All() bool { return c != nil && c.Whole && len(c.Except) == 0 }

// String says it for people.
func (c Closure) String() string {
	which := "its requests"
	if len(c.Except) > 0 {
		which += ", but for those of " + joinPaths(c.Except)
	}
	if !c.Whole {
		which = "its requests for " + joinPaths(c.Paths)
	}
	return fmt.Sprintf("nginx itself answers %s, because of maintenance.enabled in %s", which, strings.Join(c.By, " and "))
}

func joinPaths(paths []Path) string {
	var texts []string
	for _, path := range paths {
		texts = append(texts, string(path))
	}
	return strings.Join(texts, ", ")
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
