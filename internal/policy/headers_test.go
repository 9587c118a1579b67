package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestHeaders(t *testing.T) {
	var d Document
	for text, want := range map[string]string{
		"x-team=shop, X-a_b = {host}":        `{"X-A_b":"{host}","X-Team":"shop"}`,
		`{"nel": "{\"max_age\": 60}"}`:       `{"Nel":"{\"max_age\": 60}"}`,
		`{"x-list": "a, b", "x-b": "{X} {"}`: `{"X-B":"{X} {","X-List":"a, b"}`,
	} {
		assert.NoError(t, d.Set("headers.request.set", text), text)
		assert.Equal(t, want, d.Values()[0].Text)
	}
	for _, name := range []string{
		"Host", "connection", "TE", "Content-Length", "Transfer_Encoding", "Grpc-Timeout", "x-forwarded-for", "X_Real_IP", "X-Accel-Redirect",
		"X-Request-Id", "Traceparent", "tracestate", "b3", "X-B3-TraceId", "x_b3_sampled",
		"trace-bin", "a b", "a:", ":path", "a.b", "é", "-a", strings.Repeat("a", 47),
	} {
		assert.Error(t, d.SetAt("", "headers.response.add", name+"=1"), name)
		assert.Error(t, d.SetAt("", "headers.response.remove", name), name)
	}
	for _, value := range []string{"", " a", "a ", "a\tb", "a\nb", "$host", "é", "{hosts}", strings.Repeat("a", 1001)} {
		assert.Error(t, d.SetAt("", "headers.request.add", jsonText(map[string]string{"X-A": value})), value)
	}
	assert.Error(t, d.Set("headers.request.set", `{"X-A": "1", "x-a": "2"}`), "one name twice")
	assert.Error(t, d.Set("headers.request.remove", "X-A, x-a"), "one name twice")

	many := func(from int) string {
		var words []string
		for n := range maxHeaders {
			words = append(words, fmt.Sprintf("X-%d=1", from+n))
		}
		return strings.Join(words, ",")
	}
	assert.Error(t, d.Set("headers.request.set", many(0)+",X-More=1"))
	s := Resolve(
		layer(t, "lb/default", `{"headers.request.set": "X-Both=default, X-Default=1", "headers.request.add": "`+many(0)+`"}`),
		layer(t, SourceMetadata, `{"headers.request.set": "x-both=own", "headers.request.add": "`+many(1)+`"}`),
	)
	assert.Equal(t, []Pair{{"X-Both", "own"}, {"X-Default", "1"}}, s.General().Headers.Request.Set)
	assert.Len(t, s.General().Headers.Request.Add, maxHeaders+1, "layers together may have more")
}

// Earlier versions took some of these headers. After an upgrade the message says what to do.
func TestHeadersThatLbctlSets(t *testing.T) {
	for text, want := range map[string]string{
		`{"headers.request.set": {"X-Team": "a", "x-request-id": "1"}}`:     `headers.request.set "x-request-id=1": lbctl or nginx sets x-request-id itself, and no policy can: take it out`,
		`{"headers.response.remove": ["X-Powered-By", "traceparent"]}`:      `headers.response.remove "traceparent": lbctl or nginx sets traceparent itself, and no policy can: take it out`,
		`{"paths": {"/a": {"headers.request.add": {"X_B3_TraceId": "1"}}}}`: `path "/a": headers.request.add "X_B3_TraceId=1": lbctl or nginx sets X_B3_TraceId itself, and no policy can: take it out`,
	} {
		_, err := ParseDocument([]byte(text))
		assert.EqualError(t, err, want)
	}
	_, err := ParseDocument([]byte(`{"headers.request.set": {"Host": "a"}}`))
	assert.ErrorContains(t, err, `headers.request.set "Host=a", want up to 12 headers`)
}

func TestCompressionAndCORS(t *testing.T) {
	var d Document
	for field, texts := range map[string][]string{
		"compression.types":   {"text/html", "text/plain,text/plain", "*", "text", "Text/Plain", "text/" + strings.Repeat("a", 42), "a/b;c"},
		"cors.allow-origins":  {"null", "example.com", "https://a/", "https://a/b", "https://A.example", "https://*.example.com", "https://a,https://a", "https://u@a", "https://" + strings.Repeat("a", 83)},
		"cors.allow-methods":  {"get", "*", "PUT,PUT", "P T"},
		"cors.allow-headers":  {"*", "a b", "X-A:"},
		"cors.expose-headers": {"*"},
		"cors.max-age":        {"500ms", "0s", "25h", "1.5s"},
	} {
		for _, text := range texts {
			assert.Error(t, d.Set(field, text), "%s %s", field, text)
		}
	}
	for _, text := range []string{"*", "https://a", "http://localhost:3000", "http://[::1]:3000", "chrome-extension://abc", "capacitor://localhost"} {
		assert.NoError(t, d.Set("cors.allow-origins", text), text)
	}
	contradicting := Resolve(layer(t, SourceMetadata, `{"cors.allow-credentials": true, "paths": {"/a": {"cors.allow-origins": "*"}}}`))
	assert.False(t, contradicting.At("/a").CORS.Credentials())
}
