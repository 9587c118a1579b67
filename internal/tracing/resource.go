package tracing

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// serviceName is the name of the balancer in traces, unless OTEL_SERVICE_NAME has another.
const serviceName = "lbctl"

// newResource returns what all spans say of their origin.
func newResource(ctx context.Context, version string) (*tracepb.ResourceSpans, error) {
	about, err := resource.New(ctx,
		resource.WithSchemaURL(semconv.SchemaURL),
		resource.WithAttributes(semconv.ServiceName(serviceName), semconv.ServiceVersion(version)),
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithProcessPID(),
		resource.WithFromEnv(), // wins
	)
	if err != nil && !errors.Is(err, resource.ErrSchemaURLConflict) {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	var attributes []*commonpb.KeyValue
	for _, a := range about.Attributes() {
		switch a.Value.Type() {
		case attribute.INT64:
			attributes = append(attributes, number(a.Key, a.Value.AsInt64()))
		default:
			attributes = append(attributes, text(a.Key, a.Value.String()))
		}
	}
	return &tracepb.ResourceSpans{
		Resource:   &resourcepb.Resource{Attributes: attributes},
		SchemaUrl:  semconv.SchemaURL,
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "lbctl/internal/tracing", Version: version}}},
	}, nil
}
