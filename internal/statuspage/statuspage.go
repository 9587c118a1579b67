// Package statuspage serves lbctl's page for people, and the feed of events that keeps it up to
// date without reloading.
//
// The page is one document, with its style and script in it: it asks for nothing but the feed
// (GET /v1/events), the instances of services that are open (GET /v1/recent), and the difference
// between generations (GET /v1/diff, of package admin).
//
// The feed is made once for all who watch, and not at all while nobody does.
package statuspage

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/admin"
	"lbctl/internal/controller"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/traffic"
)

// A Source is where the page has its facts from. Its functions are called one after the other, and
// only while somebody watches. Status, Services and History are required.
type Source struct {
	Status   func(context.Context) controller.Status
	Services func() []admin.Service // sorted by name
	History  func() []history.Event // the newest first
	// Connections are those of nginx; default none.
	Connections func(context.Context) (nginx.Connections, error)
	// Recent has the figures of requests; default none.
	Recent func() traffic.Overview
	// InFlight has the requests that have begun and not ended, by service; default, and if it returns
	// nil, they are not counted.
	InFlight func() map[string]int64
	// Log says how lbctl gets on with reading the access log, which Recent is made of; default: well.
	Log func() accesslog.Stats
	// LastErrors returns the last error of each of a service's instances by endpoint; default none.
	LastErrors func(service string) map[string]LastError
	// NoFigures says why there are no figures of requests, and how to get them; empty if there are.
	NoFigures string
}

// LastError is what the last failed request to an instance was.
type LastError struct {
	What string    `json:"what"`
	At   time.Time `json:"at"`
}

// Options are what a Page needs. Source and Logger are required.
type Options struct {
	Source Source
	// Node is the name of the machine, for people with several balancers.
	Node string
	// Interval is the time between two looks at the source; default 2 s.
	Interval time.Duration
	// MaxWatchers bounds who can follow the feed at a time; default 64.
	MaxWatchers int
	// WriteTimeout is how long one who watches may take to receive what is written; default 10 s.
	WriteTimeout time.Duration
	Logger       *slog.Logger
}

// The defaults of Options.
const (
	DefaultInterval     = 2 * time.Second
	DefaultMaxWatchers  = 64
	DefaultWriteTimeout = 10 * time.Second
)

// Page is the page with its feed.
type Page struct {
	opts     Options
	feed     *feed
	document document
}

// New makes a page. Nobody can watch it before Run.
func New(opts Options) *Page {
	if opts.Interval == 0 {
		opts.Interval = DefaultInterval
	}
	if opts.MaxWatchers == 0 {
		opts.MaxWatchers = DefaultMaxWatchers
	}
	if opts.WriteTimeout == 0 {
		opts.WriteTimeout = DefaultWriteTimeout
	}
	return &Page{opts: opts, feed: newFeed(opts), document: newDocument()}
}

// Handlers returns the page's handlers by pattern of http.ServeMux, for admin.Server.
func (p *Page) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /{$}":       ownOnly(http.HandlerFunc(p.document.serve)),
		"GET /v1/events": ownOnly(http.HandlerFunc(p.events)),
		"GET /v1/recent": ownOnly(http.HandlerFunc(p.recent)),
	}
}

// Run makes the feed until ctx is done. Those who watch are told then that lbctl ends.
func (p *Page) Run(ctx context.Context) error {
	p.feed.run(ctx)
	return nil
}

// ownOnly refuses requests that a page of another origin makes through a browser. It could read no
// answer, but would hold the place of one who watches. Navigation is fine: a link may lead here.
func ownOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		if site != "" && site != "same-origin" && site != "none" && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
			writeError(w, http.StatusForbidden, "a page of another origin asked for this, want lbctl's own page or a program")
			return
		}
		next.ServeHTTP(w, r)
	})
}
