package demoserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"lbctl/protos"
)

// errCutOff means that the server stopped, but some calls in flight did not end in time.
var errCutOff = errors.New("calls in flight were cut off")

// serve answers calls on l until ctx is done. Then it reports NOT_SERVING, waits for the
// notice, stops gracefully, and after the drain cuts off the rest. It closes l. The error is
// nil if every call got its answer, and errCutOff if some did not. Otherwise it says why
// serving ended before ctx was done. metrics is where Prometheus comes, or nil.
func serve(ctx context.Context, l, metrics net.Listener, cfg config, logger *slog.Logger, opts ...grpc.ServerOption) error {
	calls := &accessLog{logger: logger, metrics: newCallMetrics()}
	server := grpc.NewServer(append(opts,
		grpc.UnaryInterceptor(calls.unary),
		grpc.StreamInterceptor(calls.stream),
		grpc.UnknownServiceHandler(unknown), // so that a misrouted call is in the log too
		grpc.WaitForHandlers(true),          // Stop returns after the last call's log line
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			// gRPC's default, a ping in 5 minutes, closes the connections of balancers that
			// probe them.
			MinTime:             time.Second,
			PermitWithoutStream: true,
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			// nginx closes a connection on a ping. It drops idle connections after a minute,
			// so this time is long enough that they get none.
			Time:    2 * time.Minute,
			Timeout: 20 * time.Second,
		}),
	)...)
	health := newHealthServer("", protos.Ping_ServiceDesc.ServiceName)
	protos.RegisterPingServer(server, &pingServer{name: cfg.name, delay: cfg.delay})
	healthpb.RegisterHealthServer(server, health)
	reflection.Register(server)
	calls.metrics.know(server)
	if metrics != nil {
		defer metrics.Close()
		go calls.metrics.serve(metrics, logger)
		logger.Info("serving metrics", "address", metrics.Addr().String())
	}

	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	logger.Info("serving", "address", l.Addr().String(), "name", cfg.name)

	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	logger.Info("stopping", "notice", cfg.notice, "drain", cfg.drain, "in_flight", calls.inFlight.Load())
	health.Shutdown()
	time.Sleep(cfg.notice)
	health.endWatches() // the graceful stop would wait for them
	err := stop(server, cfg.drain, calls, logger)
	<-served
	logger.Info("stopped")
	return err
}

// stop stops the server gracefully, and by force after the drain.
func stop(server *grpc.Server, drain time.Duration, calls *accessLog, logger *slog.Logger) error {
	stopped := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(stopped)
	}()
	timer := time.NewTimer(drain)
	defer timer.Stop()
	select {
	case <-stopped:
		return nil
	case <-timer.C:
	}
	inFlight := calls.inFlight.Load()
	server.Stop()
	<-stopped
	if inFlight == 0 {
		return nil // only idle connections were left
	}
	logger.Warn("calls cut off", "calls", inFlight, "drain", drain)
	return errCutOff
}

// unknown answers calls of unknown services and methods.
func unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return status.Errorf(codes.Unimplemented, "grpc_server has no method %s", method)
}
