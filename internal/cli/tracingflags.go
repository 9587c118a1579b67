package cli

import (
	"fmt"
	"strconv"

	"lbctl/internal/daemon"
	"lbctl/internal/render"
	"lbctl/internal/tracing"
)

// tracingFlags defines the flags about traces.
func tracingFlags(flags *flags, traces *daemon.TracingConfig) {
	traces.EnvironmentEndpoint = tracing.EndpointFromEnvironment(func(name string) (string, bool) {
		value := lookup(flags.environ, name)
		return value, value != ""
	})
	choose(flags, &traces.Mode, "tracing", "LBCTL_TRACING", "HOW",
		"continue or begin a W3C trace context for each request, and send spans: auto (on if there is an endpoint for spans), on, or off (the headers of clients pass unchanged)",
		daemon.TracingAuto, daemon.TracingAuto, daemon.TracingOn, daemon.TracingOff)
	define(flags, &traces.Endpoint, "otlp-endpoint", "LBCTL_OTLP_ENDPOINT", "URL",
		"where spans are sent by OTLP, over gRPC unless OTEL_EXPORTER_OTLP_PROTOCOL has http/protobuf (default OTEL_EXPORTER_OTLP_ENDPOINT)", "", parseOTLPEndpoint)
	define(flags, &traces.Sample, "trace-sample", "LBCTL_TRACE_SAMPLE", "SHARE",
		"share of the traces beginning at nginx that are sampled; clients decide about theirs", daemon.DefaultTraceSample, parseTraceSample)
}

func parseOTLPEndpoint(given string) (string, error) {
	return given, tracing.CheckEndpoint(given)
}

func parseTraceSample(given string) (float64, error) {
	share, err := strconv.ParseFloat(given, 64)
	if err != nil || render.CheckTraceSample(share) != nil {
		return 0, fmt.Errorf("want 0, or a share from 0.0001 to 1, such as 0.05")
	}
	return share, nil
}
