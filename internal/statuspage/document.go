package statuspage

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed page
var files embed.FS

// A document is the page with its style and script in it, and the policy that makes a browser run
// nothing else.
type document struct {
	html   []byte
	policy string
}

// newDocument joins the files of the page: the scripts in the order of their names, as one.
func newDocument() document {
	style, script := joined("page/*.css"), "'use strict';\n(() => {\n"+joined("page/*.js")+"})();\n"
	html := joined("page/index.html")
	html = strings.Replace(html, "<style></style>", "<style>"+style+"</style>", 1)
	html = strings.Replace(html, "<script></script>", "<script>"+script+"</script>", 1)
	return document{
		html: []byte(html),
		policy: strings.Join([]string{
			"default-src 'none'",
			"script-src '" + hash(script) + "'",
			"style-src '" + hash(style) + "'",
			"connect-src 'self'",
			"img-src data:", // the icon of the tab
			"base-uri 'none'",
			"form-action 'none'",
			"frame-ancestors 'none'",
			"require-trusted-types-for 'script'", // text of others never becomes markup
			"trusted-types 'none'",
		}, "; "),
	}
}

func joined(pattern string) string {
	names, err := fs.Glob(files, pattern)
	if err != nil || len(names) == 0 {
		panic(fmt.Sprintf("the page has no %s: %v", pattern, err)) // it is embedded
	}
	var all bytes.Buffer
	for _, name := range names {
		content, err := files.ReadFile(name)
		if err != nil {
			panic(err)
		}
		all.Write(content)
	}
	return all.String()
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

func (d document) serve(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", d.policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	_, _ = w.Write(d.html) // an error means that the client has disconnected
}
