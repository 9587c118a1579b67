package render

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPartials(t *testing.T) {
	const mine = `{{range catalog.HTTP.Upstreams}}{{template "upstream" .}}{{end}}`
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // of out
		err   string
	}{
		{
			name:  "an own template uses the built-in block",
			files: map[string]string{"out.ctmpl": mine},
			want:  "\nupstream http-a {\n    zone http-a 64k;\n    server 10.0.0.1:80 weight=1 max_fails=0;\n    keepalive 64;\n    keepalive_requests 100000;\n    keepalive_timeout 1500ms;\n}",
		},
		{
			name:  "only the inner block",
			files: map[string]string{"out.ctmpl": `{{range catalog.HTTP.Upstreams}}upstream mine { {{template "servers" .}} }{{end}}`},
			want:  "upstream mine { \n    zone http-a 64k;\n    server 10.0.0.1:80 weight=1 max_fails=0; }",
		},
		{
			name:  "a block in the template itself wins",
			files: map[string]string{"out.ctmpl": mine + `{{define "upstream"}}my {{.Name}}{{end}}`},
			want:  "my http-a",
		},
		{
			name:  "an own partial replaces the built-in one",
			files: map[string]string{"out.ctmpl": mine, "partials/upstream.ctmpl": "{{define \"upstream\"}}mine\n{{end}}\n{{- /* and */ -}}\n{{define \"servers\"}}{{end}}\n"},
			want:  "mine\n",
		},
		{
			name:  "line breaks between definitions appear in no file",
			files: map[string]string{"out.ctmpl": "x\n", "partials/more.ctmpl": "\n\n{{define \"a\"}}{{end}}\n\n{{define \"b\"}}{{end}}\n\n"},
			want:  "x\n",
		},
		{
			name:  "text outside of definitions is refused",
			files: map[string]string{"partials/more.ctmpl": "server {}\n{{define \"a\"}}{{end}}"},
			err:   `template partials/more.ctmpl: found "server {}" outside of {{define}}, want definitions only`,
		},
		{
			name:  "a partial that can't be parsed is named with its line",
			files: map[string]string{"partials/more.ctmpl": "{{define \"a\"}}\n{{range}}{{end}}"},
			err:   "template partials/more.ctmpl: line 2: missing value for range",
		},
		{
			name:  "a partial that fails is named with its line",
			files: map[string]string{"out.ctmpl": "1\n2\n{{template \"a\" 5}}", "partials/more.ctmpl": "{{define \"a\"}}\n{{.Foo}}{{end}}"},
			err:   `template out.ctmpl: partials/more.ctmpl line 2: executing "a" at <.Foo>: can't evaluate field Foo in type int`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				writeTemplate(t, dir, name, text)
			}
			got, err := offline(Options{Settings: testSettings("1.30.6"), TemplatesDir: dir}, services("a http - -"), testNames())
			if c.err != "" {
				assert.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, string(got.Files["out"]))
			assert.NotContains(t, got.Files, "partials/upstream")
		})
	}
}
