package registration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"lbctl/internal/metadata"
)

// CheckType is the kind of a health check.
type CheckType string

const (
	// CheckGRPC calls gRPC's health service (grpc.health.v1).
	CheckGRPC CheckType = "grpc"
	// CheckHTTP fetches a URL: 2xx is passing, 429 warning, the rest critical.
	CheckHTTP CheckType = "http"
	// CheckTCP connects.
	CheckTCP CheckType = "tcp"
	// CheckTTL sends no request. Instead the registrar reports after each Interval that it
	// and its command are alive. Without three reports in a row the check is critical.
	CheckTTL CheckType = "ttl"
)

// TLSMode says whether a check uses TLS.
type TLSMode string

const (
	// TLSOff uses no TLS, except for https:// URLs, where it verifies the certificate.
	TLSOff TLSMode = "off"
	// TLSVerify uses TLS and verifies the server's certificate.
	TLSVerify TLSMode = "verify"
	// TLSSkipVerify uses TLS and accepts any certificate.
	TLSSkipVerify TLSMode = "skip-verify"
)

// Check describes the health check that is registered with the service.
type Check struct {
	Type CheckType
	// Endpoint is the target of the check: "host:port" or "host:port/package.Service" for
	// gRPC, a URL or a path for HTTP, "host:port" for TCP, nothing for TTL. Empty means the
	// server's own port, at 127.0.0.1 if the agent is on this machine, otherwise at the
	// registered address.
	Endpoint string
	// TLS is for gRPC and HTTP.
	TLS               TLSMode
	Interval, Timeout time.Duration
	// SuccessBeforePassing and FailuresBeforeCritical are how many equal results in a row
	// change the status.
	SuccessBeforePassing, FailuresBeforeCritical int
	// DeregisterAfter is how long the instance may be critical before Consul removes it; 0
	// means for ever. Consul requires at least a minute.
	DeregisterAfter time.Duration
}

// complete fills in a missing type and TLS mode from the server's protocol; "" means
// unknown. A check of a server with TLS accepts any certificate, as lbctl does, because
// certificates are for names and the check uses an IP address. The TLS mode is not derived
// for an endpoint on another port, which may use another protocol.
func (c *Check) complete(protocol string) {
	family := strings.TrimSuffix(protocol, "s")
	if c.Type == "" {
		c.Type = CheckGRPC
		if family == "http" || family == "tcp" {
			c.Type = CheckType(family)
		}
	}
	if c.TLS != "" {
		return
	}
	c.TLS = TLSOff
	ownPort := c.Endpoint == "" || strings.HasPrefix(c.Endpoint, "/")
	if ownPort && protocol == string(c.Type)+"s" {
		c.TLS = TLSSkipVerify
	}
}

// protocolOf returns the server's protocol according to the metadata and tags that lbctl
// reads; "" if they don't say it.
func protocolOf(cfg Config) string {
	grpc, http := slices.Contains(cfg.Tags, metadata.TagGRPC), slices.Contains(cfg.Tags, metadata.TagHTTP)
	switch said := strings.ToLower(strings.TrimSpace(cfg.Meta[metadata.KeyProtocol])); {
	case said != "":
		return said
	case grpc && !http:
		return "grpc"
	case http && !grpc:
		return "http"
	case !grpc && !http && cfg.Meta[metadata.KeyGRPC] != "":
		return "grpc"
	case !grpc && !http && cfg.Meta[metadata.KeyPort] != "":
		return "tcp"
	}
	return ""
}

// target returns the complete endpoint, with defaults filled in.
func (c Check) target(address string, port int) string {
	if address == "" {
		address = "127.0.0.1"
	}
	own := net.JoinHostPort(address, strconv.Itoa(port))
	switch {
	case c.Type == CheckTTL:
		return ""
	case c.Type == CheckHTTP && (c.Endpoint == "" || strings.HasPrefix(c.Endpoint, "/")):
		scheme := "http"
		if c.TLS != TLSOff {
			scheme = "https"
		}
		return scheme + "://" + own + "/" + strings.TrimPrefix(c.Endpoint, "/")
	case c.Endpoint == "":
		return own
	}
	return c.Endpoint
}

