package policy

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// CORS says which pages of other origins may use a service: the rules of the W3C's and WHATWG's
// cross-origin resource sharing. It is in force if AllowOrigins has any.
type CORS struct {
	AllowOrigins     []string // AnyOrigin, or origins like "https://shop.example.com"
	AllowMethods     []string
	AllowHeaders     []string
	ExposeHeaders    []string
	AllowCredentials Switch
	MaxAge           Duration // of whole seconds
}

// AnyOrigin stands for all origins.
const AnyOrigin = "*"

// AnyOriginAllowed reports whether all origins are allowed.
func (c CORS) AnyOriginAllowed() bool { return slices.Contains(c.AllowOrigins, AnyOrigin) }

// Credentials reports whether pages may send cookies and the like. They never may if any origin
// is allowed.
func (c CORS) Credentials() bool { return c.AllowCredentials == On && !c.AnyOriginAllowed() }

// maxOrigin is the longest origin for which nginx's table has room.
const maxOrigin = 90

var (
	originPattern = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?$`)
	httpMethod    = regexp.MustCompile(`^[A-Z][A-Z-]{0,31}$`)
)

func origins() kind[[]string] {
	return distinct(listsOf(`"*", or up to 64 origins like "https://shop.example.com", separated by commas: lower case, with the port if it is not the scheme's own, without a path, at most 90 characters`, 64,
		texts[string]("", func(text string) bool {
			return text == AnyOrigin || originPattern.MatchString(text) && len(text) <= maxOrigin
		})))
}

func methods() kind[[]string] {
	return distinct(listsOf(`up to 32 methods like "PUT", separated by commas, in upper case`, 32, texts[string]("", httpMethod.MatchString)))
}

func corsHeaders() kind[[]string] {
	return distinct(listsOf(`up to 64 names of headers, separated by commas, of letters, digits, "-" and "_"`, 64, texts[string]("", headerName.MatchString)))
}

// wholeSeconds are durations without milliseconds.
func wholeSeconds(from, to time.Duration) kind[Duration] {
	k := durations(from, to)
	k.want = strings.ReplaceAll(k.want, "500ms, 5s or 2m", "5s or 2m") + ", in whole seconds"
	parse := k.parse
	k.parse = func(text string) (Duration, bool) {
		d, ok := parse(text)
		return d, ok && time.Duration(d)%time.Second == 0
	}
	return k
}

var corsFields = []Field{
	field("cors.allow-origins", func(p *Policy) *[]string { return &p.CORS.AllowOrigins }, origins(), "https://shop.example.com",
		"The origins whose pages may use the service. It turns on CORS: nginx answers preflight requests, and sets the Access-Control headers instead of the instances.",
		families(HTTP), perPath),
	field("cors.allow-methods", func(p *Policy) *[]string { return &p.CORS.AllowMethods }, methods(), "PUT, DELETE",
		"The methods that pages may use, besides GET, HEAD and POST, which browsers always allow.",
		families(HTTP), perPath),
	field("cors.allow-headers", func(p *Policy) *[]string { return &p.CORS.AllowHeaders }, corsHeaders(), "Content-Type, X-Requested-With",
		"The request headers that pages may set, besides those that browsers always allow.",
		families(HTTP), perPath),
	field("cors.expose-headers", func(p *Policy) *[]string { return &p.CORS.ExposeHeaders }, corsHeaders(), "X-Request-Id",
		"The headers of answers that pages may read, besides those that browsers always allow.",
		families(HTTP), perPath),
	field("cors.allow-credentials", func(p *Policy) *Switch { return &p.CORS.AllowCredentials }, switches(), "on",
		"Whether pages may send cookies, client certificates and Authorization. It has no effect if the origins are *.",
		families(HTTP), defaults(string(Off)), perPath),
	field("cors.max-age", func(p *Policy) *Duration { return &p.CORS.MaxAge }, wholeSeconds(time.Second, 24*time.Hour), "10m",
		"How long a browser may keep the answer to a preflight request. Without it browsers keep it for 5 seconds.",
		families(HTTP), unit("duration"), perPath),
}
