//go:build bench

package bench

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// startRecipe starts the recipe everybody knows, consul-template with nginx's
// reload as its command, and returns where its nginx takes gRPC.
func startRecipe(t *testing.T, consul string, nginx nginxtest.Binary) string {
	t.Helper()
	dir := nginxtest.Dir(t)
	program := filepath.Join(dir, "consul-template")
	out, err := exec.Command("go", "build", "-o", program, "github.com/hashicorp/consul-template").CombinedOutput()
	require.NoError(t, err, "build consul-template: %s", out)

	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
	http2 := fmt.Sprintf("listen %s;\n    http2 on;", listen)
	if len(nginx.Version) > 4 && nginx.Version[:4] < "1.25" {
		http2 = fmt.Sprintf("listen %s http2;", listen)
	}
	conf, upstream := filepath.Join(dir, "nginx.conf"), filepath.Join(dir, "upstream.conf")
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, `%[4]s
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
worker_processes 2;
worker_rlimit_nofile 4096;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  keepalive_requests 100000;
  include %[2]s;
  server {
    %[3]s
    location / { grpc_pass grpc://backends; }
  }
}
`, dir, upstream, http2, user), 0o644))
	template := filepath.Join(dir, "upstream.ctmpl")
	require.NoError(t, os.WriteFile(template, []byte(`upstream backends {
{{- range service "`+service+`"}}
  server {{.Address}}:{{.Port}};
{{- else}}
  server 127.0.0.1:1;
{{- end}}
  keepalive 64;
}
`), 0o644))
	require.NoError(t, os.WriteFile(upstream, []byte("upstream backends { server 127.0.0.1:1; }\n"), 0o644))
	nginxtest.Start(t, nginx, conf, dir)

	log, err := os.Create(filepath.Join(dir, "consul-template.log"))
	require.NoError(t, err)
	cmd := exec.Command(program, "-consul-addr", consul, "-template",
		fmt.Sprintf("%s:%s:kill -HUP $(cat %s/nginx.pid)", template, upstream, dir))
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
	})
	lbtest.Eventually(t, "consul-template has rendered", func() error {
		text, err := os.ReadFile(upstream)
		if err == nil && string(text) == "upstream backends { server 127.0.0.1:1; }\n" {
			err = fmt.Errorf("not yet")
		}
		return err
	})
	return listen
}
