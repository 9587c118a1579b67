package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
)

// fake is a daemon with the generations 1 and 3, which nginx has served, and 2, which nginx
// has refused.
type fake struct {
	current int
	frozen  int
	serving error
	disk    error
	slow    chan struct{} // receives at the start and at the end of a rollback
}

func (f *fake) Status(context.Context) controller.Status {
	status := controller.Status{State: controller.Serving}
	if f.frozen > 0 {
		status.Frozen = &controller.Pin{Generation: f.frozen}
	}
	return status
}

func (f *fake) Pinned() controller.Pinned { return controller.Pinned{} }

func (f *fake) Routing() controller.Routing { return controller.Routing{} }

func (f *fake) History() []history.Event { return nil }

func (f *fake) Rollback(ctx context.Context, number int) (nginx.Generation, error) {
	if f.slow != nil {
		<-f.slow
		<-f.slow
	}
	if err := ctx.Err(); err != nil {
		return nginx.Generation{}, err
	}
	f.current, f.frozen = number, number
	return nginx.Generation{Number: number}, nil
}

func (f *fake) Resume(context.Context) error { f.frozen = 0; return nil }

func (f *fake) Entries() []endpoints.Entry {
	return []endpoints.Entry{{Service: endpoints.Service{Name: "web", Spec: endpoints.Spec{Protocol: endpoints.HTTP, Default: true}}}}
}

func (f *fake) Accept(string) int { return 0 }

// Listed has services that are not balanced, each with one tag of the same name.
func (f *fake) Listed(service string) (tags []string, listed, known bool) {
	return []string{service}, service != "nope" && service != "wep", true
}
func (f *fake) Current() (nginx.Generation, error) {
	return nginx.Generation{Number: f.current}, f.disk
}
func (f *fake) Serving(context.Context) (int, error) { return f.current, f.serving }
func (f *fake) Files(int) (map[string][]byte, error) {
	return map[string][]byte{"nginx.conf": []byte("x\n")}, f.disk
}
func (f *fake) Generations() ([]nginx.Generation, error) {
	return []nginx.Generation{{Number: 3, Served: time.Unix(3, 0)}, {Number: 2}, {Number: 1, Served: time.Unix(1, 0)}}, f.disk
}

func newServer(f *fake) *Server {
	return &Server{Controller: f, Services: f, Generations: f, Catalog: f, Logger: slog.New(slog.DiscardHandler)}
}

// serve runs a server and returns the addresses of its socket and its TCP listener.
func serve(t *testing.T, f *fake) (unix, tcp string) {
	t.Helper()
	path, address := serveServer(t, newServer(f))
	return "unix://" + path, "http://" + address
}

func serveServer(t *testing.T, server *Server) (path, address string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lb") // t.TempDir is too long for a socket's path
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "admin.sock")
	socket, err := ListenUnix(path)
	require.NoError(t, err)
	web, err := ListenTCP("127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, socket, web) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
		assert.NoFileExists(t, path, "the socket is removed when the server ends")
	})
	return path, web.Addr().String()
}

func client(t *testing.T, addresses ...string) *Client {
	t.Helper()
	c, err := NewClient(addresses...)
	require.NoError(t, err)
	return c
}

