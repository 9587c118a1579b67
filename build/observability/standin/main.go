// Standin is a small replacement for parts of docker-compose.observability.yaml, for machines on
// which no registry answers: build/base/observability.sh puts it into images under the names of
// the public ones.
//
//	standin prometheus [FLAG...]  Debian's Prometheus, which can't ask Consul, with Consul's catalog
//	standin grafana               the dashboards of Grafana's provisioning, to look at
//	standin traces                a trace store with the first needs of Jaeger's: OTLP, search, spans
//
// Each says on its pages that it is a stand-in. What they read and answer has the form of the
// programs that they stand for, so that the same compose file and tests work with both.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var err error
	switch arg(1) {
	case "prometheus":
		os.Exit(runPrometheus(os.Args[2:]))
	case "grafana":
		err = runGrafana(ctx)
	case "traces":
		err = runTraces(ctx)
	default:
		fmt.Fprintln(os.Stderr, "usage: standin prometheus [FLAG...] | grafana | traces")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func arg(n int) string {
	if n < len(os.Args) {
		return os.Args[n]
	}
	return ""
}

// serve answers HTTP until ctx ends.
func serve(ctx context.Context, address string, handler http.Handler) error {
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
