package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
)

// serveSite serves a web site that answers with the request as it has arrived, until ctx is done.
func serveSite(ctx context.Context, args []string) error {
	listener, err := listen(ctx, args)
	if err != nil {
		return err
	}
	name, _ := os.Hostname()
	server := &http.Server{Handler: echo(name)}
	context.AfterFunc(ctx, func() { _ = server.Shutdown(context.Background()) })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func echo(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Powered-By", "shop on "+name)
		if r.URL.Path == "/health" {
			fmt.Fprintln(w, "ok")
			return
		}
		fmt.Fprintf(w, "%s %s\nHost: %s\n", r.Method, r.RequestURI, r.Host)
		for _, key := range slices.Sorted(maps.Keys(r.Header)) {
			fmt.Fprintf(w, "%s: %s\n", key, strings.Join(r.Header[key], ", "))
		}
	}
}
