package render

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// TestRequestsThatNginxRefuses sends requests that nginx refuses by itself. The answer must
// say what is wrong with them, and not that the load balancer failed.
func TestRequestsThatNginxRefuses(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		port := httpServer(t, "web", httptest.NewServer)
		b := startBalancer(t, binary, nil, registration("web", "web-1", "127.0.0.1", port, tags("http_server")))
		for _, test := range []struct {
			request string
			status  int
			body    string
		}{
			{"TRACE / HTTP/1.1\r\nHost: x", 405, "the load balancer does not pass on the methods CONNECT and TRACE\n"},
			{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip", 501, "the load balancer does not know the transfer encoding of the request\n"},
			{"GET / HTTP/3.0\r\nHost: x", 505, "the load balancer does not know this version of HTTP\n"},
			{"FOO / HTTP/1.1\r\nHost: x", 200, "web FOO / 0"},
		} {
			status, body := exchange(t, b.http, test.request)
			assert.Equal(t, test.status, status, test.request)
			assert.Equal(t, test.body, body, test.request)
		}

		status, body := exchange(t, b.http, "CONNECT x:443 HTTP/1.1\r\nHost: x:443")
		if status != http.StatusBadRequest { // as older versions of nginx have it
			assert.Equal(t, http.StatusMethodNotAllowed, status)
			assert.Equal(t, "the load balancer does not pass on the methods CONNECT and TRACE\n", body)
		}

		response, _ := get(t, h2c(), "http://"+b.grpc+"/x.Y/Z", func(r *http.Request) { r.Method = http.MethodTrace })
		assert.Equal(t, "12", response.Header.Get("grpc-status"))
		assert.Equal(t, "lbctl: the load balancer does not pass on the methods CONNECT and TRACE", response.Header.Get("grpc-message"))
	})
}

// h2c is a client that speaks HTTP/2 without TLS.
func h2c() *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: transport}
}

// exchange sends the head of a request, and returns the status and the body of the answer.
func exchange(t *testing.T, address, head string) (int, string) {
	t.Helper()
	conn := dialTCP(t, address)
	_, err := fmt.Fprintf(conn, "%s\r\n\r\n", head)
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}
