package daemon

import (
	"context"
	"errors"
	"fmt"

	"lbctl/internal/render"
	"lbctl/internal/tracing"
)

// Values of TracingConfig.Mode.
const (
	TracingAuto = "auto" // on if there is an endpoint
	TracingOn   = "on"
	TracingOff  = "off"
)

// DefaultTraceSample is the default of TracingConfig.Sample. Whoever wants to see a certain call
// has its client sample it; this share is for the others. It costs lbctl next to nothing at
// thousands of requests a second, and fills no store.
const DefaultTraceSample = 0.01

// TracingConfig has the settings of traces.
type TracingConfig struct {
	// Mode is TracingAuto, TracingOn or TracingOff; default TracingAuto.
	Mode string
	// Endpoint is the URL of the receiver of spans; default EnvironmentEndpoint, or else
	// http://localhost:4317.
	Endpoint string
	// EnvironmentEndpoint is what OpenTelemetry's variables name: see
	// tracing.EndpointFromEnvironment.
	EnvironmentEndpoint string
	// Sample is the share of the traces beginning at nginx that are sampled, from 0 to 1.
	Sample float64
}

// on reports whether nginx is to continue and begin traces. Without an endpoint it is better if it
// does not: a new trace would be sampled, or not, for all servers behind nginx, which may decide
// that themselves.
func (c TracingConfig) on() bool {
	return c.Mode == TracingOn || c.Mode != TracingOff && (c.Endpoint != "" || c.EnvironmentEndpoint != "")
}

// newTracing makes the exporter of spans, if there is one.
func (p *parts) newTracing(cfg Config, settings render.Settings) (err error) {
	if !settings.Tracing {
		if !cfg.Nginx.Traces.on() {
			return nil
		}
		if cfg.Nginx.Traces.Mode == TracingOn {
			return errors.New("--tracing on: spans are made from nginx's log of requests, want --access-log on, and --access-log-dir on a tmpfs")
		}
		cfg.Logger.Warn("there are no traces, because nginx does not log requests: want --access-log on, and --access-log-dir on a tmpfs")
		return nil
	}
	p.traces, err = tracing.New(context.Background(), tracing.Options{
		Endpoint:  cfg.Nginx.Traces.Endpoint,
		Version:   cfg.Version,
		Instances: p.instances,
		Logger:    cfg.Logger,
	})
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	p.readers = append(p.readers, p.traces.Take)
	return nil
}