func TestHTTP(t *testing.T) {
	for name, test := range map[string]struct {
		fake   *fake
		method string
		path   string
		body   string
		status int
		answer string // a part of the answer
	}{
		"health":                               {path: "/healthz", status: 200, answer: "lbctl runs\n"},
		"ready":                                {path: "/readyz", status: 200, answer: "nginx serves generation 3\n"},
		"not ready":                            {fake: &fake{serving: errors.New("nobody listens")}, path: "/readyz", status: 503, answer: "nobody listens\n"},
		"ready, in detail":                     {path: "/readyz?verbose", status: 200, answer: "[+]nginx ok: nginx serves generation 3\nreadyz check passed\n"},
		"not ready, in detail":                 {fake: &fake{serving: errors.New("nobody listens")}, path: "/readyz?verbose=1", status: 503, answer: "[-]nginx failed: nobody listens\nreadyz check failed\n"},
		"alive":                                {path: "/livez", status: 200, answer: "lbctl works\n"},
		"alive, in detail":                     {path: "/livez?verbose", status: 200, answer: "[+]state ok: lbctl works\nlivez check passed\n"},
		"alive without nginx":                  {fake: &fake{serving: errors.New("nobody listens")}, path: "/livez", status: 200, answer: "lbctl works\n"},
		"status":                               {path: "/v1/status", status: 200, answer: `"state":"serving"`},
		"an empty history":                     {path: "/v1/history", status: 200, answer: "[]\n"},
		"generations":                          {path: "/v1/generations", status: 200, answer: `"number":3,`},
		"a generation with its files":          {path: "/v1/generations/1", status: 200, answer: `"files":{"nginx.conf":"x\n"}`},
		"an unknown generation":                {path: "/v1/generations/9", status: 404, answer: "there is no generation 9 on disk; want one of 1 to 3"},
		"no number":                            {path: "/v1/generations/x", status: 400, answer: `generation \"x\": want a number`},
		"a mistyped service":                   {path: "/v1/services/wep", status: 404, answer: `Consul has no service \"wep\"; did you mean \"web\"?`},
		"a service that does not ask":          {path: "/v1/services/cart", status: 404, answer: `service \"cart\" is in Consul, but nothing asks lbctl to balance it: it has neither lb-... metadata nor one of the tags grpc_server and http_server`},
		"a service with a mistyped tag":        {path: "/v1/services/http-server", status: 404, answer: `nothing asks lbctl to balance it. It has the tag \"http-server\": did you mean \"http_server\"?`},
		"a service with a tag, not balanced":   {path: "/v1/services/http_server", status: 404, answer: `service \"http_server\" is not balanced, though it has one of the tags`},
		"a service that has no good name":      {path: "/v1/services/shop.eu", status: 404, answer: `service \"shop.eu\" can't be balanced: its name has other characters`},
		"an unknown service":                   {path: "/v1/services/nope", status: 404, answer: `Consul has no service \"nope\"; want one of web`},
		"a diff skips what nginx never served": {path: "/v1/diff", status: 200, answer: `{"from":1,"to":3,"files":[]}`},
		"a diff with an invalid number":        {path: "/v1/diff?from=-1", status: 400, answer: `from \"-1\": want the number of a generation`},
		"a diff with an unknown generation":    {path: "/v1/diff?from=1&to=9", status: 404, answer: "there is no generation 9"},
		"a disk that can't be read":            {fake: &fake{disk: errors.New("disk gone")}, path: "/v1/generations", status: 500, answer: "disk gone"},
		"an unknown path":                      {path: "/v2/status", status: 404, answer: "there is nothing at /v2/status; try /v1/status"},
		"a wrong method":                       {method: "DELETE", path: "/v1/status", status: 405, answer: "/v1/status takes GET, HEAD, not DELETE"},
		"a rollback":                           {method: "POST", path: "/v1/rollback", body: `{"generation":1}`, status: 200, answer: `"from":3`},
		"a rollback to the one before":         {method: "POST", path: "/v1/rollback", status: 200, answer: `"number":1,`},
		"a rollback from the first":            {fake: &fake{current: 1}, method: "POST", path: "/v1/rollback", status: 404, answer: "there is no generation before 1"},
		"a rollback to a typing mistake":       {method: "POST", path: "/v1/rollback", body: `{"generatoin":1}`, status: 400, answer: `unknown field \"generatoin\"`},
		"a request that is too large":          {method: "POST", path: "/v1/resume", body: `"` + strings.Repeat("x", maxBody) + `"`, status: 413, answer: "larger than 16384 bytes"},
		"resume":                               {fake: &fake{frozen: 1}, method: "POST", path: "/v1/resume", status: 200, answer: `{"frozen":1}`},
		"accept":                               {method: "POST", path: "/v1/accept", status: 200, answer: `{"released":0}`},
	} {
		t.Run(name, func(t *testing.T) {
			f := test.fake
			if f == nil {
				f = &fake{current: 3}
			}
			address, _ := serve(t, f)
			path := strings.TrimPrefix(address, "unix://")
			over := &http.Client{Transport: &http.Transport{
				DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
			}}
			request, err := http.NewRequest(test.method, "http://lbctl"+test.path, strings.NewReader(test.body))
			require.NoError(t, err)
			response, err := over.Do(request)
			require.NoError(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			assert.Equal(t, test.status, response.StatusCode, string(body))
			assert.Contains(t, string(body), test.answer)
			if strings.HasPrefix(test.path, "/v") {
				assert.Equal(t, "application/json", response.Header.Get("Content-Type"))
				assert.True(t, json.Valid(body), string(body))
			}
			assert.Equal(t, "no-store", response.Header.Get("Cache-Control"))
		})
	}
}

func TestTCPOnlyAnswers(t *testing.T) {
	f := &fake{current: 3}
	socket, tcp := serve(t, f)
	c := client(t, tcp)
	status, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, controller.Serving, status.State)
	_, err = c.Rollback(t.Context(), 1)
	var refused *Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, http.StatusForbidden, refused.Status)
	assert.Contains(t, refused.Message, "with --run-dir "+filepath.Dir(strings.TrimPrefix(socket, "unix://"))+";")
	assert.Equal(t, 3, f.current, "no rollback happened")
}

