package routing

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Request is a request as a client sends it.
type Request struct {
	HTTP   Version // default HTTP1
	Method string
	// Target is the path with the query, or an absolute URI (HTTP/1 only): its host then wins
	// over Host.
	Target string
	// Host is the header Host, or :authority. NoHost: the request has none.
	Host    string
	NoHost  bool
	Headers []Header
}

// Version is a version of HTTP.
type Version int

// The versions of HTTP.
const (
	HTTP1  Version = iota // HTTP/1.1
	HTTP10                // HTTP/1.0
	HTTP2
)

// Header is one header line of a request.
type Header struct{ Name, Value string }

// Refusal says that nginx answers a request itself, and why.
type Refusal struct {
	Status int    `json:"status"` // of HTTP
	Reason string `json:"reason"`
}

func badRequest(format string, args ...any) *Refusal {
	return &Refusal{400, fmt.Sprintf(format, args...)}
}

// read returns the host and the path as nginx reads them: the host in lower case without port,
// the path decoded and cleaned, without the query.
func (r Request) read(reading Reading) (host, path string, refused *Refusal) {
	for _, c := range []byte(r.Method) {
		if (c < 'A' || c > 'Z') && c != '_' && c != '-' {
			return "", "", badRequest("method %q, want upper-case letters", r.Method)
		}
	}
	if r.Method == "" {
		return "", "", badRequest("there is no method")
	}
	target := r.Target
	fromURI := false
	if !strings.HasPrefix(target, "/") {
		uriHost, rest, err := splitURI(target)
		if r.HTTP == HTTP2 {
			err = fmt.Errorf("path %q, want one that begins with a slash", target)
		}
		if err != nil {
			return "", "", badRequest("%s", err)
		}
		if host, err = reading.host(uriHost); err != nil {
			return "", "", badRequest("%s", err)
		}
		target, fromURI = rest, true
	}
	path, err := readPath(target)
	if err != nil {
		return "", "", badRequest("%s", err)
	}
	switch {
	case !r.NoHost:
		named, err := reading.host(r.Host)
		if err != nil {
			return "", "", badRequest("%s", err)
		}
		if !fromURI {
			host = named
		}
	case r.HTTP == HTTP1:
		return "", "", badRequest("an HTTP/1.1 request without the header Host")
	case r.HTTP == HTTP2:
		return "", "", badRequest("an HTTP/2 request without :authority or the header Host")
	}
	if r.Method == "CONNECT" || r.Method == "TRACE" {
		return host, path, &Refusal{405, "nginx does not pass on the methods CONNECT and TRACE"}
	}
	return host, path, nil
}

// splitURI splits an absolute URI into its host, with the port, and the rest.
func splitURI(uri string) (host, rest string, err error) {
	scheme, rest, ok := strings.Cut(uri, "://")
	for n, c := range []byte(scheme) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		ok = ok && (letter || n > 0 && (c >= '0' && c <= '9' || strings.IndexByte("+-.", c) >= 0))
	}
	if !ok || scheme == "" {
		return "", "", fmt.Errorf("target %q, want a path that begins with a slash, or an absolute URI", uri)
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host, rest = rest[:end], rest[end:]
	if rest == "" || rest[0] == '?' {
		rest = "/" + rest
	}
	name, port, _ := strings.Cut(host, ":")
	if strings.HasPrefix(host, "[") {
		literal, after, closed := strings.Cut(host, "]")
		if !closed {
			return "", "", fmt.Errorf("host %q in the target, want a name or an address", host)
		}
		name, port = strings.Trim(literal[1:], digits+"abcdefABCDEF:.-"), strings.TrimPrefix(after, ":")
	}
	if strings.Trim(name, digits+letters+".-") != "" || strings.Trim(port, digits) != "" || rest[0] == '#' {
		return "", "", fmt.Errorf("host %q in the target, want a name or an address", host)
	}
	return host, rest, nil
}

// host returns a host in lower case, without the port and a dot at its end.
func (reading Reading) host(host string) (string, error) {
	bad := fmt.Errorf("host %q, want a name or an address", host)
	name, rest := host, ""
	if strings.HasPrefix(host, "[") {
		if end := strings.IndexByte(host, ']'); end >= 0 {
			name, rest = host[:end+1], host[end+1:]
		} else if reading.StrictHosts {
			return "", bad
		}
	} else if colon := strings.IndexByte(host, ':'); colon >= 0 {
		name, rest = host[:colon], host[colon:]
	}
	for _, c := range []byte(host) {
		if c <= ' ' || c == 0x7f || c == '/' {
			return "", bad
		}
	}
	if reading.StrictHosts && (strings.Trim(name, hostLetters+"[:]") != "" || rest != "" && (rest[0] != ':' || strings.Trim(rest[1:], digits) != "")) {
		return "", bad
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" || strings.Contains(host, "..") {
		return "", bad
	}
	return lower(name), nil
}

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	// hostLetters are those of a name in RFC 3986.
	hostLetters = digits + letters + "-._~!$&'()*+,;=%"
)

// lower is strings.ToLower for ASCII alone, as in nginx.
func lower(text string) string {
	b := []byte(text)
	for n, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[n] = c + 'a' - 'A'
		}
	}
	return string(b)
}

var (
	errBadCode  = errors.New(`path with a bad "%", want two hexadecimal digits after it, and not "%00"`)
	errAbove    = errors.New(`path that goes above "/" by ".."`)
	errControls = errors.New("path with a space or a control character")
)

// readPath returns a path as nginx compares it with locations: without the query, decoded, with
// single slashes, and without "." and "..". Codes are decoded once, and a decoded slash or dot
// counts as one.
func readPath(target string) (string, error) {
	if strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return "", errControls
	}
	var p cleanPath
	for n := 0; n < len(target); n++ {
		c := target[n]
		switch c {
		case '?', '#':
			return p.end()
		case '%':
			high, low := digit(target, n+1), digit(target, n+2)
			if high < 0 || low < 0 || high == 0 && low == 0 {
				return "", errBadCode
			}
			c = byte(high<<4 | low)
			n += 2
		}
		if err := p.add(c); err != nil {
			return "", err
		}
	}
	return p.end()
}

// digit returns the value of a hexadecimal digit, -1 if there is none.
func digit(text string, at int) int {
	if at >= len(text) {
		return -1
	}
	return strings.IndexByte("0123456789abcdef", lower(text[at : at+1])[0])
}

// cleanPath is a path without "//", "." and "..".
type cleanPath struct {
	text    []byte
	segment int // where the last segment begins
}

func (p *cleanPath) add(c byte) error {
	if c != '/' {
		p.text = append(p.text, c)
		return nil
	}
	if err := p.closeSegment(); err != nil {
		return err
	}
	if len(p.text) == 0 || p.text[len(p.text)-1] != '/' {
		p.text = append(p.text, '/')
	}
	p.segment = len(p.text)
	return nil
}

// closeSegment removes the last segment if it is "." or "..", with the one before it.
func (p *cleanPath) closeSegment() error {
	switch string(p.text[p.segment:]) {
	case ".":
		p.text = p.text[:p.segment]
	case "..":
		if p.segment < 2 {
			return errAbove
		}
		before := p.text[:p.segment-1]
		p.text = before[:bytes.LastIndexByte(before, '/')+1]
	}
	return nil
}

func (p *cleanPath) end() (string, error) {
	err := p.closeSegment()
	return string(p.text), err
}
