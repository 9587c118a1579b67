package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"lbctl/internal/endpoints"
)

// question is the check to make of an instance.
type question struct {
	protocol endpoints.Protocol
	check    endpoints.Check
	address  string
}

// dialer sets no keepalives: a connection lasts a second at most, and with thousands of
// instances each system call counts.
var dialer = net.Dialer{KeepAlive: -1, Control: refuseForbidden}

// refuseForbidden refuses to connect if a host name resolves to a forbidden address.
func refuseForbidden(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if why := endpoints.Forbidden(to.Addr()); why != "" {
		return fmt.Errorf("%s is not asked: %s", to.Addr(), why)
	}
	return nil
}

// checkHeld is what a held instance is asked: whether a server of its service's protocol
// answers.
const checkHeld endpoints.Check = "protocol"

// ask returns nil when the instance passes its check. It makes a new connection each
// time, because whether one can be made is part of the question.
func ask(ctx context.Context, q question) error {
	if q.check == checkHeld {
		return askProtocol(ctx, q.protocol, q.address)
	}
	conn, err := dialer.DialContext(ctx, "tcp", q.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if path, ok := q.check.HTTPPath(); ok {
		return askHTTP(ctx, conn, q, path)
	}
	if service, ok := q.check.GRPCService(); ok {
		return askGRPC(ctx, conn, q, service)
	}
	return nil
}

// maxAnswer is how many bytes of an answer's headers, or of a message, are read.
const maxAnswer = 16 << 10

// clientTLS does TLS as nginx does it to an instance: it verifies no certificate.
func clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
}

// only dials by handing out conn, once.
func only(conn net.Conn) func(context.Context, string) (net.Conn, error) {
	given := false
	return func(context.Context, string) (net.Conn, error) {
		if given {
			return nil, errors.New("the connection was lost")
		}
		given = true
		return conn, nil
	}
}

func askHTTP(ctx context.Context, conn net.Conn, q question, path string) error {
	scheme := "http"
	if q.protocol.TLS() {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+q.address+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "lbctl")
	dial := only(conn)
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) },
		TLSClientConfig:   clientTLS("http/1.1"),
		DisableKeepAlives: true,

		MaxResponseHeaderBytes: maxAnswer,
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("HTTP status %d, want 200 to 399", answer.StatusCode)
	}
	return nil
}

func askGRPC(ctx context.Context, conn net.Conn, q question, service string) error {
	transport := insecure.NewCredentials()
	if q.protocol.TLS() {
		transport = credentials.NewTLS(clientTLS())
	}
	client, err := grpc.NewClient("passthrough:///"+q.address,
		grpc.WithTransportCredentials(transport), grpc.WithContextDialer(only(conn)),
		grpc.WithUserAgent("lbctl"), grpc.WithDisableServiceConfig(),
		grpc.WithMaxHeaderListSize(maxAnswer), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // gRPC's error for a timeout is harder to read
		}
		return fmt.Errorf("gRPC health check: %s: %s", status.Code(err), status.Convert(err).Message())
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("gRPC health check: %s", answer.Status)
	}
	return nil
}
