package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

func TestCheck(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		for name, test := range map[string]struct {
			templates map[string]string
			code      int
			want      []string // in the output
		}{
			"the built-in templates": {
				want: []string{
					"ok    an empty Consul: nginx " + binary.Version + " accepts it\n",
					"ok    one gRPC service", "ok    services without a healthy instance", "ok    services of every kind",
				},
			},
			"an own file": {
				templates: map[string]string{"http.d/own.conf.ctmpl": `map $host $own { default "{{len catalog.Services}}"; }`},
				want:      []string{"ok    services of every kind"},
			},
			"a directive that nginx does not know": {
				templates: map[string]string{"http.d/own.conf.ctmpl": "# fine\n  nonsense on;\n"},
				code:      exitProblem,
				want: []string{
					`FAIL  an empty Consul: nginx -t: unknown directive "nonsense" in http.d/own.conf:2`,
					"      http.d/own.conf:2, from template http.d/own.conf.ctmpl: nonsense on;\n",
				},
			},
			"a mistake that shows with services only": {
				templates: map[string]string{"http.d/own.conf.ctmpl": "{{range catalog.TCP}}nonsense on;{{end}}"},
				code:      exitProblem,
				want:      []string{"ok    an empty Consul", "ok    one gRPC service", "FAIL  services of every kind"},
			},
			"a template that can't be parsed": {
				templates: map[string]string{"http.d/own.conf.ctmpl": "fine\n{{range}"},
				code:      exitProblem,
				want:      []string{"FAIL  an empty Consul: template http.d/own.conf.ctmpl: line 2: "},
			},
			"a main file without the generation": {
				templates: map[string]string{"nginx.conf.ctmpl": "events {}\nhttp {}\n"},
				code:      exitProblem,
				want:      []string{"generation.conf"},
			},
		} {
			t.Run(name, func(t *testing.T) {
				args := []string{"check", "--nginx", binary.Path}
				if test.templates != nil {
					args = append(args, "--templates", writeTemplates(t, test.templates))
				}
				got := command(t.Context(), Terminal{}, nil, args...)
				assert.Equal(t, test.code, got.code, got.out+got.err)
				for _, want := range test.want {
					assert.Contains(t, got.out, want)
				}
				assert.Empty(t, got.err)
			})
		}
	})
}

func TestCheckJSON(t *testing.T) {
	binary := nginxtest.Binaries(t)[0]
	templates := writeTemplates(t, map[string]string{"http.d/own.conf.ctmpl": "nonsense on;\n"})
	got := command(t.Context(), Terminal{}, nil, "check", "--nginx", binary.Path, "--templates", templates, "-o", "json")
	assert.Equal(t, exitProblem, got.code)
	var results []checkResult
	require.NoError(t, json.Unmarshal([]byte(got.out), &results))
	require.Len(t, results, len(samples))
	assert.Equal(t, checkResult{
		Name: "an empty Consul", Error: `nginx -t: unknown directive "nonsense" in http.d/own.conf:1`,
		File: "http.d/own.conf", Line: 1, Text: "nonsense on;",
	}, results[0])
}

func TestCheckUsage(t *testing.T) {
	got := command(t.Context(), Terminal{}, nil, "check", "--templates", "/nowhere/at/all")
	assert.Equal(t, exitUsage, got.code)
	assert.Contains(t, got.err, `--templates "/nowhere/at/all": want an existing directory`)

	got = command(t.Context(), Terminal{}, nil, "check", "--nginx", "/nowhere/nginx")
	assert.Equal(t, exitFailure, got.code)
	assert.Contains(t, got.err, "find nginx")
}

func TestRenderWithoutConsul(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	binary := nginxtest.Binaries(t)[0]
	got := command(t.Context(), Terminal{}, nil, "render", "--nginx", binary.Path, "--timeout", "1s")
	assert.Equal(t, exitFailure, got.code)
	assert.Empty(t, got.out)
	assert.Contains(t, got.err, "127.0.0.1:1")
}

func TestCheckLeavesNothingBehind(t *testing.T) {
	binary := nginxtest.Binaries(t)[0]
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	got := command(t.Context(), Terminal{}, nil, "check", "--nginx", binary.Path)
	assert.Equal(t, exitOK, got.code, got.out+got.err)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func writeTemplates(t *testing.T, templates map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range templates {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return dir
}

func TestPlace(t *testing.T) {
	files := map[string][]byte{"a.conf": []byte("one\n  two;\n")}
	for message, want := range map[string]string{
		`unknown directive "two" in a.conf:2`: "a.conf:2 two;",
		"in b.conf:1":                         "",
		"in a.conf:9":                         "",
		"no file and line":                    "",
	} {
		file, line, text := refusedLine(message, files)
		got := ""
		if file != "" {
			got = strings.Join([]string{file, ":", string(rune('0' + line)), " ", text}, "")
		}
		assert.Equal(t, want, got, message)
	}
}
