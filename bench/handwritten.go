//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// handwritten is an nginx configuration for the two services, as an expert would write
// it by hand. Each difference between variants is a field.
type handwritten struct {
	Workers   int
	Upstreams string // nginx's configuration of the upstreams hello_server and web
	GRPC      string // how nginx passes gRPC to instances; empty for grpc_pass
	Main      string // further directives outside http{}
	HTTP      string // further directives inside http{}
	AccessLog string // empty for none
	Mute      bool   // no X-Forwarded-... headers, which lbctl's templates set
}

// upstream is the configuration of an upstream.
func upstream(name string, servers []string, keepalive int, zone bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "upstream %s {\n", name)
	if zone {
		fmt.Fprintf(&b, "  zone %s 128k;\n", name)
	}
	for _, server := range servers {
		fmt.Fprintf(&b, "  server %s;\n", server)
	}
	if keepalive > 0 {
		fmt.Fprintf(&b, "  keepalive %d;\n  keepalive_requests 100000;\n", keepalive)
	}
	b.WriteString("}\n")
	return b.String()
}

var handwrittenConf = template.Must(template.New("").Parse(`{{.User}}
pid {{.Dir}}/nginx.pid;
error_log {{.Dir}}/error.log;
worker_processes {{.Workers}};
worker_rlimit_nofile 8192;
{{.Main}}
events { worker_connections 4096; }
http {
  access_log {{with .AccessLog}}{{$.Dir}}/{{.}}{{else}}off{{end}};
  client_body_temp_path {{.Dir}}/body; proxy_temp_path {{.Dir}}/proxy; fastcgi_temp_path {{.Dir}}/fastcgi;
  uwsgi_temp_path {{.Dir}}/uwsgi; scgi_temp_path {{.Dir}}/scgi;
  keepalive_requests 100000;
  keepalive_timeout 1h;
  ssl_certificate {{.Cert}};
  ssl_certificate_key {{.Key}};
  proxy_http_version 1.1;
  proxy_set_header Connection "";
{{- if not .Mute}}
  grpc_set_header Host $http_host;
  grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  grpc_set_header X-Forwarded-Proto $scheme;
  grpc_set_header X-Forwarded-Host $http_host;
  proxy_set_header Host $http_host;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $http_host;
{{- end}}
  {{.HTTP}}
  {{.Upstreams}}
{{- define "grpc"}}
    location / { {{or .GRPC "grpc_pass grpc://hello_server;"}} }
{{- end}}
  server {
    {{index .Listen 0}}
    {{- template "grpc" .}}
  }
  server {
    {{index .Listen 1}}
    location / { proxy_pass http://web; }
  }
  server {
    {{index .Listen 2}}
    {{- template "grpc" .}}
  }
  server {
    {{index .Listen 3}}
    location / { proxy_pass http://web; }
  }
}
`))

// write writes the configuration into dir, and returns its path.
func (h handwritten) write(t *testing.T, s *site, dir string, at fronts) string {
	t.Helper()
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	path := filepath.Join(dir, "nginx.conf")
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, handwrittenConf.Execute(file, struct {
		handwritten
		Dir, User, Cert, Key string
		Listen               []string
	}{
		handwritten: h,
		Dir:         dir, User: user,
		Cert: s.identity.cert, Key: s.identity.key,
		Listen: []string{
			listenHTTP2(s.nginx, at[grpcPlain]),
			"listen " + at[httpPlain] + ";",
			listenTLS(s.nginx, at[grpcTLS]),
			listenTLS(s.nginx, at[httpTLS]),
		},
	}))
	return path
}

// start runs nginx with the configuration.
func (h handwritten) start(t *testing.T, s *site) *proxy {
	t.Helper()
	dir := nginxtest.Dir(t)
	at := freeFronts(func() int { return nginxtest.FreePort(t) })
	process := nginxtest.Start(t, s.nginx, h.write(t, s, dir, at), dir)
	return &proxy{at: at, pids: []int{process.PID()}, counts: never}
}

// listenHTTP2 returns the directives that make nginx listen for HTTP/2 without TLS.
func listenHTTP2(nginx nginxtest.Binary, address string) string {
	if atLeast(nginx.Version, 1, 25, 1) {
		return "listen " + address + "; http2 on;"
	}
	return "listen " + address + " http2;"
}

// listenTLS returns the directives that make nginx listen for HTTP/1.1 and HTTP/2 over TLS.
func listenTLS(nginx nginxtest.Binary, address string) string {
	if atLeast(nginx.Version, 1, 25, 1) {
		return "listen " + address + " ssl; http2 on;"
	}
	return "listen " + address + " ssl http2;"
}

func atLeast(version string, major, minor, patch int) bool {
	var a, b, c int
	fmt.Sscanf(version, "%d.%d.%d", &a, &b, &c)
	return a > major || a == major && (b > minor || b == minor && c >= patch)
}
