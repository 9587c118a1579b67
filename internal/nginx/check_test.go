package nginx

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	const good = "pid /run/lb/nginx.pid;\nhttp { include generation.conf; }\n"
	i := &Instance{opts: Options{RunDir: "/run/lb"}}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // "" is good
	}{
		{"a minimal configuration", map[string]string{"nginx.conf": good}, ""},
		{"directories and odd names", map[string]string{"nginx.conf": good, "conf.d/a b.conf": "", ".x/..y": ""}, ""},
		{"quoted words, on lines with others", map[string]string{"nginx.conf": "worker_processes 1; pid '/run/lb/nginx.pid' ; http { include \"generation.conf\" ; }"}, ""},
		{"included by a file that is included", map[string]string{"nginx.conf": "pid /run/lb/nginx.pid;", "http.conf": "include ./generation.conf;"}, ""},
		{"no files", nil, `no file "nginx.conf", got []`},
		{"no main file", map[string]string{"other.conf": good}, `no file "nginx.conf", got ["other.conf"]`},
		{"a path upwards", map[string]string{"nginx.conf": good, "../evil": ""}, `file name "../evil": want a path below the generation, such as "conf.d/api.conf"`},
		{"a hidden path upwards", map[string]string{"nginx.conf": good, "a/../../evil": ""}, `file name "a/../../evil": want a path below the generation, such as "conf.d/api.conf"`},
		{"an absolute path", map[string]string{"nginx.conf": good, "/etc/passwd": ""}, `file name "/etc/passwd": want a path below the generation, such as "conf.d/api.conf"`},
		{"the directory itself", map[string]string{"nginx.conf": good, ".": ""}, `file name ".": want a path below the generation, such as "conf.d/api.conf"`},
		{"no name", map[string]string{"nginx.conf": good, "": ""}, `file name "": want a path below the generation, such as "conf.d/api.conf"`},
		{"a control character", map[string]string{"nginx.conf": good, "a\nb": ""}, `file name "a\nb": want a path below the generation, such as "conf.d/api.conf"`},
		{"a file that lbctl writes", map[string]string{"nginx.conf": good, "generation.conf": ""}, `file name "generation.conf": lbctl writes this file itself`},
		{"a directory in the place of such a file", map[string]string{"nginx.conf": good, "generation.json/x": ""}, `file name "generation.json/x": "generation.json" is a file, not a directory`},
		{"a file that would also be a directory", map[string]string{"nginx.conf": good, "a/b": "", "a/b/c/d": ""}, `file name "a/b/c/d": "a/b" is a file, not a directory`},
		{
			"neither generation nor pid, all told at once",
			map[string]string{"nginx.conf": "# pid /run/lb/nginx.pid;\nhttp { # include generation.conf;\n log_format x '$pid y'; }"},
			`nginx.conf: no "include generation.conf;", want it in the http block: lbctl needs it to verify which generation nginx serves; nginx.conf: no pid file, want "pid /run/lb/nginx.pid;" at the top level: lbctl finds nginx's process with it`,
		},
		{
			"an absolute include would be of the wrong generation",
			map[string]string{"nginx.conf": "pid /run/lb/nginx.pid; include /var/lib/lbctl/current/generation.conf;"},
			`nginx.conf: no "include generation.conf;", want it in the http block: lbctl needs it to verify which generation nginx serves`,
		},
		{"another pid file", map[string]string{"nginx.conf": "pid /run/nginx.pid;\ninclude generation.conf;"}, `nginx.conf: pid file "/run/nginx.pid", want "pid /run/lb/nginx.pid;": lbctl finds nginx's process with it`},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string][]byte{}
			for name, text := range c.files {
				files[name] = []byte(text)
			}
			err := i.validate(files)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, c.want)
		})
	}
}

func TestParseBuild(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, output     string
		version, modules string
		stream           bool
	}{
		{
			"Debian's, with stream as a module",
			"nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.20 7 Apr 2026 (running with OpenSSL 3.0.22 25 Aug 2026)\nconfigure arguments: --prefix=/usr/share/nginx --modules-path=/usr/lib/nginx/modules --with-mail_ssl_module --with-stream_ssl_module --with-stream=dynamic --with-stream_geoip_module=dynamic\n",
			"1.22.1", "/usr/lib/nginx/modules", false,
		},
		{
			"the official image's, with stream built in",
			"nginx version: nginx/1.30.1\nbuilt by gcc 12.2.0 (Debian 12.2.0-14)\nconfigure arguments: --prefix=/etc/nginx --modules-path=/usr/lib/nginx/modules --with-stream --with-stream_realip_module\n",
			"1.30.1", "/usr/lib/nginx/modules", true,
		},
		{"built without any option", "nginx version: nginx/1.29.0\nconfigure arguments:\n", "1.29.0", "/usr/local/nginx/modules", false},
		{"built with a prefix", "nginx version: nginx/1.29.0\nconfigure arguments: --prefix=/opt/nginx --with-stream", "1.29.0", "/opt/nginx/modules", true},
		{"a program based on nginx", "nginx version: openresty/1.27.1.2\nconfigure arguments: --prefix=/x\n", "1.27.1", "/x/modules", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			version, stream, modules, err := parseBuild(c.output)
			require.NoError(t, err)
			assert.Equal(t, c.version, version)
			assert.Equal(t, c.stream, stream)
			assert.Equal(t, c.modules, modules)
		})
	}
	_, _, _, err := parseBuild("Apache/2.4.6")
	require.EqualError(t, err, `want a line like "nginx version: nginx/1.30.6", got "Apache/2.4.6"`)
}
