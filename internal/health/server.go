package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
)

// Limits of the sockets. Only nginx connects to them, as its clients want.
const (
	maxHTTPConns  = 200
	maxGRPCConns  = maxWatches + 200 // each call has a connection of its own
	maxGRPCHeader = 256 << 10        // nginx passes on all headers of a call
	maxMessage    = 4 << 10
	httpTimeout   = 10 * time.Second
	httpIdle      = 5 * time.Minute // nginx keeps its connections for a minute
	connBuffer    = 4 << 10
	// pingInterval is how often a connection without messages gets a ping, so that nginx does not
	// take a watch without changes for one that hangs: see templates/partials/health.ctmpl.
	pingInterval = 4 * time.Second
	// pingPatience is how long nginx may take for its answer to a ping.
	pingPatience = 20 * time.Second
	// stopPatience is how long calls may go on when lbctl ends.
	stopPatience = time.Second
)

// A Server answers clients of the balancer that ask for the health of services. All fields are
// required.
type Server struct {
	Table      Table
	Controller Controller
	Prober     Prober
	Logger     *slog.Logger
	// Leaving reports whether a process is a worker of nginx that ends as soon as its connections
	// do. It must not stay for those that watch the health of a service.
	Leaving func(pid int) bool
}

// Run answers HTTP requests and gRPC calls, each on its listener, until ctx is done, and returns
// ctx's error then. It closes the listeners.
func (s *Server) Run(ctx context.Context, overHTTP, overGRPC net.Listener) error {
	m := &monitor{table: s.Table, controller: s.Controller}
	group, ctx := errgroup.WithContext(ctx)
	web := &http.Server{
		Handler:           newReporter(m, s.Prober),
		ReadHeaderTimeout: httpTimeout,
		ReadTimeout:       httpTimeout,
		WriteTimeout:      httpTimeout,
		IdleTimeout:       httpIdle,
		ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
	}
	group.Go(func() error { return unlessStopped("HTTP", web.Serve(netutil.LimitListener(overHTTP, maxHTTPConns))) })
	health := newHealthServer(m, s.Leaving)
	calls := grpc.NewServer(grpc.MaxHeaderListSize(maxGRPCHeader), grpc.MaxRecvMsgSize(maxMessage),
		grpc.ReadBufferSize(connBuffer), grpc.WriteBufferSize(connBuffer),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingInterval, Timeout: pingPatience}))
	healthpb.RegisterHealthServer(calls, health)
	group.Go(func() error {
		return unlessStopped("gRPC", calls.Serve(netutil.LimitListener(workerListener{overGRPC}, maxGRPCConns)))
	})
	group.Go(func() error { return health.run(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		close(health.stopped) // a watch that is broken off would end with INTERNAL
		late := time.AfterFunc(stopPatience, calls.Stop)
		defer late.Stop()
		calls.GracefulStop()
		return errors.Join(ctx.Err(), web.Close())
	})
	return group.Wait()
}

func unlessStopped(what string, err error) error {
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("answer clients about the health of services by %s: %w", what, err)
}
