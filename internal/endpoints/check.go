package endpoints

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// Check is how lbctl asks an instance itself whether it can serve, as in its
// lb-check metadata:
//
//	tcp           its port takes connections; the default, also when empty
//	http:/path    a GET of the path is answered with a status of 200 to 399
//	grpc          gRPC's health service says that the server is SERVING
//	grpc:NAME     it says so of the service NAME
//	none          it is not asked
type Check string

// The checks without a parameter.
const (
	CheckTCP  Check = "tcp"
	CheckGRPC Check = "grpc"
	CheckNone Check = "none"
)

const (
	// checkProtocol is the second look at a held instance.
	checkProtocol Check = "protocol"

	checkHTTPPrefix = "http:"
	checkGRPCPrefix = "grpc:"
)

var (
	checkPath    = regexp.MustCompile(`^/[!-~]{0,255}$`)
	checkService = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,255}$`)
)

// Valid reports whether it is one of the checks there are.
func (c Check) Valid() bool {
	switch c {
	case "", CheckTCP, CheckGRPC, CheckNone:
		return true
	}
	if path, ok := strings.CutPrefix(string(c), checkHTTPPrefix); ok {
		_, err := url.ParseRequestURI(path)
		return err == nil && checkPath.MatchString(path)
	}
	service, ok := strings.CutPrefix(string(c), checkGRPCPrefix)
	return ok && checkService.MatchString(service)
}

// question is what an instance is asked.
type question struct {
	protocol Protocol
	check    Check
	address  string
}

// dialer has no keepalives: what is asked is over within a second, and with
// thousands of instances each system call counts.
var dialer = net.Dialer{KeepAlive: -1}

// askInstance returns nil when the instance passes its check. It makes a connection of
// its own each time: what is asked is also whether one can be made, and none can
// be left behind by an instance that goes.
func askInstance(ctx context.Context, q question) error {
	if q.check == checkProtocol {
		return answers(ctx, q.protocol, q.address)
	}
	conn, err := dialer.DialContext(ctx, "tcp", q.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if path, ok := strings.CutPrefix(string(q.check), checkHTTPPrefix); ok {
		return askHTTP(ctx, conn, q, path)
	}
	if q.check == CheckGRPC || strings.HasPrefix(string(q.check), checkGRPCPrefix) {
		return askGRPC(ctx, conn, q, strings.TrimPrefix(strings.TrimPrefix(string(q.check), string(CheckGRPC)), ":"))
	}
	return nil
}

// secure reports whether the protocol has TLS below it.
func (p Protocol) secure() bool { return p == GRPCS || p == HTTPS }

// clientTLS is how nginx does TLS to an instance: it does not check who it is.
func clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
}

// only gives the one connection there is.
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
	if q.protocol.secure() {
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
	if q.protocol.secure() {
		transport = credentials.NewTLS(clientTLS())
	}
	client, err := grpc.NewClient("passthrough:///"+q.address,
		grpc.WithTransportCredentials(transport), grpc.WithContextDialer(only(conn)),
		grpc.WithUserAgent("lbctl"), grpc.WithDisableServiceConfig())
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // rather than gRPC's words for it
		}
		return fmt.Errorf("gRPC health check: %s: %s", status.Code(err), status.Convert(err).Message())
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("gRPC health check: %s", answer.Status)
	}
	return nil
}

// why is a failed check in a few words.
func why(err error) string {
	var number syscall.Errno
	var timeout net.Error
	switch {
	case errors.As(err, &number):
		return number.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
