package render

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/nginxtest"
	"lbctl/internal/policy"
	"lbctl/protos"
)

// fieldTests has a test on real traffic for each field of the policy.
var fieldTests = map[string]func(t *testing.T, binary nginxtest.Binary){
	"check":                        testedIn("internal/probe and test/integration/probe_test.go"),
	"min-instances":                testedIn("internal/endpoints/guard_minimum_test.go"),
	"health.report":                testedIn("test/integration/health_test.go"),
	"endpoints":                    testedIn("test/integration/delivery_test.go"),
	"outlier.consecutive-errors":   testedIn("test/integration/outlier_test.go"),
	"outlier.error-rate":           testedIn("test/integration/outlier_test.go"),
	"outlier.min-requests":         testedIn("test/integration/outlier_test.go"),
	"outlier.interval":             testedIn("test/integration/outlier_test.go"),
	"outlier.base-ejection-time":   testedIn("test/integration/outlier_test.go"),
	"outlier.max-ejection-time":    testedIn("test/integration/outlier_test.go"),
	"outlier.max-ejection-percent": testedIn("test/integration/outlier_test.go"),
	"timeout.connect":              testConnectTimeout,
	"timeout.read":                 testReadTimeout,
	"timeout.send":                 testSendTimeout,

	"headers.request.set":     testSetRequestHeaders,
	"headers.request.add":     testAddRequestHeaders,
	"headers.request.remove":  testRemoveRequestHeaders,
	"headers.response.set":    testSetResponseHeaders,
	"headers.response.add":    testAddResponseHeaders,
	"headers.response.remove": testRemoveResponseHeaders,
	"headers.security":        testSecurityHeaders,

	"compression.gzip":       testGzip,
	"compression.types":      testCompressionTypes,
	"compression.min-length": testCompressionMinLength,

	"cors.allow-origins":     testAllowOrigins,
	"cors.allow-methods":     testCORS("lb-cors-allow-methods", "PUT,DELETE", "Access-Control-Allow-Methods", "PUT, DELETE", true, false),
	"cors.allow-headers":     testCORS("lb-cors-allow-headers", "X-A,X-B", "Access-Control-Allow-Headers", "X-A, X-B", true, false),
	"cors.expose-headers":    testCORS("lb-cors-expose-headers", "X-A,X-B", "Access-Control-Expose-Headers", "X-A, X-B", false, true),
	"cors.allow-credentials": testAllowCredentials,
	"cors.max-age":           testCORS("lb-cors-max-age", "10m", "Access-Control-Max-Age", "600", true, false),

	"redirect.code": testRedirectCode,
	"redirect.scheme": testRedirect([]string{"lb-redirect-scheme", "https"}, map[string]string{
		"/api": "https://HOST/api", "/api/a%2Fb//c?d=e": "https://HOST/api/a%2Fb//c?d=e", "example.com/api": "https://example.com/api",
	}),
	"redirect.host": testRedirect([]string{"lb-redirect-host", "www.example.com:8080"}, map[string]string{
		"/api/x?y": "http://www.example.com:8080/api/x?y", "www.example.com:8080/api/x": "", "www.example.com/api": "http://www.example.com:8080/api",
	}),
	"redirect.path": testRedirect([]string{"lb-redirect-path", "/api/new/"}, map[string]string{
		"/api": "http://HOST/api/new/", "/api/x?y=z": "http://HOST/api/new/?y=z", "/api/new/": "", "/api/new/?x": "",
	}),
	"redirect.replace-prefix": testRedirect([]string{"lb-redirect-replace-prefix", "/v2", "lb-paths", `{"/api/root": {"redirect.replace-prefix": "/"}, "/api/below": {"redirect.replace-prefix": "/api/below/v2"}}`}, map[string]string{
		"/api": "http://HOST/v2", "/api?x": "http://HOST/v2?x", "/api/a%2Fb//c?d": "http://HOST/v2/a%2Fb//c?d",
		"/api/root": "http://HOST/", "/api/root//evil.test/": "http://HOST//evil.test/", "/%61pi/x": "400",
		"/api/below": "http://HOST/api/below/v2", "/api/below/x?y": "http://HOST/api/below/v2/x?y", "/api/below/v2": "", "/api/below/v2?x": "", "/api/below/v2/x": "",
		"/api/below/v22/x": "http://HOST/api/below/v2/v22/x", "/api/below/x/v2": "http://HOST/api/below/v2/x/v2",
	}),
	"mirror.service": testMirror,
	"mirror.percent": testMirrorPercent,

	"tls.verify":          testVerify,
	"tls.server-name":     testVerify,
	"tls.ca":              testVerify,
	"tls.certificate":     testInstancesWantCertificate,
	"tls.certificate-key": testInstancesWantCertificate,

	"maintenance.enabled":     testMaintenance,
	"maintenance.retry-after": testMaintenanceRetryAfter,
	"maintenance.message":     testMaintenanceMessage,
	"maintenance.body":        testMaintenanceBody,

	"path.replace-prefix": testReplacePrefix,
}

