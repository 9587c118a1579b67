package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// How long the answers about lbctl itself and about nginx may take.
const (
	livePatience  = 5 * time.Second
	readyPatience = 2 * time.Second
)

// live reports whether lbctl works: somebody who starts programs may start it again if it doesn't.
// nginx and Consul may be away: a new lbctl would change nothing about that.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), livePatience)
	defer cancel()
	read := make(chan struct{})
	go func() {
		s.Controller.Status(ctx) // reads the state of all parts, under their locks
		close(read)
	}()
	select {
	case <-read:
		writeHealth(w, r, "state", "lbctl works", nil)
	case <-ctx.Done():
		writeHealth(w, r, "state", "", errors.New("lbctl does not work: its state can't be read"))
	}
}

// ready reports whether nginx answers, whatever generation it serves. It is for
// Consul's check of nginx and for a container's health check.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyPatience)
	defer cancel()
	number, err := s.Generations.Serving(ctx)
	writeHealth(w, r, "nginx", fmt.Sprintf("nginx serves generation %d", number), err)
}

// writeHealth writes the result of a check as a line, or with the query ?verbose as Kubernetes does.
func writeHealth(w http.ResponseWriter, r *http.Request, check, good string, err error) {
	status, line, mark, result := http.StatusOK, good, "[+]"+check+" ok", "passed"
	if err != nil {
		status, line, mark, result = http.StatusServiceUnavailable, err.Error(), "[-]"+check+" failed", "failed"
	}
	if r.URL.Query().Has("verbose") {
		line = fmt.Sprintf("%s: %s\n%s check %s", mark, line, strings.TrimPrefix(r.URL.Path, "/"), result)
	}
	writeLine(w, status, line)
}
