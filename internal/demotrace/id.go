package demotrace

import (
	"context"
	"strings"
	"sync"

	oteltrace "go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
)

// ID is the id of a call's trace, in hexadecimal digits.
type ID struct {
	mu  sync.Mutex
	own string
}

type idKey struct{}

// WithID returns a context for a call that has the ID set.
func WithID(ctx context.Context, id *ID) context.Context { return context.WithValue(ctx, idKey{}, id) }

func (i *ID) set(ctx context.Context) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.own = oteltrace.SpanContextFromContext(ctx).TraceID().String()
}

// Or returns the id. If the client itself takes no part in traces, it is the one that a balancer
// says in the metadata of an answer, "" if there is none.
func (i *ID) Or(answers ...metadata.MD) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.own != "" {
		return i.own
	}
	for _, parent := range metadata.Join(answers...).Get("traceparent") {
		if parts := strings.Split(parent, "-"); len(parts) == 4 {
			return parts[1]
		}
	}
	return ""
}
