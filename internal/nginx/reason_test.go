package nginx

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReason(t *testing.T) {
	t.Parallel()
	const dir = "/var/lib/lbctl/run/test-42"
	for _, c := range []struct{ name, output, want string }{
		{
			"an error of nginx -t, with the place relative to the generation",
			"nginx: [emerg] unknown directive \"foo\" in /var/lib/lbctl/run/test-42/nginx.conf:3\nnginx: configuration file /var/lib/lbctl/run/test-42/nginx.conf test failed\n",
			`unknown directive "foo" in nginx.conf:3`,
		},
		{
			"the same from 1.22 and 1.30 with -e stderr",
			"2026/11/21 09:21:39 [emerg] 26783#26783: unknown directive \"foo\" in /var/lib/lbctl/run/test-42/conf.d/a.conf:3\n",
			`unknown directive "foo" in conf.d/a.conf:3`,
		},
		{
			"a variable of another version's templates",
			"nginx: [emerg] unknown \"lb_nobody\" variable\nnginx: configuration file /x/nginx.conf test failed\n",
			`unknown "lb_nobody" variable: a template that replaces a built-in one may come from another version of lbctl, compare it with the one of this version`,
		},
		{
			"a variable of the operator's own",
			"nginx: [emerg] unknown \"upstream_adr\" variable\n",
			`unknown "upstream_adr" variable`,
		},
		{
			"a warning before the error",
			"nginx: [warn] the \"listen ... http2\" directive is deprecated, use the \"http2\" directive instead in /x/nginx.conf:9\nnginx: [emerg] host not found in upstream \"nowhere.invalid\" in /var/lib/lbctl/run/test-42/nginx.conf:12\n",
			`host not found in upstream "nowhere.invalid" in nginx.conf:12`,
		},
		{
			"only a warning",
			"2026/11/21 09:21:39 [warn] 7#7: conflicting server name \"a\" on 0.0.0.0:80, ignored\n",
			`conflicting server name "a" on 0.0.0.0:80, ignored`,
		},
		{
			"a file that is missing",
			"nginx: [emerg] cannot load certificate \"/var/lib/lbctl/run/test-42/a.pem\": BIO_new_file() failed (SSL: error:80000002:system library::No such file or directory:calling fopen(/var/lib/lbctl/run/test-42/a.pem, r) error:10000080:BIO routines::no such file)\n",
			`cannot load certificate "a.pem": BIO_new_file() failed (SSL: error:80000002:system library::No such file or directory:calling fopen(a.pem, r) error:10000080:BIO routines::no such file)`,
		},
		{
			"a port below 1024 without the right to it",
			"2026/11/21 09:21:39 [emerg] 26783#26783: bind() to 0.0.0.0:80 failed (13: Permission denied)\n",
			`bind() to 0.0.0.0:80 failed (13: Permission denied)`,
		},
		{
			"what is quoted has line breaks",
			"nginx: [emerg] invalid number of arguments in \"proxy_pass\n  directive\t\x1b[31m\" in /var/lib/lbctl/run/test-42/nginx.conf:1\nnginx: configuration file x test failed\n",
			`invalid number of arguments in "proxy_pass directive [31m" in nginx.conf:1`,
		},
		{"no nginx at all", "bash: nginx: command not found\n", "bash: nginx: command not found"},
		{"an option nginx does not know", "nginx: invalid option: \"z\"\n", `invalid option: "z"`},
		{"a message about a request", "2026/11/21 09:21:39 [emerg] 7#7: *12 open() failed\n", "open() failed"},
		{"nothing", "\n\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, reason(c.output, dir)) })
	}

	long := reason("nginx: [emerg] unknown directive \""+strings.Repeat("ö", 5000)+"\" in /g/nginx.conf:7\n", "/g")
	assert.Less(t, len([]rune(long)), 450)
	assert.True(t, strings.HasPrefix(long, "unknown directive"), long)
	assert.True(t, strings.HasSuffix(long, "in nginx.conf:7"), long)
}

// The error log of a real nginx 1.22 whose reload found a port in use, with messages of
// workers.
const logOfTakenPort = `2026/11/21 09:21:39 [notice] 100#100: signal 1 (SIGHUP) received from 7, reconfiguring
2026/11/21 09:21:39 [notice] 100#100: reconfiguring
2026/11/21 09:21:39 [emerg] 101#101: a worker's
2026/11/21 09:21:39 [error] 101#101: *1 connect() failed (111: Connection refused) while connecting to upstream
2026/11/21 09:21:39 [emerg] 100#100: bind() to 0.0.0.0:5000 failed (98: Address already in use)
2026/11/21 09:21:39 [notice] 100#100: try again to bind() after 500ms
`

func TestTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "error.log")
	write := func(text string) {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		require.NoError(t, err)
		_, err = file.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, file.Close())
	}
	log := tailOf(path)
	log.read() // the file does not exist yet
	write("2026/11/21 09:00:00 [emerg] 100#100: of long ago\n")

	log = tailOf(path)
	write(logOfTakenPort)
	log.read()
	assert.False(t, log.refused(100), "nginx still tries")
	assert.Equal(t, "bind() to 0.0.0.0:5000 failed (98: Address already in use)", log.reason(100, "/g"))
	assert.Equal(t, "a worker's", log.reason(0, "/g"), "without a known master every message counts")
	write("2026/11/21 09:21:42 [emerg] 100#100: still could")
	log.read()
	assert.False(t, log.refused(100), "half a line does not count")
	write(" not bind()\n")
	log.read()
	assert.True(t, log.refused(100))
	assert.False(t, log.refused(99))
	assert.Equal(t, "bind() to 0.0.0.0:5000 failed (98: Address already in use)", log.reason(100, "/g"), "the cause, not the end")

	log = tailOf(path)
	write("2026/11/21 09:21:43 [alert] 100#100: mmap(MAP_ANON|MAP_SHARED, 9999) failed (12: Cannot allocate memory)\n")
	log.read()
	assert.False(t, log.refused(100))
	assert.Equal(t, "mmap(MAP_ANON|MAP_SHARED, 9999) failed (12: Cannot allocate memory)", log.reason(100, ""))

	require.NoError(t, os.Remove(path))
	write("2026/11/21 09:21:44 [emerg] 100#100: in another file\n")
	log.read()
	assert.True(t, log.refused(100), "a new file is read from its beginning")
}
