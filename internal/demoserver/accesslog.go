package demoserver

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// accessLog logs each call at its end, and counts calls. It logs calls of the
// health and reflection services at debug, because balancers and registrars make one every few
// seconds.
type accessLog struct {
	logger   *slog.Logger
	metrics  *callMetrics
	inFlight atomic.Int64
}

func (a *accessLog) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	done := a.begin(ctx, info.FullMethod)
	res, err := handler(ctx, req)
	done(err)
	return res, err
}

func (a *accessLog) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	done := a.begin(stream.Context(), info.FullMethod)
	counted := &countedStream{ServerStream: stream}
	err := handler(srv, counted)
	done(err, slog.Int64("received", counted.received.Load()), slog.Int64("sent", counted.sent.Load()))
	return err
}

// begin counts a call, and returns the function that ends and logs it.
func (a *accessLog) begin(ctx context.Context, method string) func(error, ...slog.Attr) {
	start := time.Now()
	a.inFlight.Add(1)
	end := a.metrics.begin(method)
	return func(err error, more ...slog.Attr) {
		a.inFlight.Add(-1)
		end(code.Code(status.Code(err)).String())
		level := slog.LevelInfo
		if strings.HasPrefix(method, "/"+healthpb.Health_ServiceDesc.ServiceName+"/") || strings.HasPrefix(method, "/grpc.reflection.") {
			level = slog.LevelDebug
		}
		if !a.logger.Enabled(ctx, level) {
			return
		}
		attrs := append([]slog.Attr{
			slog.String("method", method),
			slog.String("peer", peerAddress(ctx)),
			slog.String("code", code.Code(status.Code(err)).String()),
			slog.Duration("took", time.Since(start)),
		}, more...)
		// Behind a balancer, the peer is the balancer, and this is the address of its client.
		if from := metadata.ValueFromIncomingContext(ctx, "x-forwarded-for"); len(from) > 0 {
			attrs = append(attrs, slog.String("forwarded_for", strings.Join(from, ", ")))
		}
		if err != nil {
			attrs = append(attrs, slog.String("error", status.Convert(err).Message()))
		}
		a.logger.LogAttrs(ctx, level, "call", attrs...)
	}
}

func peerAddress(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

// countedStream counts the messages of a stream. A handler may send and receive in two
// goroutines.
type countedStream struct {
	grpc.ServerStream
	received, sent atomic.Int64
}

func (s *countedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.received.Add(1)
	}
	return err
}

func (s *countedStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil {
		s.sent.Add(1)
	}
	return err
}
