package render

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul-template/template"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUserTemplatesReplaceAndAdd(t *testing.T) {
	dir := t.TempDir()
	writeTemplate(t, dir, "stream.conf.ctmpl", "# mine\n")
	writeTemplate(t, dir, "http.d/deep/er.conf.ctmpl", "{{settings.NginxVersion}}")
	writeTemplate(t, dir, "empty.ctmpl", "")
	writeTemplate(t, dir, "README.md", "{{not a template")
	writeTemplate(t, dir, ".hidden.ctmpl", "{{not a template")
	writeTemplate(t, dir, ".git/x.ctmpl", "{{not a template")
	c, err := Offline(Options{Settings: testSettings("1.30.6"), TemplatesDir: dir}, nil)
	require.NoError(t, err)
	assert.Equal(t, "# mine\n", string(c.Files["stream.conf"]))
	assert.Equal(t, "1.30.6", string(c.Files["http.d/deep/er.conf"]))
	assert.Empty(t, c.Files["empty"])
	assert.Contains(t, c.Files, "nginx.conf")
	assert.Len(t, c.Files, 12)

	embedded, err := Offline(Options{Settings: testSettings("1.30.6")}, nil)
	require.NoError(t, err)
	assert.NotEqual(t, embedded.Hash, c.Hash)
	again, err := Offline(Options{Settings: testSettings("1.30.6")}, nil)
	require.NoError(t, err)
	assert.Equal(t, embedded.Hash, again.Hash)
}

func TestTemplatesThatCannotBe(t *testing.T) {
	offline := func(dir string) error {
		_, err := Offline(Options{Settings: testSettings("1.30.6"), TemplatesDir: dir}, nil)
		return err
	}
	assert.ErrorContains(t, offline("/nowhere/at/all"), "read the templates directory: stat /nowhere/at/all")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	assert.ErrorContains(t, offline(file), "is a file, want a directory with *.ctmpl files")

	for name, content := range map[string]string{
		"generation.conf.ctmpl": "template generation.conf.ctmpl has the name of a file that lbctl writes itself, want another name",
		"generation.json.ctmpl": "template generation.json.ctmpl has the name of a file that lbctl writes itself, want another name",
	} {
		dir := t.TempDir()
		writeTemplate(t, dir, name, "")
		assert.ErrorContains(t, offline(dir), content)
	}

	dir := t.TempDir()
	writeTemplate(t, dir, "nginx.conf.ctmpl", "# include generation.conf;\n")
	assert.ErrorContains(t, offline(dir), `template nginx.conf.ctmpl: it renders to a file without "include generation.conf;", want that line in http{}`)
	writeTemplate(t, dir, "nginx.conf.ctmpl", "http { include 'generation.conf' ; }\n")
	assert.NoError(t, offline(dir))
	writeTemplate(t, dir, "a.conf.ctmpl", "\n\n{{template \"nowhere\"}}")
	writeTemplate(t, dir, "b.conf.ctmpl", "{{range}}")
	err := offline(dir)
	assert.ErrorContains(t, err, `template a.conf.ctmpl: line 3: at <{{template "nowhere"}}>: template "nowhere" not defined`)
	assert.ErrorContains(t, err, "template b.conf.ctmpl: line 1: missing value for range")
}

func TestFunctions(t *testing.T) {
	for _, c := range []struct{ template, want, err string }{
		{`{{quote "plain_word-1.2/x:*"}}`, `plain_word-1.2/x:*`, ""},
		{`{{quote ""}}`, `""`, ""},
		{`{{quote "two words; }"}}`, `"two words; }"`, ""},
		{`{{quote "a\"b\\c'"}}`, `"a\"b\\c'"`, ""},
		{`{{quote 5000}}`, `5000`, ""},
		{`{{quote "a$b"}}`, "", `want text without "$", which starts a variable in nginx and can't be escaped`},
		{`{{quote "a\nb"}}`, "", "want text without control characters"},
		{`{{nginxAtLeast "1.25.1"}} {{nginxAtLeast "1.30.6"}} {{nginxAtLeast "1.30.7"}} {{nginxAtLeast "2.0.0"}} {{nginxAtLeast "1.4.0"}}`, "true true false false true", ""},
		{`{{nginxAtLeast "1.25"}}`, "", `version "1.25", want three numbers like "1.25.1"`},
		{`{{settings.GRPCListen}} {{settings.RunFile "x"}}`, "0.0.0.0:5000 /var/lib/lbctl/run/x", ""},
		{`{{range catalog.Services}}{{.Name}} {{.Protocol}} {{.State}} {{len .Rotation}};{{end}}`, "a http fresh 1;", ""},
		{`{{writeToFile "x" "" "" "" "y"}}`, "", "a template renders to the file of its name only"},
		{`{{safeTree "x"}}`, "", "use tree"},
		{`{{nomadService "x"}}`, "", "not to Nomad"},
		{`{{keyOrDefault "x" "else"}} {{len (services)}}`, "else 0", ""},
	} {
		dir := t.TempDir()
		writeTemplate(t, dir, "out.ctmpl", c.template)
		got, err := offline(Options{Settings: testSettings("1.30.6"), TemplatesDir: dir}, services("a http - -"), testNames())
		if c.err != "" {
			assert.ErrorContains(t, err, c.err, c.template)
			continue
		}
		require.NoError(t, err, c.template)
		assert.Equal(t, c.want, string(got.Files["out"]), c.template)
	}
}

