package policy

import "regexp"

// Compression says which answers nginx compresses.
type Compression struct {
	Gzip      Switch
	Types     []string // media types, besides text/html
	MinLength Size
}

// A longer type does not fit into nginx's table of types.
var mediaType = regexp.MustCompile(`^[a-z0-9][a-z0-9.+_-]*/[a-z0-9][a-z0-9.+_-]*$`)

const maxMediaType = 46

// mediaTypes leave out text/html: nginx always compresses it, and warns of one that is there
// twice.
func mediaTypes() kind[[]string] {
	return distinct(listsOf(`up to 32 media types like "application/json", separated by commas, of lower-case letters and at most 46 characters; text/html is always among them`, 32,
		texts[string]("", func(text string) bool {
			return mediaType.MatchString(text) && len(text) <= maxMediaType && text != "text/html"
		})))
}

var compressionFields = []Field{
	field("compression.gzip", func(p *Policy) *Switch { return &p.Compression.Gzip }, switches(), "on",
		"Compresses answers for clients that accept gzip, if the instance has not done so. It costs time of nginx's processor.",
		families(HTTP), defaults(string(Off)), perPath),
	field("compression.types", func(p *Policy) *[]string { return &p.Compression.Types }, mediaTypes(), "application/json, text/css",
		"The media types of the answers that are compressed, besides text/html.",
		families(HTTP), defaults("text/plain, text/css, text/csv, text/javascript, text/xml, application/javascript, application/json, application/xml, image/svg+xml"), perPath),
	field("compression.min-length", func(p *Policy) *Size { return &p.Compression.MinLength }, sizes(1, 1<<30), "2k",
		"Answers that are shorter are not compressed, if they have a Content-Length. Others are compressed whatever their length.",
		families(HTTP), defaults("1k"), unit("bytes"), perPath),
}
