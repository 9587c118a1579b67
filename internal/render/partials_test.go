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
		{
			name: "a block that another partial uses",
			files: map[string]string{"out.ctmpl": "{{- template `a` 5}}", "partials/a.ctmpl": `{{define "a"}}a{{template "z" .}}{{end}}`,
				"partials/z.ctmpl": "\n{{define \"y\"}}{{end}}{{define `z`}}z{{.}}{{end}}"},
			want: "az5",
		},
		{
			name:  "a block whose name is computed",
			files: map[string]string{"out.ctmpl": `{{executeTemplate (print "cho" "sen") 5}}`, "partials/a.ctmpl": `{{define "chosen"}}a{{.}}{{end}}`},
			want:  "a5",
		},
		{
			name:  "a block that nothing defines",
			files: map[string]string{"out.ctmpl": `{{template "nowhere"}}`},
			err:   `template out.ctmpl: line 1: at <{{template "nowhere"}}>: template "nowhere" not defined`,
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

// consul-template parses a template with all its partials each time that it executes it.
func TestATemplateGetsThePartialsThatItUses(t *testing.T) {
	set := templateSet{}
	for name, text := range map[string]string{
		"x.ctmpl":          `{{template "a"}}`,
		"y.ctmpl":          `{{define "b"}}{{end}}{{template "a"}}{{template "b"}}`,
		"z.ctmpl":          `{{executeTemplate "a"}}`,
		"none.ctmpl":       "x",
		"partials/a.ctmpl": `{{define "a"}}{{block "b" .}}{{end}}{{end}}`,
		"partials/c.ctmpl": `{{define "c"}}{{end}}`,
		"partials/d.ctmpl": `{{define "d"}}{{template "a"}}{{end}}`,
	} {
		set[name] = newContents(text)
	}
	for name, want := range map[string][]string{
		"x.ctmpl":    {"partials/a.ctmpl"},
		"y.ctmpl":    nil, // its own b is in the way
		"z.ctmpl":    {"partials/a.ctmpl", "partials/c.ctmpl", "partials/d.ctmpl"},
		"none.ctmpl": nil,
	} {
		var got []string
		for _, start := range set.withPartials(name).starts {
			got = append(got, start.name)
		}
		assert.Equal(t, want, got, name)
	}
}
