package render

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	grpcmetadata "google.golang.org/grpc/metadata"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/consultest"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/internal/policy"
)

// echo answers with the headers of the request as "Name: value" lines, and with the headers that
// the query asks for: "?X-Own=1".
func echo(t *testing.T) int {
	return handler(t, func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.URL.Query() {
			w.Header()[name] = values
		}
		fmt.Fprintf(w, "%s %s\nHost: %s\n", r.Method, r.RequestURI, r.Host)
		r.Header.Write(w)
	})
}

// grpcEcho is a gRPC server that keeps the metadata of the last call in got, and sends more.
func grpcEcho(t *testing.T, got *grpcmetadata.MD, more ...string) int {
	return grpcServer(t, "echo", grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		*got, _ = grpcmetadata.FromIncomingContext(stream.Context())
		if err := stream.SetHeader(grpcmetadata.Pairs(more...)); err != nil {
			return err
		}
		return next(srv, stream)
	}))
}

// sent returns the values of a header that an instance of echo got.
func sent(body, name string) []string {
	var values []string
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

func with(headers ...string) func(*http.Request) {
	return func(r *http.Request) {
		for n := 0; n < len(headers); n += 2 {
			r.Header.Add(headers[n], headers[n+1])
		}
	}
}

// checkPassed checks that an instance got the headers that lbctl always sends.
func checkPassed(t *testing.T, b balancer, body string) {
	t.Helper()
	assert.Equal(t, []string{b.http}, sent(body, "Host"))
	assert.Equal(t, []string{"127.0.0.1"}, sent(body, "X-Forwarded-For"))
	assert.Equal(t, []string{"127.0.0.1"}, sent(body, "X-Real-Ip"))
	assert.Equal(t, []string{"http"}, sent(body, "X-Forwarded-Proto"))
	assert.Equal(t, []string{b.http}, sent(body, "X-Forwarded-Host"))
}

func testSetRequestHeaders(t *testing.T, binary nginxtest.Binary) {
	var got grpcmetadata.MD
	b := startBalancer(t, binary, nil,
		one("web", echo(t), tags("http_server"), meta(
			"lb-headers-request-set", `{"x-team": "shop; \"a\\b\" 'c' {D}", "X-Who": "{service} {remote-address} {scheme}://{host} {request-id}"}`,
			"lb-paths", `{"/api": {"headers.request.set": {"X-Team": "api"}}}`)),
		one("calls", grpcEcho(t, &got), tags("grpc_server"), meta("lb-headers-request-set", "X-Team=calls, With_Underscore=set")),
	)
	_, body := get(t, http.DefaultClient, "http://"+b.http+"/x?y=z", with("X-Team", "mine", "X-Team", "yours", "X-Other", "kept"))
	assert.Equal(t, []string{`shop; "a\b" 'c' {D}`}, sent(body, "X-Team"))
	require.Len(t, sent(body, "X-Who"), 1)
	assert.Regexp(t, `^web 127\.0\.0\.1 http://`+b.http+` [0-9a-f]{32}$`, sent(body, "X-Who")[0])
	assert.Equal(t, []string{"kept"}, sent(body, "X-Other"))
	checkPassed(t, b, body)
	_, body = get(t, http.DefaultClient, "http://"+b.http+"/api/x")
	assert.Equal(t, []string{"api"}, sent(body, "X-Team"))
	assert.Len(t, sent(body, "X-Who"), 1, "each name counts by itself")
	checkPassed(t, b, body)

	_, err := call(t, b.dial(t, "some.host:5000"), "/any.Service/Method")
	require.NoError(t, err)
	assert.Equal(t, []string{"calls"}, got.Get("x-team"))
	assert.Equal(t, []string{"set"}, got.Get("with_underscore"), "not what the client sends")
	assert.Equal(t, []string{"2"}, got.Get("with.dot"))
	assert.Equal(t, []string{"some.host:5000"}, got.Get(":authority"))
	assert.Equal(t, []string{"127.0.0.1"}, got.Get("x-forwarded-for"))
}

func testAddRequestHeaders(t *testing.T, binary nginxtest.Binary) {
	var got grpcmetadata.MD
	b := startBalancer(t, binary, nil,
		one("web", echo(t), tags("http_server"), meta("lb-headers-request-add", "X-Path=lb, X-Set=added", "lb-headers-request-set", "X-Set=set")),
		one("calls", grpcEcho(t, &got), tags("grpc_server"), meta("lb-headers-request-add", "With_underscore=lb")),
	)
	_, body := get(t, http.DefaultClient, "http://"+b.http+"/", with("X-Path", "client", "X-Set", "client"))
	assert.Equal(t, []string{"client", "lb"}, sent(body, "X-Path"))
	assert.Equal(t, []string{"set", "added"}, sent(body, "X-Set"))
	checkPassed(t, b, body)
	_, body = get(t, http.DefaultClient, "http://"+b.http+"/")
	assert.Equal(t, []string{"lb"}, sent(body, "X-Path"))
	_, err := call(t, b.dial(t, "localhost"), "/any.Service/Method")
	require.NoError(t, err)
	assert.Equal(t, []string{"1", "lb"}, got.Get("with_underscore"))
}

func testRemoveRequestHeaders(t *testing.T, binary nginxtest.Binary) {
	var got grpcmetadata.MD
	b := startBalancer(t, binary, nil,
		one("web", echo(t), tags("http_server"), meta("lb-headers-request-remove", "x-debug, X-New", "lb-headers-request-add", "X-New=lb")),
		one("calls", grpcEcho(t, &got), tags("grpc_server"), meta("lb-headers-request-remove", "with_underscore")),
	)
	_, body := get(t, http.DefaultClient, "http://"+b.http+"/", with("X-Debug", "1", "X-New", "client", "X-Other", "kept"))
	assert.Empty(t, sent(body, "X-Debug"))
	assert.Equal(t, []string{"lb"}, sent(body, "X-New"))
	assert.Equal(t, []string{"kept"}, sent(body, "X-Other"))
	checkPassed(t, b, body)
	_, err := call(t, b.dial(t, "localhost"), "/any.Service/Method")
	require.NoError(t, err)
	assert.Empty(t, got.Get("with_underscore"))
	assert.Equal(t, []string{"2"}, got.Get("with.dot"))
}

func testSetResponseHeaders(t *testing.T, binary nginxtest.Binary) {
	var got, header grpcmetadata.MD
	b := startBalancer(t, binary, nil,
		one("web", echo(t), tags("http_server"), meta("lb-headers-response-set", "Cache-Control=no-store, X-Host={host}")),
		one("calls", grpcEcho(t, &got, "x-version", "of the instance"), tags("grpc_server"), meta("lb-headers-response-set", "X-Version=2")),
	)
	response, _ := get(t, http.DefaultClient, "http://"+b.http+"/?Cache-Control=max-age%3D60&X-Own=1")
	assert.Equal(t, []string{"no-store"}, response.Header["Cache-Control"])
	assert.Equal(t, []string{b.http}, response.Header["X-Host"])
	assert.Equal(t, []string{"1"}, response.Header["X-Own"])
	_, err := call(t, b.dial(t, "localhost"), "/any.Service/Method", grpc.Header(&header))
	require.NoError(t, err)
	assert.Equal(t, []string{"2"}, header.Get("x-version"))
	assert.Equal(t, []string{"localhost"}, header.Get("seen-authority"))
}

func testAddResponseHeaders(t *testing.T, binary nginxtest.Binary) {
	var got, header grpcmetadata.MD
	failing := handler(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
	b := startBalancer(t, binary, nil,
		one("web", echo(t), tags("http_server"), meta("lb-headers-response-add", "X-Served-By={service}, Set-Cookie=lb=1; Path=/")),
		one("failing", failing, meta("lb-protocol", "http", "lb-path", "/failing", "lb-headers-response-add", "X-Served-By={service}")),
		one("calls", grpcEcho(t, &got, "x-version", "of the instance"), tags("grpc_server"), meta("lb-headers-response-add", "X-Version=2")),
	)
	response, _ := get(t, http.DefaultClient, "http://"+b.http+"/?X-Served-By=instance&Set-Cookie=own%3D1")
	assert.ElementsMatch(t, []string{"instance", "web"}, response.Header["X-Served-By"])
	assert.ElementsMatch(t, []string{"own=1", "lb=1; Path=/"}, response.Header["Set-Cookie"])
	response, _ = get(t, http.DefaultClient, "http://"+b.http+"/failing")
	assert.Equal(t, http.StatusTeapot, response.StatusCode)
	assert.Equal(t, []string{"failing"}, response.Header["X-Served-By"], "whatever the status")
	_, err := call(t, b.dial(t, "localhost"), "/any.Service/Method", grpc.Header(&header))
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"of the instance", "2"}, header.Get("x-version"))
}

