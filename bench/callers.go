//go:build bench

package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"lbctl/internal/lbtest"
	"lbctl/protos"
)

// A front is one of a balancer's four listeners.
type front int

const (
	grpcPlain front = iota
	httpPlain       // HTTP/1.1
	grpcTLS
	httpTLS // HTTP/1.1 and HTTP/2; the client chooses
	frontCount
)

// fronts are a balancer's addresses, by front; empty where it has none.
type fronts [frontCount]string

func freeFronts(freePort func() int) fronts {
	var f fronts
	for i := range f {
		f[i] = fmt.Sprintf("127.0.0.1:%d", freePort())
	}
	return f
}

// A kind is one kind of calls.
type kind struct {
	name  string
	front front
	dial  func(address string, tls *tls.Config) (lbtest.Caller, error) // tls is nil for a front without TLS
}

var (
	grpcUnary    = kind{"grpc-go unary", grpcPlain, dialGRPC}
	grpcUnaryTLS = kind{"grpc-go unary, TLS", grpcTLS, dialGRPC}
	h2cNoRetry   = kind{"Go h2c without retry", grpcPlain, dialH2C}
	http1        = kind{"HTTP/1.1 keep-alive", httpPlain, dialHTTP1}
	http1TLS     = kind{"HTTP/1.1 keep-alive, TLS", httpTLS, dialHTTP1}
	http2TLS     = kind{"HTTP/2 over TLS", httpTLS, dialHTTP2}
)

// caller makes one caller of this kind, which calls one of a balancer's fronts.
func (k kind) caller(at fronts, id *identity) (lbtest.Caller, error) {
	var config *tls.Config
	if k.front == grpcTLS || k.front == httpTLS {
		config = id.client()
	}
	return k.dial(at[k.front], config)
}

// load starts callers of this kind.
func (k kind) load(t *testing.T, at fronts, id *identity, callers int, pause time.Duration) *lbtest.Load {
	t.Helper()
	return lbtest.StartCallers(t, callers, pause, func() (lbtest.Caller, error) { return k.caller(at, id) })
}

func dialGRPC(address string, config *tls.Config) (lbtest.Caller, error) {
	if config == nil {
		return lbtest.DialGRPC(address, insecure.NewCredentials())
	}
	return lbtest.DialGRPC(address, credentials.NewTLS(config))
}

// An httpCaller posts a body that can't be sent twice, so that Go's client does not
// retry a request that an instance may have answered.
type httpCaller struct {
	url       string
	body      []byte
	header    http.Header
	transport *http.Transport
	parse     func(*http.Response, []byte) (name string, err error)
}

func dialHTTP1(address string, config *tls.Config) (lbtest.Caller, error) {
	return newHTTPCaller(address, config, func(p *http.Protocols) { p.SetHTTP1(true) }), nil
}

func dialHTTP2(address string, config *tls.Config) (lbtest.Caller, error) {
	return newHTTPCaller(address, config, func(p *http.Protocols) { p.SetHTTP2(true) }), nil
}

// dialH2C calls the gRPC service with Go's HTTP/2 client. Unlike grpc-go, that client
// does not retry calls that got no answer because the connection ended.
func dialH2C(address string, config *tls.Config) (lbtest.Caller, error) {
	c := newHTTPCaller(address, config, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	c.url += protos.Ping_SayHello_FullMethodName
	c.body = make([]byte, 5) // one message of length 0, not compressed
	c.header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	c.parse = parseGRPC
	return c, nil
}

func newHTTPCaller(address string, config *tls.Config, protocols func(*http.Protocols)) *httpCaller {
	scheme := "http://"
	if config != nil {
		scheme = "https://"
	}
	c := &httpCaller{
		url:       scheme + address,
		body:      []byte("hello"),
		transport: &http.Transport{TLSClientConfig: config, Protocols: new(http.Protocols)},
		parse:     func(_ *http.Response, body []byte) (string, error) { return string(body), nil },
	}
	protocols(c.transport.Protocols)
	return c
}

func (c *httpCaller) Call(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(c.body))
	if err != nil {
		return "", err
	}
	request.GetBody = nil // it can't be sent twice
	maps.Copy(request.Header, c.header)
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return "", plain(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", plain(err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("HTTP status %d", response.StatusCode)
	}
	return c.parse(response, body)
}

func (c *httpCaller) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// parseGRPC takes one message out of a gRPC response.
func parseGRPC(response *http.Response, body []byte) (string, error) {
	status := response.Trailer.Get("Grpc-Status")
	if status == "" {
		status = response.Header.Get("Grpc-Status") // a response without a message
	}
	if status != "0" {
		return "", fmt.Errorf("grpc-status %q", status)
	}
	if len(body) < 5 || int(binary.BigEndian.Uint32(body[1:5])) != len(body)-5 {
		return "", fmt.Errorf("%d bytes, want one gRPC message", len(body))
	}
	var answer protos.PingMessage
	if err := proto.Unmarshal(body[5:], &answer); err != nil {
		return "", err
	}
	return answer.Greeting, nil
}

// plain removes addresses from an error, so that equal errors can be counted.
func plain(err error) error {
	var op *net.OpError
	var address *url.Error
	switch {
	case errors.As(err, &op):
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	case errors.As(err, &address):
		return address.Err
	case strings.Contains(err.Error(), "cannot retry err"):
		return errors.New("the connection ended after the request was written")
	}
	return err
}
