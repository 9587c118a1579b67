package render

import (
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// target sends a request with a target as it is, and returns the status and what the instance of
// echo saw, or where the answer redirects to.
func target(t *testing.T, b balancer, host, target string) (status int, saw string) {
	t.Helper()
	conn, err := net.Dial("tcp", b.http)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, "GET "+target+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	match := regexp.MustCompile(`^HTTP/1\.1 (\d{3})`).FindSubmatch(answer)
	require.NotNil(t, match, "%s", answer)
	status, err = strconv.Atoi(string(match[1]))
	require.NoError(t, err)
	if match := regexp.MustCompile(`(?m)^Location: (.*)\r$`).FindSubmatch(answer); match != nil {
		return status, string(match[1])
	}
	if match := regexp.MustCompile(`(?m)^GET (\S+)$`).FindSubmatch(answer); match != nil {
		saw = string(match[1])
	}
	return status, saw
}

func testReplacePrefix(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		one("strip", echo(t), meta("lb-protocol", "http", "lb-path", "/api,/v2/api", "lb-path-replace-prefix", "/",
			"lb-paths", `{"/api/slow": {"timeout.read": "1h"}, "/api/own": {"path.replace-prefix": "/other"}, "=/api/one": {"path.replace-prefix": "/1"}, "/api/keep": {"path.replace-prefix": "default"}}`)),
		one("replace", echo(t), meta("lb-protocol", "http", "lb-path", "/old", "lb-path-replace-prefix", "/new/er")),
		one("root", echo(t), tags("http_server"), meta("lb-path-replace-prefix", "/root")),
		one("writes", echo(t), meta("lb-protocol", "http", "lb-path", "/w", "lb-header", "x-v=2", "lb-path-replace-prefix", "/")),
		one("nobody", 1, meta("lb-protocol", "http", "lb-path", "/nobody", "lb-path-replace-prefix", "/"), status("maintenance")),
	)
	for _, c := range []struct{ target, want string }{
		{"/api", "/"},
		{"/api/", "/"},
		{"/api?a=/api/", "/?a=/api/"},
		{"/api/x/y?z", "/x/y?z"},
		{"/api/a%2Fb%2fc/%7e?q=%2F#x", "/a%2Fb%2fc/%7e?q=%2F#x"},
		{"/api//x//y/", "//x//y/"},
		{"/api/x?y=/../z", "/x?y=/../z"},
		{"/api/..x/.y/...", "/..x/.y/..."},
		{"/v2/api/x", "/x"},
		{"/api/slow/x", "/slow/x"}, // the field is said for the service
		{"/api/own", "/other"},
		{"/api/own/", "/other/"},
		{"/api/own/x?y", "/other/x?y"},
		{"/api/one?x", "/1?x"},
		{"/api/one/x", "/one/x"},
		{"/api/keep/x", "/api/keep/x"},
		{"/old", "/new/er"},
		{"/old/", "/new/er/"},
		{"/old/x%20y", "/new/er/x%20y"},
		{"/older", "/root/older"},
		{"/", "/root/"},
		{"http://" + b.http + "/api/x?y", "/x?y"},
	} {
		status, saw := target(t, b, b.http, c.target)
		assert.Equal(t, http.StatusOK, status, c.target)
		assert.Equal(t, c.want, saw, c.target)
	}
	for _, refused := range []string{
		"/%61pi/x", "//api/x", "/x/../api/y", "/api/../api/x", "/api/./x", "/api/x/..", "/api/x/%2e%2E/y", "/api/x%2f../y", "/api/x%2F..%2Fy", "/ap%69",
	} {
		status, saw := target(t, b, b.http, refused)
		assert.Equal(t, http.StatusBadRequest, status, "%s: %s", refused, saw)
	}
	_, body := get(t, http.DefaultClient, "http://"+b.http+"/api/x", with("X-Forwarded-Prefix", "/client"))
	assert.Equal(t, []string{"/api"}, sent(body, "X-Forwarded-Prefix"))
	checkPassed(t, b, body)
	_, body = get(t, http.DefaultClient, "http://"+b.http+"/w/x", with("X-V", "2"))
	assert.True(t, strings.HasPrefix(body, "GET /x\n"), "a route by a header: %s", body)
	response, _ := get(t, http.DefaultClient, "http://"+b.http+"/nobody/x")
	assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)

	// Bodies, connections to instances and errors are as ever.
	response, err := http.Post("http://"+b.http+"/api/x", "text/plain", strings.NewReader("body"))
	require.NoError(t, err)
	response.Body.Close()
	assert.Equal(t, http.StatusOK, response.StatusCode)
	refused := startBalancer(t, binary, nil, one("refusing", refusing(t), tags("http_server"), meta("lb-path-replace-prefix", "/x")))
	response, text := get(t, http.DefaultClient, "http://"+refused.http+"/")
	assert.Equal(t, http.StatusBadGateway, response.StatusCode)
	assert.Equal(t, "no instance of refusing could be reached, or it failed\n", text)
}