func testRemoveResponseHeaders(t *testing.T, binary nginxtest.Binary) {
	var got, header grpcmetadata.MD
	b := startBalancer(t, binary, nil,
		one("web", echo(t), tags("http_server"), meta("lb-headers-response-remove", "X-Powered-By, X-New", "lb-headers-response-add", "X-New=lb")),
		one("calls", grpcEcho(t, &got, "x-version", "of the instance"), tags("grpc_server"), meta("lb-headers-response-remove", "X-Version")),
	)
	response, _ := get(t, http.DefaultClient, "http://"+b.http+"/?X-Powered-By=instance&X-New=instance&X-Own=1")
	assert.Empty(t, response.Header["X-Powered-By"])
	assert.Equal(t, []string{"lb"}, response.Header["X-New"])
	assert.Equal(t, []string{"1"}, response.Header["X-Own"])
	_, err := call(t, b.dial(t, "localhost"), "/any.Service/Method", grpc.Header(&header))
	require.NoError(t, err)
	assert.Empty(t, header.Get("x-version"))
	assert.Equal(t, []string{"localhost"}, header.Get("seen-authority"))
}

func testSecurityHeaders(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		one("web", echo(t), tags("http_server"), meta("lb-headers-security", "on", "lb-headers-response-set", "Referrer-Policy=no-referrer")),
		one("plain", echo(t), meta("lb-protocol", "http", "lb-path", "/plain")),
	)
	response, _ := get(t, http.DefaultClient, "http://"+b.http+"/?X-Frame-Options=DENY")
	assert.Equal(t, []string{"nosniff"}, response.Header["X-Content-Type-Options"])
	assert.Equal(t, []string{"DENY"}, response.Header["X-Frame-Options"], "an instance knows better")
	assert.Equal(t, []string{"no-referrer"}, response.Header["Referrer-Policy"], "and so does the policy")
	assert.Equal(t, []string{"frame-ancestors 'self'"}, response.Header["Content-Security-Policy"])
	response, _ = get(t, http.DefaultClient, "http://"+b.http+"/plain")
	for _, h := range securityHeaders {
		assert.Empty(t, response.Header[h.Name])
	}
}

