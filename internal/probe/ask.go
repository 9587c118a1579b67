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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// question is the check of an instance.
type question struct {
	protocol endpoints.Protocol
	check    policy.Check
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

// connect opens a connection within half of the time that is left. With the default timeout
// that is as long as nginx waits for a connection, so what nginx can't reach fails here too.
func connect(ctx context.Context, address string) (net.Conn, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return dialer.DialContext(ctx, "tcp", address)
	}
	until := time.Now().Add(time.Until(deadline) / 2)
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", address)
	return conn, unlessLate(err, until)
}

// checkHeld is the check of a held instance: a server must answer in the protocol of its
// service.
const checkHeld policy.Check = "protocol"

// ask returns nil if the instance passes its check. Each check makes a new connection, because
// it also shows whether the instance accepts one.
func ask(ctx context.Context, q question) error {
	if q.check == checkHeld {
		return askProtocol(ctx, q.protocol, q.address)
	}
	conn, err := connect(ctx, q.address)
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

// maxAnswer limits the bytes that are read of an answer's headers, or of a message.
const maxAnswer = 16 << 10

// clientTLS is the TLS configuration that nginx uses for instances: it verifies no certificate.
func clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
}

// only returns a dial function that returns conn, once.
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