// testRedirect returns a test of a field that redirects. wants has the targets of requests for
// "http://BALANCER/TARGET", in which HOST is the balancer's address; "" is no redirect.
func testRedirect(values []string, wants map[string]string) func(*testing.T, nginxtest.Binary) {
	return func(t *testing.T, binary nginxtest.Binary) {
		pairs := append([]string{"lb-protocol", "http", "lb-path", "/api"}, values...)
		b := startBalancer(t, binary, nil,
			one("api", echo(t), meta(pairs...)),
			one("plain", echo(t), tags("http_server")),
			one("nobody", 1, meta(append([]string{"lb-host", "nobody.test"}, pairs...)...), status("maintenance")),
		)
		for from, want := range wants {
			host := b.http
			if name, path, ok := strings.Cut(from, "/"); ok && name != "" {
				host, from = name, "/"+path
			}
			status, got := target(t, b, host, from)
			if want == "" {
				assert.Equal(t, http.StatusOK, status, from)
				assert.Equal(t, from, got)
				continue
			}
			if want == "400" {
				assert.Equal(t, http.StatusBadRequest, status, from)
				continue
			}
			assert.Equal(t, http.StatusTemporaryRedirect, status, from)
			assert.Equal(t, strings.ReplaceAll(want, "HOST", host), got, from)
		}
		status, got := target(t, b, b.http, "/other")
		assert.Equal(t, http.StatusOK, status, "another service: %s", got)
		status, _ = target(t, b, "nobody.test", "/api/x")
		assert.Equal(t, http.StatusTemporaryRedirect, status, "it needs no instance")
	}
}

// A client follows redirects: each must lead to an answer.
func TestRedirectsEnd(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startBalancer(t, binary, nil,
			one("web", echo(t), tags("http_server"), meta("lb-redirect-replace-prefix", "/v2", "lb-paths", `{"/v2/slow": {"timeout.read": "1h"}}`)),
			one("api", echo(t), meta("lb-protocol", "http", "lb-path", "/api,/api/v2/own", "lb-redirect-replace-prefix", "/api/v2")),
			one("moved", echo(t), meta("lb-protocol", "http", "lb-path", "/moved", "lb-redirect-replace-prefix", "/moved/to", "lb-redirect-host", "new.test")),
		)
		for from, want := range map[string]string{
			"/": "/v2/", "/a?b": "/v2/a?b", "/v2": "/v2", "/v2/": "/v2/", "/v2?x": "/v2?x", "/v2/a": "/v2/a", "/v22": "/v2/v22", "/v2/slow/x": "/v2/slow/x",
			"/api": "/api/v2", "/api/x": "/api/v2/x", "/api/v2/x": "/api/v2/x", "/api/v2/own/x": "/api/v2/x",
		} {
			_, body := get(t, http.DefaultClient, "http://"+b.http+from)
			first, _, _ := strings.Cut(body, "\n")
			assert.Equal(t, "GET "+want, first, from)
		}
		for from, want := range map[string]string{"/moved/x": "/moved/to/x", "/moved/to/x": "/moved/to/x"} {
			status, location := target(t, b, b.http, from)
			assert.Equal(t, http.StatusTemporaryRedirect, status)
			assert.Equal(t, "http://new.test"+want, location, "another host, and the path has the prefix already")
			status, _ = target(t, b, "new.test", want)
			assert.Equal(t, http.StatusOK, status)
		}
	})
}

func testRedirectCode(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		one("web", echo(t), tags("http_server"), meta("lb-redirect-code", "308", "lb-paths", `{"/old": {"redirect.path": "/new"}, "/older": {"redirect.path": "/new", "redirect.code": "301"}}`)),
	)
	for path, want := range map[string]int{"/old/x": 308, "/older": 301, "/new": 200} {
		status, _ := target(t, b, b.http, path)
		assert.Equal(t, want, status, path)
	}
}
