package health

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"
)

// Whoever watches learns that lbctl ends, and that this is no error of the balancer.
func TestWatchesEndWithLbctl(t *testing.T) {
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		return l
	}
	c := &catalog{}
	c.set()
	overGRPC := listen()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	s := &Server{Table: c, Controller: c, Prober: &prober{}, Logger: slog.New(slog.DiscardHandler), Leaving: stays}
	go func() { ended <- s.Run(ctx, listen(), overGRPC) }()
	conn, err := grpc.NewClient(overGRPC.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	patience, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	watch, err := healthpb.NewHealthClient(conn).Watch(patience, &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	answer, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, serving, answer.Status)
	stop()
	_, err = watch.Recv()
	assert.Equal(t, codes.Unavailable, grpcstatus.Code(err), "%v", err)
	assert.ErrorContains(t, err, "lbctl ends")
	assert.ErrorIs(t, <-ended, context.Canceled)
}
