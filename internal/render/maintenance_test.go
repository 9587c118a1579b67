package render

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/access"
	"lbctl/internal/nginxtest"
)

// refusedCall calls a method in maintenance and returns the message.
func refusedCall(t *testing.T, b balancer, method string, options ...grpc.CallOption) string {
	t.Helper()
	_, err := call(t, b.dial(t, "localhost"), method, options...)
	require.Equal(t, codes.Unavailable, grpcstatus.Code(err), "%v", err)
	return grpcstatus.Convert(err).Message()
}

func testMaintenance(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), meta("lb-paths", `{"/shop": {"maintenance.enabled": "on"}}`)),
		one("calls", grpcServer(t, "calls"), tags("grpc_server"), meta("lb-paths", `{"/shop.Cart": {"maintenance.enabled": true}}`)),
		one("nobody", 1, meta("lb-protocol", "http", "lb-path", "/nobody", "lb-maintenance-enabled", "on"), status("maintenance")),
	)
	for _, method := range []string{"GET", "POST", "HEAD", "DELETE"} {
		response, body := get(t, http.DefaultClient, "http://"+b.http+"/shop/x", func(r *http.Request) { r.Method = method })
		assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode, method)
		assert.Empty(t, response.Header["Retry-After"])
		if method != "HEAD" {
			assert.Equal(t, "web is in maintenance\n", body)
		}
	}
	_, body := get(t, http.DefaultClient, "http://"+b.http+"/other")
	assert.Equal(t, "web GET /other 0", body)
	_, body = get(t, http.DefaultClient, "http://"+b.http+"/nobody")
	assert.Equal(t, "nobody is in maintenance\n", body)
	assert.Equal(t, "lbctl: calls is in maintenance", refusedCall(t, b, "/shop.Cart/Add"))
	name, err := call(t, b.dial(t, "localhost"), "/shop.Stock/Count")
	require.NoError(t, err)
	assert.Equal(t, "calls", name)
}

func testMaintenanceRetryAfter(t *testing.T, binary nginxtest.Binary) {
	values := meta("lb-maintenance-enabled", "on", "lb-maintenance-retry-after", "10m", "lb-paths", `{"/page": {"maintenance.body": "<p>"}}`)
	b := startBalancer(t, binary, nil,
		one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), values),
		one("calls", grpcServer(t, "calls"), tags("grpc_server"), meta("lb-maintenance-enabled", "on", "lb-maintenance-retry-after", "10m")),
	)
	for _, path := range []string{"/", "/page"} {
		response, _ := get(t, http.DefaultClient, "http://"+b.http+path)
		assert.Equal(t, []string{"600"}, response.Header["Retry-After"], path)
	}
	var header grpcmetadata.MD
	refusedCall(t, b, "/any.Service/Method", grpc.Trailer(&header))
	assert.Equal(t, []string{"600"}, header.Get("retry-after"))
}

func testMaintenanceMessage(t *testing.T, binary nginxtest.Binary) {
	const message = `50% "done"; back\ at noon`
	b := startBalancer(t, binary, nil,
		one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), meta("lb-maintenance-enabled", "on", "lb-maintenance-message", message)),
		one("calls", grpcServer(t, "calls"), tags("grpc_server"), meta("lb-maintenance-enabled", "on", "lb-maintenance-message", message)),
	)
	response, body := get(t, http.DefaultClient, "http://"+b.http+"/")
	assert.Equal(t, message+"\n", body)
	assert.Equal(t, []string{"text/plain"}, response.Header["Content-Type"])
	assert.Equal(t, "lbctl: "+message, refusedCall(t, b, "/any.Service/Method"))
}

func testMaintenanceBody(t *testing.T, binary nginxtest.Binary) {
	page := "<!doctype html>\n<h1>Zurück um 12 $host ${x} \"}\\ {{.}}</h1>\n" + strings.Repeat("<p>long</p>\n", 5000) + "<p>end"
	b := startBalancer(t, binary, nil,
		one("web", httpServer(t, "web", httptest.NewServer), tags("http_server"), meta(
			"lb-maintenance-enabled", "on", "lb-maintenance-body", page, "lb-paths", `{"/other": {"maintenance.body": "<b>other"}, "/text": {"maintenance.body": "default"}}`)),
	)
	for path, want := range map[string]string{"/": page, "/x/y": page, "/other/x": "<b>other"} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			response, body := get(t, http.DefaultClient, "http://"+b.http+path, with("If-None-Match", "*", "Range", "bytes=0-1"), func(r *http.Request) { r.Method = method })
			assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode, "%s %s", method, path)
			assert.Equal(t, []string{"text/html; charset=utf-8"}, response.Header["Content-Type"])
			assert.Empty(t, response.Header["Last-Modified"])
			assert.Equal(t, want, body)
		}
	}
	response, body := get(t, http.DefaultClient, "http://"+b.http+"/text")
	assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	assert.Equal(t, "web is in maintenance\n", body)
}

// TestAPageOfMaintenanceHidesNoOtherPage has a service with a page of its own, of which nginx
// refuses a request for another reason.
func TestAPageOfMaintenanceHidesNoOtherPage(t *testing.T) {
	keeper := keeperOf(t, access.Deny(nil, networks("127.0.0.1"), access.Write{Service: "web"}))
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		page := meta("lb-maintenance-enabled", "on", "lb-maintenance-body", "<p>soon")
		b := startBalancerOf(t, binary, func(opts *Options) { opts.Access = keeper }, nil,
			registration("web", "web-1", "127.0.0.1", 1, tags("http_server"), page),
			registration("shop", "shop-1", "127.0.0.1", 1, meta("lb-protocol", "http", "lb-path", "/shop"), page),
		)
		response, body := get(t, http.DefaultClient, "http://"+b.http+"/")
		assert.Equal(t, http.StatusForbidden, response.StatusCode)
		assert.Equal(t, "not allowed\n", body)
		response, body = get(t, http.DefaultClient, "http://"+b.http+"/shop")
		assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
		assert.Equal(t, "<p>soon", body)
	})
}
