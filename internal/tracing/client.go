package tracing

import (
	"cmp"
	"context"
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

const (
	defaultEndpoint = "http://localhost:4317"
	tracesPath      = "v1/traces" // of receivers over HTTP
)

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

// CheckEndpoint checks the URL of a receiver.
func CheckEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf(`endpoint %q, want a URL like "http://localhost:4317" or "https://otlp.example.com:4317"`, endpoint)
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

	c := client{endpoint: cmp.Or(endpoint, firstSet(os.LookupEnv, endpointVariables), defaultEndpoint)}
	protocol := cmp.Or(firstSet(os.LookupEnv, protocolVariables), overGRPC)
	switch protocol {
	case overGRPC:
		opts := []otlptracegrpc.Option{otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: longestRetry, MaxElapsedTime: retriesEnd,
		})}
		if endpoint != "" || c.endpoint == defaultEndpoint {
			opts = append(opts, otlptracegrpc.WithEndpointURL(c.endpoint))
		}
		c.Client = otlptracegrpc.NewClient(opts...)
	case overHTTP:
		opts := []otlptracehttp.Option{otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: longestRetry, MaxElapsedTime: retriesEnd,
		})}
		if endpoint != "" {
			at, err := url.Parse(endpoint)
			if err != nil {
				return client{}, fmt.Errorf("endpoint %q: %w", endpoint, err)
			}
			// Like OTEL_EXPORTER_OTLP_ENDPOINT, which is for all signals.
			opts = append(opts, otlptracehttp.WithEndpointURL(at.JoinPath(tracesPath).String()))
		}
		c.Client = otlptracehttp.NewClient(opts...)
	default:
		return client{}, fmt.Errorf("%s is %q, want %q or %q", protocolVariables[1], protocol, overGRPC, overHTTP)
	}
	return c, nil
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