// A configuration read back from quoted words has the same words.
func TestQuoteIsReadBackAsItWas(t *testing.T) {
	for _, word := range nasty {
		quoted, err := quote(word)
		if err != nil {
			continue
		}
		tree, err := parseConf("x " + quoted + ";")
		require.NoError(t, err, quoted)
		assert.Equal(t, []directive{{words: []string{"x", word}}}, tree)
	}
}

func TestQueriesOfATemplateThatFails(t *testing.T) {
	text := `{{define "t"}}{{key "defined"}}{{end}}
{{with key "with" | parseJSON}}{{.x.y}}{{key .dynamic}}{{else}}{{key "else"}}{{end}}
{{range services}}{{range service "in-range" "|any"}}{{end}}{{end}}
{{if (keyExists "if")}}{{end}}{{$x := (tree "tree").Foo}}{{template "t" (ls "argument")}}{{printf "%s" (key "printed")}}{{"piped" | key}}{{key 5}}`
	assert.Equal(t, []string{
		`{{$_ := key "defined"}}`, `{{$_ := key "else"}}`, `{{$_ := key "printed"}}`, `{{$_ := key "with"}}`, `{{$_ := keyExists "if"}}`,
		`{{$_ := ls "argument"}}`, `{{$_ := service "in-range" "|any"}}`, `{{$_ := services}}`, `{{$_ := tree "tree"}}`,
	}, literalQueries(text))
	assert.Empty(t, literalQueries("{{if"))

	r := execute(templateSet{"x.ctmpl": newContents(`{{index (key "a" | parseJSON) "b" "c"}}{{key "d"}}`)}, functions(Catalog{}, Settings{}), template.NewBrain())
	require.Len(t, r.problems, 1)
	assert.ElementsMatch(t, []string{"kv.block(a)", "kv.block(d)"}, r.missing)
	assert.Len(t, r.needs, 2)
}

// A wrong type makes consul-template panic.
func TestAPanicIsAProblem(t *testing.T) {
	brain := template.NewBrain()
	d, err := dependency.NewKVGetQuery("x")
	require.NoError(t, err)
	d.EnableBlocking()
	brain.Remember(d, 5)
	r := execute(templateSet{"x.ctmpl": newContents(`{{key "x"}}`)}, functions(Catalog{}, Settings{}), brain)
	require.Len(t, r.problems, 1)
	assert.Equal(t, "template x.ctmpl", r.problems[0].Subject)
	assert.False(t, strings.Contains(r.problems[0].Message, "\n"))
}

func TestTheManualsExampleWorks(t *testing.T) {
	manual, err := os.ReadFile("../../docs/templates.md")
	require.NoError(t, err)
	_, example, ok := strings.Cut(string(manual), "# /etc/lbctl/templates/http.d/intranet.conf.ctmpl\n")
	require.True(t, ok, "the manual has no example")
	example, _, _ = strings.Cut(example, "```")
	brain := template.NewBrain()
	key, err := dependency.NewKVGetQuery("intranet/host")
	require.NoError(t, err)
	service, err := dependency.NewHealthServiceQuery("intranet")
	require.NoError(t, err)
	brain.Remember(key, "intra.test")
	brain.Remember(service, []*dependency.HealthService{{ID: "one", Address: "10.0.0.1", Port: 80}, {ID: "two;", Address: "10.0.0.2", Port: 80}})
	settings := testSettings("1.30.6")
	r := execute(templateSet{"x.ctmpl": newContents(example)}, functions(Catalog{}, settings), brain)
	require.Empty(t, r.problems)
	require.Empty(t, r.missing)
	assert.Equal(t, `server {
    listen 0.0.0.0:8081;
    server_name intra.test;
    location /one/ { proxy_pass http://10.0.0.1:80/; }
    location "/two;/" { proxy_pass http://10.0.0.2:80/; }
}
`, string(r.files["x"]))
}