// testedIn is for fields whose test is elsewhere.
func testedIn(string) func(*testing.T, nginxtest.Binary) {
	return func(*testing.T, nginxtest.Binary) {}
}

func TestEveryFieldOfThePolicyOnRealTraffic(t *testing.T) {
	for _, f := range policy.Fields() {
		test := fieldTests[f.Name]
		if test == nil {
			t.Errorf("%s: want a test in fieldTests", f.Name)
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) { test(t, binary) })
		})
	}
}

// bounded checks that f takes less than a time that is far below the defaults.
func bounded(t *testing.T, f func()) {
	t.Helper()
	began := time.Now()
	f()
	assert.Less(t, time.Since(began), 20*time.Second)
}

func testConnectTimeout(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		registration("slow", "slow-1", "127.0.0.1", silent(t), tags("http_server"), meta("lb-timeout-connect", "1500ms")),
		registration("fast", "fast-1", "127.0.0.1", silent(t), meta("lb-protocol", "http", "lb-path", "/fast", "lb-timeout-connect", "20ms")),
	)
	took := func(path string) time.Duration {
		began := time.Now()
		response, _ := get(t, http.DefaultClient, "http://"+b.http+path)
		assert.Equal(t, http.StatusGatewayTimeout, response.StatusCode)
		return time.Since(began)
	}
	assert.GreaterOrEqual(t, took("/"), 1400*time.Millisecond)
	assert.GreaterOrEqual(t, took("/fast"), 20*time.Millisecond)
	assert.Less(t, took("/fast"), 1400*time.Millisecond)
}

func testReadTimeout(t *testing.T, binary nginxtest.Binary) {
	paths := `{"/protos.Ping/Slow": {"timeout.read": "1h"}}`
	b := startBalancer(t, binary, nil,
		registration("slow", "slow-1", "127.0.0.1", mute(t), tags("grpc_server"), meta("lb-timeout-read", "200ms", "lb-paths", paths)),
		registration("web", "web-1", "127.0.0.1", mute(t), tags("http_server"), meta("lb-paths", `{"/quick": {"timeout.read": "200ms"}}`)),
	)
	conn := b.dial(t, "localhost")
	bounded(t, func() {
		_, err := call(t, conn, "/protos.Ping/SayHello")
		assert.Equal(t, codes.DeadlineExceeded, grpcstatus.Code(err), "%v", err)
		assert.Equal(t, "lbctl: the instance of slow did not answer in time", grpcstatus.Convert(err).Message())
		response, body := get(t, http.DefaultClient, "http://"+b.http+"/quick/x")
		assert.Equal(t, http.StatusGatewayTimeout, response.StatusCode)
		assert.Equal(t, "the instance of web did not answer in time\n", body)
	})
	// The other method and path still have the long times: nginx does not answer.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := conn.Invoke(ctx, "/protos.Ping/Slow", &protos.PingMessage{}, &protos.PingMessage{})
	assert.Equal(t, "context deadline exceeded", grpcstatus.Convert(err).Message(), "the client's own deadline, not nginx's")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.http+"/", nil)
	assert.NoError(t, err)
	_, err = http.DefaultClient.Do(request)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

func testSendTimeout(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		registration("web", "web-1", "127.0.0.1", mute(t), tags("http_server"), meta("lb-paths", `{"/quick": {"timeout.send": "200ms"}}`)),
	)
	body := strings.Repeat("x", 64<<20) // more than the kernel buffers
	bounded(t, func() {
		response, err := http.Post("http://"+b.http+"/quick", "text/plain", strings.NewReader(body))
		if assert.NoError(t, err) {
			assert.Equal(t, http.StatusGatewayTimeout, response.StatusCode)
			response.Body.Close()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.http+"/", strings.NewReader(body))
	assert.NoError(t, err)
	_, err = http.DefaultClient.Do(request)
	assert.ErrorIs(t, err, context.DeadlineExceeded, "the other path has the long time")
}
