package daemon

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
)

func TestTheAccessLogIsOnATmpfs(t *testing.T) {
	disk, memory := t.TempDir(), nginxtest.MemoryDir(t)
	if accesslog.InMemory(disk) == nil {
		t.Skipf("%s is on a tmpfs", disk)
	}
	build := nginx.Build{Version: "1.22.1"}
	for _, tt := range []struct{ name, flag, run, want string }{
		{"the run directory is on a disk", "", disk, ""},
		{"the run directory is on a tmpfs", "", memory, memory},
		{"the flag", "/somewhere", memory, "/somewhere"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			settings, err := NginxConfig{AccessLogDir: tt.flag}.Settings(disk, tt.run, build)
			require.NoError(t, err)
			assert.Equal(t, tt.want, settings.AccessLogDir)
		})
	}

	binary := nginxtest.Binaries(t)[0]
	dir := nginxtest.Dir(t)
	err := Run(t.Context(), Config{
		StateDir: filepath.Join(dir, "state"), Logger: slog.New(slog.DiscardHandler),
		Nginx: NginxConfig{Binary: binary.Path, AccessLogDir: dir, Endpoints: EndpointsReload},
	})
	assert.EqualError(t, err, "directory of the access log: "+dir+" is not on a tmpfs: nginx would wait for its disk; choose another directory with --access-log-dir")
}
