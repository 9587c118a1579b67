package nginxtest_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

func configuration(dir string, port int) string {
	return fmt.Sprintf(`
pid %[1]s/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
    server { listen 127.0.0.1:%[2]d; listen unix:%[1]s/generation.sock; return 200 "hello\n"; }
}
`, dir, port)
}

func TestProcess(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		dir, port := nginxtest.Dir(t), nginxtest.FreePort(t)
		conf := filepath.Join(dir, "nginx.conf")
		require.NoError(t, os.WriteFile(conf, []byte(configuration(dir, port)), 0o644))
		dial := func() error {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				conn.Close()
			}
			return err
		}

		first := nginxtest.Start(t, binary, conf, dir)
		require.NoError(t, dial(), "nginx listens when Start returns")

		// The master writes its process id before it starts the workers.
		require.Eventually(t, func() bool { return len(first.Workers()) > 0 }, time.Minute, 5*time.Millisecond)
		first.KillMaster()
		require.NoError(t, dial(), "the workers of a killed master live on")

		second := nginxtest.Start(t, binary, conf, dir)
		assert.NotEqual(t, first.PID(), second.PID())
		require.NoError(t, dial(), "a killed master's workers and socket are not in the way")

		second.Stop()
		require.ErrorIs(t, dial(), syscall.ECONNREFUSED)
		assert.ErrorIs(t, syscall.Kill(-second.PID(), 0), syscall.ESRCH, "no worker is left")
		second.Stop()
	})
}

func TestStartFails(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		dir := nginxtest.Dir(t)
		conf := filepath.Join(dir, "nginx.conf")
		require.NoError(t, os.WriteFile(conf, []byte("nonsense;"), 0o644))
		assert.Contains(t, nginxtest.StartFails(t, binary, conf, dir), `unknown directive "nonsense"`)
	})
}
