// Command otlp-receiver is OpenTelemetry's own receiver, of its Collector, for tests: it takes
// traces by OTLP over gRPC and HTTP, and writes them to its output. Each line is one request's
// spans: a TracesData in protobuf, in base64.
//
//	otlp-receiver GRPC_ADDRESS HTTP_ADDRESS
//
// It ends with its input, so that it does not outlive the test that has started it.
package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: otlp-receiver GRPC_ADDRESS HTTP_ADDRESS")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "otlp-receiver: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, grpcAddress, httpAddress string) error {
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	err := confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{
		"grpc": map[string]any{"endpoint": grpcAddress},
		"http": map[string]any{"endpoint": httpAddress},
	}}).Unmarshal(config)
	if err != nil {
		return err
	}
	var (
		mu         sync.Mutex
		marshaller ptrace.ProtoMarshaler
	)
	output, err := consumer.NewTraces(func(_ context.Context, traces ptrace.Traces) error {
		data, err := marshaller.MarshalTraces(traces)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		_, err = fmt.Println(base64.StdEncoding.EncodeToString(data))
		return err
	})
	if err != nil {
		return err
	}
	traces, err := factory.CreateTraces(ctx, receiver.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
		BuildInfo:         component.NewDefaultBuildInfo(),
	}, config, output)
	if err != nil {
		return err
	}
	if err := traces.Start(ctx, componenttest.NewNopHost()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	if shutdown := traces.Shutdown(ctx); err == nil {
		err = shutdown
	}
	return err
}
