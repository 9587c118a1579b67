package tracing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// OpenTelemetry's own variables, of which the first that is set counts.
var (
	endpointVariables = []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"}
	protocolVariables = []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"}
)

// The values of OpenTelemetry's variables for the protocol.
const (
	overGRPC = "grpc"
	overHTTP = "http/protobuf"
)

// usualEndpoints are the endpoints that OpenTelemetry has by default, by protocol.
var usualEndpoints = map[string]string{overGRPC: "http://localhost:4317", overHTTP: "http://localhost:4318"}

const tracesPath = "v1/traces" // of receivers over HTTP

// EndpointFromEnvironment returns the endpoint that OpenTelemetry's variables name; "" if there is none,
// or if OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER turn traces off.
func EndpointFromEnvironment(lookup func(string) (string, bool)) string {
	disabled, _ := lookup("OTEL_SDK_DISABLED")
	exporter, _ := lookup("OTEL_TRACES_EXPORTER")
	if strings.EqualFold(disabled, "true") || exporter == "none" {
		return ""
	}
	return firstSet(lookup, endpointVariables)
}

func firstSet(lookup func(string) (string, bool), names []string) string {
	for _, name := range names {
		if value, ok := lookup(name); ok && value != "" {
			return value
		}
	}
	return ""
}

// CheckEndpoint checks the URL of a receiver. Its error says what is expected.
func CheckEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return errors.New(`want a URL like "http://localhost:4317" or "https://otlp.example.com:4317"`)
	}
	return nil
}

// client sends spans to a receiver.
type client struct {
	otlptrace.Client
	endpoint string // for messages
}

// retries are for moments in which a receiver is away. They end with the timeout of a request,
// OTEL_EXPORTER_OTLP_TIMEOUT, which is 10 s by default.
const (
	firstRetry   = time.Second
	longestRetry = 5 * time.Second
	retriesEnd   = time.Minute
)

func newClient(endpoint string, logger *slog.Logger) (client, error) {
	// What is wrong in OpenTelemetry's variables goes to our log.
	otel.SetLogger(logr.FromSlogHandler(logger.Handler()))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Debug("OpenTelemetry", "error", err) }))

	protocol := cmp.Or(firstSet(os.LookupEnv, protocolVariables), overGRPC)
	usual, ok := usualEndpoints[protocol]
	if !ok {
		return client{}, fmt.Errorf("%s is %q, want %q or %q", protocolVariables[1], protocol, overGRPC, overHTTP)
	}
	// The exporter knows the variables, but it would connect to the usual endpoint with TLS.
	variable := firstSet(os.LookupEnv, endpointVariables)
	if endpoint == "" && variable == "" {
		endpoint = usual
	}
	c := client{endpoint: cmp.Or(endpoint, variable)}
	if u, err := url.Parse(c.endpoint); err == nil {
		c.endpoint = u.Redacted()
	}
	if protocol == overHTTP {
		c.Client = otlptracehttp.NewClient(optionsOverHTTP(endpoint)...)
	} else {
		c.Client = otlptracegrpc.NewClient(optionsOverGRPC(endpoint)...)
	}
	return c, nil
}

func optionsOverGRPC(endpoint string) []otlptracegrpc.Option {
	options := []otlptracegrpc.Option{
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: longestRetry, MaxElapsedTime: retriesEnd,
		}),
		otlptracegrpc.WithDialOption(grpc.WithConnectParams(grpc.ConnectParams{
			// By default gRPC waits up to two minutes before it connects again.
			Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestRetry},
			MinConnectTimeout: longestRetry,
		})),
	}
	if endpoint != "" {
		options = append(options, otlptracegrpc.WithEndpointURL(endpoint))
	}
	return options
}

func optionsOverHTTP(endpoint string) []otlptracehttp.Option {
	options := []otlptracehttp.Option{otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
		Enabled: true, InitialInterval: firstRetry, MaxInterval: longestRetry, MaxElapsedTime: retriesEnd,
	})}
	if at, err := url.Parse(endpoint); err == nil && endpoint != "" {
		// Like OTEL_EXPORTER_OTLP_ENDPOINT, which is for all signals.
		options = append(options, otlptracehttp.WithEndpointURL(at.JoinPath(tracesPath).String()))
	}
	return options
}

// rejectedSpans matches the exporter's error if the receiver has taken only some of the spans.
var rejectedSpans = regexp.MustCompile(`\((\d+) spans rejected\)`)

// upload sends spans of the resource. With an error it returns how many the receiver did not take.
func (c *client) upload(ctx context.Context, resource *tracepb.ResourceSpans, spans []*tracepb.Span) (rejected int, err error) {
	err = c.UploadTraces(ctx, []*tracepb.ResourceSpans{{
		Resource:   resource.Resource,
		SchemaUrl:  resource.SchemaUrl,
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: resource.ScopeSpans[0].Scope, SchemaUrl: resource.SchemaUrl, Spans: spans}},
	}})
	if err == nil {
		return 0, nil
	}
	rejected = len(spans)
	if found := rejectedSpans.FindStringSubmatch(err.Error()); found != nil {
		if n, err := strconv.Atoi(found[1]); err == nil {
			rejected = min(n, len(spans))
		}
	}
	return rejected, err
}
