package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/net/http2"

	"lbctl/internal/endpoints"
)

// askProtocol returns nil if the server at address answers in the protocol. An open port alone
// proves little: a transparent proxy accepts connections for addresses that no machine has.
func askProtocol(ctx context.Context, protocol endpoints.Protocol, address string) error {
	conn, err := connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	switch protocol {
	case endpoints.GRPC:
		return askHTTP2(conn)
	case endpoints.HTTP:
		return askHTTP1(conn, address)
	case endpoints.GRPCS, endpoints.HTTPS:
		return askTLS(ctx, conn)
	default:
		return nil
	}
}

// askHTTP2 reads the SETTINGS frame, which a server sends before anything else
// (RFC 9113, section 3.4).
func askHTTP2(conn net.Conn) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	framer.SetMaxReadFrameSize(maxAnswer)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	frame, err := framer.ReadFrame()
	if err != nil {
		return err
	}
	if _, ok := frame.(*http2.SettingsFrame); !ok {
		return fmt.Errorf("got an HTTP/2 %s frame first, want SETTINGS", frame.Header().Type)
	}
	return nil
}

// askHTTP1 sends a request that concerns no resource (RFC 9110, section 9.3.7). Any
// status is an answer.
func askHTTP1(conn net.Conn, address string) error {
	if _, err := fmt.Fprintf(conn, "OPTIONS * HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", address); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 4096)).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "HTTP/") {
		return fmt.Errorf("got %.40q, want an HTTP status line", line)
	}
	return nil
}

// askTLS makes a TLS handshake. A server that refuses it has answered too: it may require a
// client certificate, which lbctl doesn't have.
func askTLS(ctx context.Context, conn net.Conn) error {
	err := tls.Client(conn, clientTLS("h2", "http/1.1")).HandshakeContext(ctx)
	if alert := tls.AlertError(0); errors.As(err, &alert) {
		return nil
	}
	return err
}
