package render

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// A request has one name: the client's or nginx's own, and instance and client both get it.
func TestRequestID(t *testing.T) {
	made := regexp.MustCompile(`^[0-9a-f]{32}$`)
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		seen := make(chan http.Header, 1)
		web := handler(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Request-Id", "the instance's own")
			seen <- r.Header
		})
		calls := moody(t, nil)
		b := startBalancer(t, binary, nil,
			one("web", web, tags("http_server")),
			one("shaped", web, meta("lb-protocol", "http", "lb-path", "/shaped", "lb-headers-response-set", "X-Team=shop", "lb-cors-allow-origins", "https://a.example")),
			one("calls", calls, tags("grpc_server")),
			one("shaped-calls", calls, meta("lb-protocol", "grpc", "lb-path", "/s.S", "lb-headers-response-set", "X-Team=shop")),
		)
		ask := func(path string, ids ...string) (instance, client []string) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.http+path, nil)
			require.NoError(t, err)
			request.Header["X-Request-Id"] = ids
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				instance = (<-seen)["X-Request-Id"]
			}
			return instance, response.Header["X-Request-Id"]
		}
		for _, path := range []string{"/", "/shaped"} {
			instance, client := ask(path)
			require.Len(t, client, 1)
			assert.Regexp(t, made, client[0])
			assert.Equal(t, client, instance)

			instance, client = ask(path, "Root=1-67891233-abcdef012345678912345678")
			assert.Equal(t, []string{"Root=1-67891233-abcdef012345678912345678"}, client)
			assert.Equal(t, client, instance)

			for _, bad := range []string{"a b", "a\tb", `a"b`, strings.Repeat("a", 129), "ä"} {
				instance, client = ask(path, bad)
				require.Len(t, client, 1, bad)
				assert.Regexp(t, made, client[0])
				assert.Equal(t, client, instance)
			}
		}
		_, client := ask("/../nothing/%00")
		require.Len(t, client, 1)
		assert.Regexp(t, made, client[0], "of nginx's own error")

		conn := b.dial(t, "localhost")
		for _, method := range []string{"/m.M/OK", "/s.S/OK", "/m.M/NotFound"} {
			var header, trailer metadata.MD // an answer with headers only has them in the trailer
			ctx := metadata.AppendToOutgoingContext(context.Background(), "x-request-id", "call-1")
			_ = conn.Invoke(ctx, method, &protos.PingMessage{}, &protos.PingMessage{}, grpc.Header(&header), grpc.Trailer(&trailer))
			assert.Equal(t, []string{"call-1"}, metadata.Join(header, trailer)["x-request-id"], method)
		}
	})
}