func TestQuoteHeader(t *testing.T) {
	for value, want := range map[string]string{
		"plain":               "plain",
		"{host}":              `"${lb_host}"`,
		`a "{service}" \ {x}`: `"a \"${lb_service}\" \\ {x}"`,
	} {
		got, err := quoteHeader(value)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, value := range []string{"$host", "a\nb"} {
		_, err := quoteHeader(value)
		assert.Error(t, err)
	}
	for _, placeholder := range policy.HeaderPlaceholders {
		word, err := quoteHeader(placeholder)
		require.NoError(t, err)
		assert.Contains(t, word, "$")
		_, err = nginx.Quote(placeholder)
		assert.NoError(t, err)
	}
}

// nginx's tables have room for many headers, and for long ones.
func TestManyHeaders(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		var meta []string
		// Not headers.request.add: nginx 1.22 warns of a long name that is there twice.
		for n, key := range []string{"lb-headers-request-set", "lb-headers-request-remove", "lb-headers-response-set", "lb-headers-response-add", "lb-headers-response-remove"} {
			var words []string
			for k := range 4 {
				word := fmt.Sprintf("X-%s-%d", []string{"Team", "Request-Class", "Tenant", strings.Repeat("long", 9)}[k], n)
				if !strings.HasSuffix(key, "remove") {
					word += "=v"
				}
				words = append(words, word)
			}
			meta = append(meta, key, strings.Join(words, ","))
		}
		checkWithNginx(t, binary, parseAll(
			one("web", 80, tags("http_server"), consultest.Meta(meta...)),
			one("calls", 80, tags("grpc_server"), consultest.Meta(meta...)),
		), nil)
	})
}

// A header of a location must not hide the one of its listener.
func TestHSTSWithHeadersOfAPolicy(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		ca := certificatestest.NewAuthority(t, "test")
		b := startSecured(t, binary, func(dir string) { ca.Issue(t, 100*days, "shop.test").Write(t, dir, "shop") },
			func(s *Settings) { s.Listeners[3].HSTS = 3600 },
			one("web", echo(t), tags("http_server"), meta("lb-headers-response-set", "X-A=1")),
			one("nobody", refusing(t), meta("lb-protocol", "http", "lb-path", "/nobody", "lb-cors-allow-origins", "*")),
		)
		secure, plain := b.client(t, b.https, &tls.Config{RootCAs: ca.Pool()}), b.client(t, b.http, nil)
		for _, path := range []string{"/", "/nobody"} {
			response, _ := get(t, secure, "https://shop.test"+path)
			assert.Equal(t, []string{"max-age=3600"}, response.Header["Strict-Transport-Security"], path)
			response, _ = get(t, plain, "http://shop.test"+path)
			assert.Empty(t, response.Header["Strict-Transport-Security"], path)
		}
		response, _ := get(t, secure, "https://shop.test/nobody", with("Origin", "https://a.test", "Access-Control-Request-Method", "PUT"),
			func(r *http.Request) { r.Method = http.MethodOptions })
		assert.Equal(t, []string{"max-age=3600"}, response.Header["Strict-Transport-Security"], "a preflight answer")
	})
}
