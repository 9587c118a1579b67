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

// errCutOff says that the server stopped as asked, but not every call in
// flight was over in time.
var errCutOff = errors.New("calls in flight were cut off")

// serve answers calls on l until ctx is done, then stops: NOT_SERVING, notice,
// graceful stop, and after the drain period a hard one. It closes l. The error
// is nil when every call got its answer, errCutOff when some did not, and
// otherwise says why serving ended by itself.
func serve(ctx context.Context, l net.Listener, cfg config, logger *slog.Logger) error {
	calls := &accessLog{logger: logger}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(calls.unary),
		grpc.StreamInterceptor(calls.stream),
		grpc.UnknownServiceHandler(unknown), // so that a misrouted call is in the log too
		grpc.WaitForHandlers(true),          // Stop returns after the last call's log line
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			// gRPC's own limit, a ping per 5 minutes, hangs up on balancers
			// that probe their connections.
			MinTime:             time.Second,
			PermitWithoutStream: true,
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			// Long enough to never reach nginx's idle connections, which nginx
			// drops after a minute: it would close them on a ping.
			Time:    2 * time.Minute,
			Timeout: 20 * time.Second,
		}),
	)
	health := newHealthServer("", protos.Ping_ServiceDesc.ServiceName)
	protos.RegisterPingServer(server, &pingServer{name: cfg.name, delay: cfg.delay})
	healthpb.RegisterHealthServer(server, health)
	reflection.Register(server)

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
	health.endWatches() // they have no end of their own: the graceful stop would wait for them
	err := stop(server, cfg.drain, calls, logger)
	<-served
	logger.Info("stopped")
	return err
}

// stop ends the server gracefully within the drain period, else by force.
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

// unknown answers calls of services and methods that are not here.
func unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return status.Errorf(codes.Unimplemented, "grpc_server has no method %s", method)
}
