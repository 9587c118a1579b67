package daemon

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/render"
)

func TestTracingIsOnIfThereIsAnEndpoint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config TracingConfig
		want   bool
	}{
		{TracingConfig{}, false},
		{TracingConfig{Mode: TracingAuto}, false},
		{TracingConfig{Mode: TracingAuto, Endpoint: "http://a:4317"}, true},
		{TracingConfig{Mode: TracingAuto, EnvironmentEndpoint: "http://a:4317"}, true},
		{TracingConfig{Mode: TracingOn}, true},
		{TracingConfig{Mode: TracingOff, Endpoint: "http://a:4317", EnvironmentEndpoint: "http://a:4317"}, false},
	} {
		assert.Equal(t, c.want, c.config.on(), "%+v", c.config)
	}
}

func TestTracesNeedTheLogOfRequests(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	newTracing := func(config TracingConfig) error {
		p := &parts{}
		err := p.newTracing(Config{Nginx: NginxConfig{Traces: config}, Logger: slog.New(slog.NewTextHandler(&log, nil))}, render.Settings{})
		assert.Nil(t, p.traces)
		assert.Empty(t, p.readers)
		return err
	}
	assert.NoError(t, newTracing(TracingConfig{}))
	assert.Empty(t, log.String())
	assert.ErrorContains(t, newTracing(TracingConfig{Mode: TracingOn}), "want --access-log on")
	assert.Empty(t, log.String())
	assert.NoError(t, newTracing(TracingConfig{Endpoint: "http://a:4317"}))
	assert.Contains(t, log.String(), "there are no traces")
}
