package render

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// ofType answers with as many bytes as the query asks for, of the type that it asks for.
func ofType(t *testing.T) int {
	return handler(t, func(w http.ResponseWriter, r *http.Request) {
		var size int
		fmt.Sscan(r.URL.Query().Get("size"), &size)
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		w.Header().Set("Content-Length", fmt.Sprint(size))
		io.WriteString(w, strings.Repeat("x", size))
	})
}

// compressed reports whether the answer for an URL is compressed, and checks its content.
func compressed(t *testing.T, b balancer, path, mediaType string, size int) bool {
	t.Helper()
	response, body := get(t, http.DefaultClient, fmt.Sprintf("http://%s%s?size=%d&type=%s", b.http, path, size, mediaType),
		with("Accept-Encoding", "gzip", "Via", "1.1 another-proxy"))
	if response.Header.Get("Content-Encoding") != "gzip" {
		assert.Len(t, body, size)
		return false
	}
	assert.Contains(t, response.Header["Vary"], "Accept-Encoding")
	assert.Less(t, len(body), size)
	reader, err := gzip.NewReader(strings.NewReader(body))
	require.NoError(t, err)
	plain, err := io.ReadAll(reader)
	require.NoError(t, err)
	assert.Equal(t, strings.Repeat("x", size), string(plain))
	return true
}

func testGzip(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		one("web", ofType(t), tags("http_server"), meta("lb-paths", `{"/gzip": {"compression.gzip": "on"}}`)),
	)
	for _, mediaType := range []string{"text/html", "application/json"} {
		assert.True(t, compressed(t, b, "/gzip", mediaType, 5000), mediaType)
		assert.True(t, compressed(t, b, "/gzip/x", mediaType, 500_000), mediaType)
		assert.False(t, compressed(t, b, "/", mediaType, 5000), mediaType)
	}
	assert.False(t, compressed(t, b, "/gzip", "image/png", 5000))
	assert.False(t, compressed(t, b, "/gzip", "text/html", 500))
	_, body := get(t, &http.Client{Transport: &http.Transport{DisableCompression: true}}, "http://"+b.http+"/gzip?type=text/html&size=5000")
	assert.Len(t, body, 5000, "the client does not accept gzip")
}

func testCompressionTypes(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		one("web", ofType(t), tags("http_server"), meta("lb-compression-gzip", "on", "lb-compression-types", "application/wasm, text/css")),
	)
	assert.True(t, compressed(t, b, "/", "application/wasm", 5000))
	assert.True(t, compressed(t, b, "/", "text/css", 5000))
	assert.True(t, compressed(t, b, "/", "text/html", 5000))
	assert.False(t, compressed(t, b, "/", "application/json", 5000))
}

func testCompressionMinLength(t *testing.T, binary nginxtest.Binary) {
	b := startBalancer(t, binary, nil,
		one("web", ofType(t), tags("http_server"), meta("lb-compression-gzip", "on", "lb-compression-min-length", "8k")),
	)
	assert.True(t, compressed(t, b, "/", "text/html", 8192))
	assert.False(t, compressed(t, b, "/", "text/html", 8191))
}

// Compression holds nothing back: each part of an answer arrives when the instance sends it.
func TestCompressedStreams(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		next := make(chan bool)
		b := startBalancer(t, binary, nil,
			one("web", handler(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				for range 3 {
					fmt.Fprintln(w, "part")
					w.(http.Flusher).Flush()
					select {
					case <-next:
					case <-r.Context().Done():
					}
				}
			}), tags("http_server"), meta("lb-compression-gzip", "on")),
		)
		client := &http.Client{Timeout: 20 * time.Second}
		request, err := http.NewRequest(http.MethodGet, "http://"+b.http+"/", nil)
		require.NoError(t, err)
		request.Header.Set("Accept-Encoding", "gzip")
		response, err := client.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, "gzip", response.Header.Get("Content-Encoding"))
		reader, err := gzip.NewReader(response.Body)
		require.NoError(t, err)
		for range 3 {
			part := make([]byte, len("part\n"))
			_, err := io.ReadFull(reader, part)
			require.NoError(t, err)
			assert.Equal(t, "part\n", string(part))
			next <- true
		}
	})
}
