package render

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/nginxtest"
)

// preflight sends a preflight request and returns the answer's headers. It checks that nginx
// answers.
func preflight(t *testing.T, b balancer, path, origin string) http.Header {
	t.Helper()
	response, body := get(t, http.DefaultClient, "http://"+b.http+path, with("Origin", origin, "Access-Control-Request-Method", "PUT"),
		func(r *http.Request) { r.Method = http.MethodOptions })
	assert.Equal(t, http.StatusNoContent, response.StatusCode, body)
	return response.Header
}

func testAllowOrigins(t *testing.T, binary nginxtest.Binary) {
	const allow = "Access-Control-Allow-Origin"
	b := startBalancer(t, binary, nil,
		one("web", echo(t), tags("http_server"), meta(
			"lb-cors-allow-origins", "https://shop.example.com, http://localhost:3000",
			"lb-paths", `{"/any": {"cors.allow-origins": "*"}}`)),
		one("other", echo(t), meta("lb-protocol", "http", "lb-path", "/other", "lb-cors-allow-origins", "https://other.example.com")),
		one("plain", echo(t), meta("lb-protocol", "http", "lb-path", "/plain")),
		one("nobody", refusing(t), meta("lb-protocol", "http", "lb-path", "/nobody", "lb-cors-allow-origins", "https://shop.example.com")),
	)
	own := "?" + allow + "=https://instance.example.com"
	for _, c := range []struct {
		name, path, origin string
		want               []string
	}{
		{"an allowed origin", "/", "https://shop.example.com", []string{"https://shop.example.com"}},
		{"another one, with a port", "/x/y", "http://localhost:3000", []string{"http://localhost:3000"}},
		{"another scheme", "/", "http://shop.example.com", nil},
		{"more than an allowed origin", "/", "https://shop.example.com.evil.test", nil},
		{"less than an allowed origin", "/", "http://localhost:300", nil},
		{"no origin", "/", "null", nil},
		{"the origin of another service", "/", "https://other.example.com", nil},
		{"the other service", "/other", "https://other.example.com", []string{"https://other.example.com"}},
		{"a path that allows all", "/any", "https://whoever.test", []string{"*"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			response, body := get(t, http.DefaultClient, "http://"+b.http+c.path+own, with("Origin", c.origin))
			assert.Equal(t, http.StatusOK, response.StatusCode)
			assert.Equal(t, []string{c.origin}, sent(body, "Origin"), "the instance answers")
			assert.Equal(t, c.want, response.Header[allow], "not what the instance says")
			header := preflight(t, b, c.path, c.origin)
			assert.Equal(t, c.want, header[allow])
			if c.path != "/any" {
				assert.Equal(t, []string{"Origin"}, response.Header["Vary"])
				assert.Equal(t, []string{"Origin"}, header["Vary"])
			}
		})
	}
	response, _ := get(t, http.DefaultClient, "http://"+b.http+"/")
	assert.Empty(t, response.Header[allow], "a request without Origin")
	for _, headers := range [][]string{{"Origin", "https://shop.example.com"}, {"Access-Control-Request-Method", "PUT"}, nil} {
		_, body := get(t, http.DefaultClient, "http://"+b.http+"/", with(headers...), func(r *http.Request) { r.Method = http.MethodOptions })
		assert.Contains(t, body, "OPTIONS /\n", "no preflight: the instance answers")
	}
	response, body := get(t, http.DefaultClient, "http://"+b.http+"/plain"+own, with("Origin", "https://shop.example.com", "Access-Control-Request-Method", "PUT"),
		func(r *http.Request) { r.Method = http.MethodOptions })
	assert.Contains(t, body, "OPTIONS /plain", "without cors the instance answers")
	assert.Equal(t, []string{"https://instance.example.com"}, response.Header[allow])
	response, _ = get(t, http.DefaultClient, "http://"+b.http+"/nobody", with("Origin", "https://shop.example.com"))
	assert.Equal(t, http.StatusBadGateway, response.StatusCode)
	assert.Equal(t, []string{"https://shop.example.com"}, response.Header[allow], "a page can read nginx's own errors")
	response, _ = get(t, http.DefaultClient, "http://"+b.http+"/nobody", with("Origin", "https://other.example.com"))
	assert.Empty(t, response.Header[allow])
}

// testCORS returns a test of a field whose value is in a header of preflight answers, or of all
// others.
func testCORS(key, value, header, want string, inPreflight, inOthers bool) func(*testing.T, nginxtest.Binary) {
	return func(t *testing.T, binary nginxtest.Binary) {
		const origin = "https://shop.example.com"
		b := startBalancer(t, binary, nil,
			one("web", echo(t), tags("http_server"), meta("lb-cors-allow-origins", origin, key, value)),
			one("without", echo(t), meta("lb-protocol", "http", "lb-path", "/without", "lb-cors-allow-origins", origin)),
		)
		check := func(in bool, headers func(path string) http.Header) {
			if in {
				assert.Equal(t, []string{want}, headers("/")[header])
			} else {
				assert.Empty(t, headers("/")[header])
			}
			assert.Empty(t, headers("/without")[header])
		}
		check(inPreflight, func(path string) http.Header { return preflight(t, b, path, origin) })
		check(inOthers, func(path string) http.Header {
			response, _ := get(t, http.DefaultClient, "http://"+b.http+path+"?"+header+"=instance", with("Origin", origin))
			return response.Header
		})
	}
}

func testAllowCredentials(t *testing.T, binary nginxtest.Binary) {
	const credentials = "Access-Control-Allow-Credentials"
	testCORS("lb-cors-allow-credentials", "on", credentials, "true", true, true)(t, binary)
	any := one("web", echo(t), tags("http_server"), meta("lb-cors-allow-origins", "*", "lb-cors-allow-credentials", "on"))
	b := startBalancer(t, binary, nil, any)
	assert.Empty(t, preflight(t, b, "/", "https://evil.test")[credentials], "never for all origins")
	c, err := offline(Options{Settings: testSettings(binary.Version)}, parseAll(any), testNames())
	assert.NoError(t, err)
	if assert.Len(t, c.Problems, 1) {
		assert.Equal(t, `metadata: cors.allow-credentials on: it has no effect with cors.allow-origins ["*"], want the origins by name`, c.Problems[0].Message)
	}
}
