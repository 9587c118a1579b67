package requestlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"lbctl/internal/history"
)

// The limits of an answer.
const (
	// DefaultLimit is how many lines a client gets that says no limit.
	DefaultLimit = 100
	// MaxLimit is how many it can ask for.
	MaxLimit = 100_000

	maxFollowers = 32
	// heartbeat is how often a client that follows gets at least an empty line: so it knows that
	// the daemon is there, and the daemon that the client is.
	heartbeat = 10 * time.Second
	// stuck is how long a client may take nothing, such as a pager, before its connection ends.
	stuck = 5 * time.Minute
)

// NoteHeader is the header of an answer with Options.Note.
const NoteHeader = "Lbctl-Note"

// The parameters of a query besides those of a Filter.
const (
	ParamLimit  = "limit"
	ParamFollow = "follow"
)

// ServeHTTP answers 'GET /v1/logs' with the last lines that match the filter, one JSON object per
// line, and with follow=1 also those to come. It does so over a unix socket only: the lines say
// what clients do, which is not for everyone on the machine.
func (l *Log) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if address, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); !ok || address.Network() != "unix" {
		refuse(w, http.StatusForbidden, errors.New("the log of requests says what clients do, and is not for everyone who can reach this address: "+
			"it needs the daemon's unix socket, so run the command on the daemon's machine as root or the daemon's user; "+
			"if the daemon is in a container, run it there (docker-compose exec load-balancer lbctl logs)"))
		return
	}
	q := r.URL.Query()
	filter, err := parseFilter(q)
	limit := DefaultLimit
	if given := q.Get(ParamLimit); given != "" && err == nil {
		if limit, err = strconv.Atoi(given); err != nil || limit < 0 || limit > MaxLimit {
			err = fmt.Errorf("%s %q: want a whole number from 0 to %d", ParamLimit, given, MaxLimit)
		}
	}
	follow := false
	if given := q.Get(ParamFollow); given != "" && err == nil {
		if follow, err = strconv.ParseBool(given); err != nil {
			err = fmt.Errorf("%s %q: want 1 or 0", ParamFollow, given)
		}
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if follow && l.followers.Add(1) > maxFollowers {
		l.followers.Add(-1)
		refuse(w, http.StatusServiceUnavailable, fmt.Errorf("%d clients follow the log already, which is the most", maxFollowers))
		return
	}
	if follow {
		defer l.followers.Add(-1)
	}
	f := &follower{log: l, filter: &filter, to: w, control: http.NewResponseController(w)}
	f.serve(r, limit, follow)
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the client has left
}

// follower is a client that gets lines.
type follower struct {
	log     *Log
	filter  *Filter
	to      http.ResponseWriter
	control *http.ResponseController

	at      cursor
	known   []history.Event // some of them may come again
	request request
	lines   []byte
}

func (f *follower) serve(r *http.Request, limit int, follow bool) {
	items, end, known := f.log.last(f.filter, limit)
	f.at, f.known = end, known
	f.to.Header().Set("Content-Type", "application/x-ndjson")
	if f.log.opts.Note != "" {
		f.to.Header().Set(NoteHeader, f.log.opts.Note)
	}
	f.to.WriteHeader(http.StatusOK)
	for n := range items {
		f.lines = items[n].appendTo(f.lines, &f.request)
		items[n] = item{}
		if len(f.lines) >= readSize && !f.flush() {
			return
		}
	}
	if !f.flush() || !follow {
		return
	}
	f.follow(r)
}

// flush sends the lines. It reports false if the client is gone.
func (f *follower) flush() bool {
	_ = f.control.SetWriteDeadline(time.Now().Add(stuck))
	_, err := f.to.Write(f.lines)
	f.lines = f.lines[:0]
	return err == nil && f.control.Flush() == nil
}

// follow sends the lines to come, until the client or the daemon ends.
func (f *follower) follow(r *http.Request) {
	chunk := make([]byte, readSize)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		found, missed, wait := f.log.read(&f.at, chunk)
		if missed > 0 {
			f.lines = append(append(f.lines, droppedJSON(time.Now().UTC(), missed)...), '\n')
		}
		f.add(found)
		if len(f.lines) > 0 && !f.flush() {
			return
		}
		if wait == nil {
			continue
		}
		select {
		case <-wait:
			if !sleep(r.Context(), gather) {
				return
			}
		case <-beat.C:
			f.lines = append(f.lines, '\n')
		case <-f.log.done:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// add makes the lines of the entries in a chunk that match.
func (f *follower) add(chunk []byte) {
	for {
		entry, rest, ok := f.at.cut(chunk)
		if !ok {
			return
		}
		chunk = rest
		switch {
		case entry[0] == entryEvent:
			f.addEvent(entry[1:])
		case f.filter.wantsRequests():
			if f.request.decode(entry); f.filter.matches(&f.request) {
				f.lines = appendJSON(f.lines, &f.request, 0)
			}
		}
	}
}

// addEvent makes the line of an event that matches, and was not among those that were known.
func (f *follower) addEvent(line []byte) {
	var l Line
	if !f.filter.wantsEvents() || json.Unmarshal(line, &l) != nil || l.Event == nil {
		return
	}
	e := l.event()
	same := func(known history.Event) bool {
		return known.Time.Equal(e.Time) && known.Kind == e.Kind && known.Change == e.Change
	}
	if f.filter.matchesEvent(&e) && !slices.ContainsFunc(f.known, same) {
		f.lines = append(append(f.lines, line...), '\n')
	}
}
