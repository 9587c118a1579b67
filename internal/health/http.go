package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// answerPatience bounds an answer, with the probes that it may need.
const answerPatience = 3 * time.Second

// ServeHTTP answers GET requests for the health of all services, or of those that the query names
// by service=NAME: 200 if they are well, 503 if not. nginx decides which path leads here.
func (r *reporter) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	if request.Method != http.MethodGet && request.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		writeError(w, http.StatusMethodNotAllowed, fmt.Errorf("the health of the services takes GET, not %s", request.Method))
		return
	}
	ctx, cancel := context.WithTimeout(request.Context(), answerPatience)
	defer cancel()
	found, err := r.report(ctx)
	if errors.Is(err, errHidden) {
		writeError(w, http.StatusNotFound, err)
		return
	}
	if err != nil {
		writeError(w, http.StatusServiceUnavailable, err)
		return
	}
	text, well := found.text, found.well
	query, err := url.ParseQuery(request.URL.RawQuery)
	if err != nil { // without this a name that can't be read would mean all services
		writeError(w, http.StatusBadRequest, fmt.Errorf("query %.100q: %w, want service=NAME", request.URL.RawQuery, err))
		return
	}
	if names := query["service"]; len(names) > 0 {
		if text, well, err = found.only(names); err != nil {
			writeError(w, http.StatusNotFound, err)
			return
		}
	}
	if !well {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(text) // a client that is gone
}

// only returns the part of a report about some services.
func (r *report) only(names []string) (text []byte, well bool, err error) {
	part := make(map[string]Service, len(names))
	well = true
	for _, name := range names {
		s, ok := r.services[name]
		if !ok {
			return nil, false, fmt.Errorf("there is no service %.100q", name)
		}
		part[name] = s
		well = well && s.well()
	}
	if text, err = json.Marshal(part); err != nil {
		return nil, false, err
	}
	return append(text, '\n'), well, nil
}

func writeError(w http.ResponseWriter, status int, err error) {
	text, marshalErr := json.Marshal(map[string]string{"error": err.Error()})
	if marshalErr != nil {
		text = []byte(`{"error":"the error can't be written as JSON"}`)
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a client that is gone
}