// definition returns the check as Consul defines it. Its notes describe it completely,
// because the agent returns the notes but not the definition.
func (c Check) definition(serviceID, target string) *api.AgentServiceCheck {
	check := &api.AgentServiceCheck{
		CheckID:                checkID(serviceID),
		Name:                   strings.ToUpper(string(c.Type)) + " check",
		SuccessBeforePassing:   c.SuccessBeforePassing,
		FailuresBeforeCritical: c.FailuresBeforeCritical,
	}
	if c.DeregisterAfter > 0 {
		check.DeregisterCriticalServiceAfter = c.DeregisterAfter.String()
	}
	if c.Type == CheckTTL {
		ttl := 3 * c.Interval
		check.TTL = ttl.String()
		check.Notes = fmt.Sprintf("heartbeat of the registrar every %s, critical after %s without", c.Interval, ttl)
		return check
	}
	check.Interval, check.Timeout = c.Interval.String(), c.Timeout.String()
	check.Notes = fmt.Sprintf("%s %s every %s, timeout %s, critical after %d failures, passing after %d successes",
		c.Type, target, c.Interval, c.Timeout, c.FailuresBeforeCritical, c.SuccessBeforePassing)
	if c.DeregisterAfter > 0 {
		check.Notes += ", deregistered after " + c.DeregisterAfter.String()
	}
	if c.TLS != TLSOff {
		check.Notes += ", TLS " + string(c.TLS)
	}
	check.TLSSkipVerify = c.TLS == TLSSkipVerify
	switch c.Type {
	case CheckGRPC:
		check.GRPC = target
		check.GRPCUseTLS = c.TLS != TLSOff
	case CheckHTTP:
		check.HTTP = target
	case CheckTCP:
		check.TCP = target
	}
	return check
}

// probe runs the check once, as Consul does, and returns why it isn't passing.
func (c Check) probe(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	switch c.Type {
	case CheckGRPC:
		return c.probeGRPC(ctx, target)
	case CheckHTTP:
		return c.probeHTTP(ctx, target)
	case CheckTCP:
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", target)
		if err != nil {
			return err
		}
		return connection.Close()
	}
	return nil
}

func (c Check) probeGRPC(ctx context.Context, target string) error {
	address, service, _ := strings.Cut(target, "/")
	transport := insecure.NewCredentials()
	if c.TLS != TLSOff {
		transport = credentials.NewTLS(c.tlsConfig())
	}
	// Each probe has a new connection: a kept one would wait at least a second after a
	// failure before it dials again.
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(transport))
	if err != nil {
		return err
	}
	defer connection.Close()
	answer, err := healthpb.NewHealthClient(connection).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil && strings.Contains(err.Error(), http2.ErrFrameTooLarge.Error()) {
		// The text of an answer in HTTP/1 was read as the length of a frame.
		return fmt.Errorf("%w (an HTTP server answers like that: should HEALTH_CHECK_TYPE be http?)", err)
	}
	if err != nil {
		return err
	}
	if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("gRPC health of %s is %s, want SERVING", target, answer.GetStatus())
	}
	return nil
}

func (c Check) probeHTTP(ctx context.Context, target string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.tlsConfig(), DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 4096)) // only the status matters
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("%s answers %s, want 2xx", target, answer.Status)
	}
	return nil
}

func (c Check) tlsConfig() *tls.Config {
	return &tls.Config{InsecureSkipVerify: c.TLS == TLSSkipVerify} //nolint:gosec // the operator asked for it
}

// validEndpoint returns an error if the endpoint doesn't fit the type.
func (c Check) validEndpoint() error {
	switch {
	case c.Type == CheckTTL && c.Endpoint != "":
		return fmt.Errorf("%q given for a check of type ttl, which asks nothing; want none", c.Endpoint)
	case c.Endpoint == "":
		return nil
	case c.Type == CheckGRPC:
		address, _, _ := strings.Cut(c.Endpoint, "/")
		if validHostPort(address) != nil {
			return fmt.Errorf("%q is not a gRPC endpoint, want host:port or host:port/package.Service, for example 127.0.0.1:7777", c.Endpoint)
		}
	case c.Type == CheckTCP:
		if validHostPort(c.Endpoint) != nil {
			return fmt.Errorf("%q is not a TCP endpoint, want host:port, for example 127.0.0.1:5432", c.Endpoint)
		}
	case c.Type == CheckHTTP && !strings.HasPrefix(c.Endpoint, "/"):
		parsed, err := url.Parse(c.Endpoint)
		if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" {
			return fmt.Errorf("%q is not a URL, want one like http://127.0.0.1:8080/health, or a path like /health", c.Endpoint)
		}
	}
	return nil
}

func validHostPort(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "" {
		return errors.New("no host")
	}
	_, err = parsePort(port)
	return err
}
