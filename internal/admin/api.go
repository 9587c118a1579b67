// Package admin is the daemon's HTTP API and its client, which lbctl's commands
// use. Over its unix socket the daemon can be asked and told; over TCP it can
// only be asked.
package admin

import (
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
)

// DefaultPort is the TCP port of the API, and DefaultAddress where it listens
// unless told otherwise.
const (
	DefaultPort    = 9119
	DefaultAddress = "127.0.0.1:9119"
)

// The types below are the JSON of the API and of lbctl's -o json, as are
// controller.Status and controller.Event. docs/cli.md promises their fields.

// A Service is a balanced service: what comes to it, and who serves it.
type Service struct {
	Name     string             `json:"name"`
	Protocol endpoints.Protocol `json:"protocol"` // "" when it isn't known: nothing is served then
	Routes   []endpoints.Route  `json:"routes"`
	Port     int                `json:"port,omitempty"` // tcp: where the balancer listens
	Default  bool               `json:"default"`        // gets what no route of its protocol matches
	State    endpoints.State    `json:"state"`
	// Reason says why State isn't fresh.
	Reason     string     `json:"reason,omitempty"`
	Since      time.Time  `json:"since"`       // of State
	InRotation int        `json:"in_rotation"` // instances that get traffic, held ones included
	Registered int        `json:"registered"`  // instances Consul knows
	Problems   []string   `json:"problems"`
	Instances  []Instance `json:"instances"`
}

// An Instance is one server of a service.
type Instance struct {
	endpoints.Instance
	InRotation bool `json:"in_rotation"`
	// Held: it vanished from Consul's catalog and is kept in rotation.
	Held bool `json:"held"`
	// Ejected: Consul has it in rotation and lbctl does not, since EjectedSince.
	Ejected      bool      `json:"ejected"`
	EjectedSince time.Time `json:"ejected_since,omitzero"`
	// Reason says why it gets no traffic, or less than its weight, or gets some
	// though it vanished or something else is known against it.
	Reason string `json:"reason,omitempty"`
}

// A Generation is one configuration that nginx was given. Files are there only
// where one generation was asked for.
type Generation struct {
	nginx.Generation
	Current bool              `json:"current"`
	Files   map[string]string `json:"files,omitempty"`
}

// A Diff is what changed from one generation to another, file by file.
type Diff struct {
	From  int        `json:"from"`
	To    int        `json:"to"`
	Files []FileDiff `json:"files"` // those that differ, by name
}

// A FileDiff is one file's unified diff.
type FileDiff struct {
	Name    string `json:"name"`
	Change  string `json:"change"` // "added", "removed" or "changed"
	Added   int    `json:"added"`  // lines
	Removed int    `json:"removed"`
	Diff    string `json:"diff"`
}

// A RollbackRequest is the body of POST /v1/rollback.
type RollbackRequest struct {
	Generation int `json:"generation"` // 0: the one before the current
}

// A Rolled is what a rollback did.
type Rolled struct {
	From       int        `json:"from"` // what nginx served before
	Generation Generation `json:"generation"`
}

// A Resumed is what a resume did.
type Resumed struct {
	// Frozen is the generation that was pinned, 0 when none was.
	Frozen int `json:"frozen"`
}

// An Accepted is what an accept did.
type Accepted struct {
	Released int `json:"released"` // held instances that were let go
}

type errorAnswer struct {
	Error string `json:"error"`
}
