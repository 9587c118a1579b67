package statuspage

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"
)

// events serves the feed: first a snapshot, then what changes.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	leave, ok := p.feed.enter()
	if !ok {
		w.Header().Set("Retry-After", "10")
		writeError(w, http.StatusServiceUnavailable,
			fmt.Sprintf("%d watch already, which is the most that lbctl serves; close one of the pages", p.opts.MaxWatchers))
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // of a proxy in front
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	if p.write(control, w, []byte("retry: 2000\n\n")) != nil {
		return
	}
	for seq := 0; ; {
		frames, now, changed, ended := p.feed.since(seq)
		if err := p.write(control, w, frames...); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				p.opts.Logger.Info("a status page is disconnected, because it does not take what is written", "client", r.RemoteAddr, "waited", p.opts.WriteTimeout)
			}
			return // or the client has gone
		}
		seq = now
		if ended != "" {
			_ = p.write(control, w, event("end", seq, encode(ended)))
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// write writes and flushes, within the write timeout.
func (p *Page) write(control *http.ResponseController, w http.ResponseWriter, frames ...[]byte) error {
	if len(frames) == 0 {
		return nil
	}
	if err := control.SetWriteDeadline(time.Now().Add(p.opts.WriteTimeout)); err != nil {
		return err
	}
	for _, frame := range frames {
		if _, err := w.Write(frame); err != nil {
			return err
		}
	}
	return control.Flush()
}

func writeError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}
