package endpoints

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
)

// answers returns nil when the server at address speaks protocol. An open port
// alone proves little: a transparent proxy on the way takes connections for
// addresses that nobody has.
func answers(ctx context.Context, protocol Protocol, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
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
	case GRPC:
		return answersHTTP2(conn)
	case HTTP:
		return answersHTTP(conn, address)
	case GRPCS, HTTPS:
		return answersTLS(ctx, conn)
	default:
		return nil
	}
}

// answersHTTP2 wants the settings that a server sends first of all (RFC 9113,
// section 3.4).
func answersHTTP2(conn net.Conn) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
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

// answersHTTP asks what concerns no resource (RFC 9110, section 9.3.7); any
// status will do.
func answersHTTP(conn net.Conn, address string) error {
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

// answersTLS wants a handshake, be it one that the server refuses: it may ask
// for a certificate that we don't have.
func answersTLS(ctx context.Context, conn net.Conn) error {
	err := tls.Client(conn, clientTLS("h2", "http/1.1")).HandshakeContext(ctx)
	if alert := tls.AlertError(0); errors.As(err, &alert) {
		return nil
	}
	return err
}