func TestClientTakesTheFirstThatListens(t *testing.T) {
	unix, tcp := serve(t, &fake{current: 3})
	missing := "unix:///nowhere/admin.sock"
	for _, addresses := range [][]string{{unix}, {tcp}, {missing, tcp}, {strings.TrimPrefix(tcp, "http://")}} {
		line, err := client(t, addresses...).Ready(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "nginx serves generation 3", line)
	}
	_, err := client(t, missing, "127.0.0.1:1").Status(t.Context())
	assert.ErrorIs(t, err, ErrUnreachable)
	assert.EqualError(t, err, "no daemon answered at unix:///nowhere/admin.sock (the socket does not exist) or "+
		"http://127.0.0.1:1 (connection refused); is 'lbctl run' running? Give its address with --addr or LBCTL_ADDR")
}

func TestClientOfSomethingElse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/history" {
			_, _ = io.WriteString(w, "<html>")
			return
		}
		http.Error(w, "<html>", http.StatusBadGateway)
	})}
	go server.Serve(listener)
	defer server.Close()
	c := client(t, listener.Addr().String())
	_, err = c.Status(t.Context())
	assert.ErrorContains(t, err, "502 Bad Gateway, which is not an answer of lbctl")
	_, err = c.History(t.Context())
	assert.ErrorContains(t, err, "not an answer of lbctl")
}

func TestARollbackOutlivesItsClient(t *testing.T) {
	f := &fake{current: 3, slow: make(chan struct{})}
	unix, _ := serve(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() {
		_, err := client(t, unix).Rollback(ctx, 1)
		errs <- err
	}()
	f.slow <- struct{}{} // the rollback has begun
	cancel()
	assert.ErrorIs(t, <-errs, context.Canceled)
	f.slow <- struct{}{} // the rollback may end
}

func TestListenUnix(t *testing.T) {
	dir, err := os.MkdirTemp("", "lb")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "admin.sock")

	left, err := net.Listen("unix", path)
	require.NoError(t, err)
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, left.Close())
	listener, err := ListenUnix(path)
	require.NoError(t, err, "a socket left behind is replaced")
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, listener.Close())

	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err = ListenUnix(path)
	assert.ErrorContains(t, err, "the file exists and is not a socket")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(content))
}

func TestListenTCP(t *testing.T) {
	taken, err := ListenTCP("127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, err = ListenTCP(taken.Addr().String())
	assert.ErrorContains(t, err, "another process uses the port; choose another one with --admin or LBCTL_ADMIN")
}

func TestNewClientRefuses(t *testing.T) {
	for _, address := range []string{"", "https://x", "http://x/v1", "http://u:p@x", "unix://relative", "http://"} {
		_, err := NewClient(address)
		assert.Error(t, err, address)
	}
	_, err := NewClient()
	assert.Error(t, err)
	c, err := NewClient("balancer.example.com")
	require.NoError(t, err)
	assert.Equal(t, "http://balancer.example.com:9119", c.remotes[0].address)
}
