package policy

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestClosure(t *testing.T) {
	for name, tt := range map[string]struct {
		said  string
		what  string
		all   bool
		grpc  bool
		layer string
	}{
		"nothing is said":   {said: `{"maintenance.message": "soon"}`},
		"it is off":         {said: `{"maintenance.enabled": false}`},
		"the whole service": {said: `{"maintenance.enabled": true}`, what: "nginx itself answers its requests, because of maintenance.enabled in lb/service/x", all: true},
		"the whole service, as a path says too": {said: `{"maintenance.enabled": true, "paths": {"/a": {"maintenance.enabled": true}}}`,
			what: "nginx itself answers its requests, because of maintenance.enabled in lb/service/x", all: true},
		"all but a path": {said: `{"maintenance.enabled": true, "paths": {"/a": {"maintenance.enabled": false}, "/b": {"timeout.read": "1s"}}}`,
			what: "nginx itself answers its requests, but for those of /a, because of maintenance.enabled in lb/service/x"},
		"paths": {said: `{"paths": {"/a": {"maintenance.enabled": true}, "/b": {"maintenance.enabled": true}, "/a/x": {"timeout.read": "1s"}}}`,
			what: "nginx itself answers its requests for /a, /b, because of maintenance.enabled in metadata", layer: SourceMetadata},
		"a path that gRPC can't have": {said: `{"paths": {"/a/b/c": {"maintenance.enabled": true}}}`, grpc: true},
	} {
		t.Run(name, func(t *testing.T) {
			family, source := HTTP, "lb/service/x"
			if tt.grpc {
				family = GRPC
			}
			if tt.layer != "" {
				source = tt.layer
			}
			c := Resolve(layer(t, source, tt.said)).Closure(family)
			assert.Equal(t, tt.all, c.All())
			if tt.what == "" {
				assert.Nil(t, c)
			} else if assert.NotNil(t, c) {
				assert.Equal(t, tt.what, c.String())
			}
		})
	}
}
