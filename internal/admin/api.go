// Package admin is the daemon's HTTP API and its client, which lbctl's commands
// use. The API on the unix socket can query and control the daemon; on TCP it is
// read-only.
package admin

import (
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/policy"
)

// DefaultPort is the default TCP port of the API, and DefaultAddress its default
// address.
const (
	DefaultPort    = 9119
	DefaultAddress = "127.0.0.1:9119"
)

// The types below are the JSON of the API and of lbctl's -o json, as are
// controller.Status and history.Event. docs/cli.md promises their fields.

// A Service is a balanced service: its routes and its instances.
type Service struct {
	Name     string             `json:"name"`
	Protocol endpoints.Protocol `json:"protocol"` // "" if unknown: the service is not served then
	Routes   []endpoints.Route  `json:"routes"`
	Port     int                `json:"port,omitempty"` // tcp only: the port on which nginx listens
	Default  bool               `json:"default"`        // gets all requests that match no route of its protocol
	State    endpoints.State    `json:"state"`
	// Reason says why State isn't fresh.
	Reason     string    `json:"reason,omitempty"`
	Since      time.Time `json:"since"`       // of State
	InRotation int       `json:"in_rotation"` // instances that get traffic, held ones included
	Registered int       `json:"registered"`  // instances Consul knows
	// LackingGeneration is the pinned generation if it doesn't have the service; 0 otherwise.
	LackingGeneration int `json:"lacking_generation,omitempty"`
	// Maintenance says which requests nginx answers itself, because the policy says that the
	// service is in maintenance; nil if none. Its instances stay in rotation.
	Maintenance *policy.Closure `json:"maintenance,omitempty"`
	Problems    []string        `json:"problems"`
	Instances   []Instance      `json:"instances"`
}

// An Instance is one server of a service.
type Instance struct {
	endpoints.Instance
	InRotation bool `json:"in_rotation"`
	// Held: it vanished from Consul's catalog, and lbctl keeps it in rotation.
	Held bool `json:"held"`
	// Ejected: lbctl has taken it out of rotation at EjectedSince, though Consul's
	// checks pass.
	Ejected      bool      `json:"ejected"`
	EjectedSince time.Time `json:"ejected_since,omitzero"`
	// EjectedUntil is when the ejection ends; zero if it lasts until a probe passes.
	EjectedUntil time.Time `json:"ejected_until,omitzero"`
	// Reason says why it gets no traffic, why it gets less than its weight, or why it
	// gets traffic though it vanished, a check is critical, or lbctl would eject it.
	Reason string `json:"reason,omitempty"`
}

// A Generation is one configuration on disk. Files is set only in the answer for a
// single generation.
type Generation struct {
	nginx.Generation
	Current bool              `json:"current"`
	Files   map[string]string `json:"files,omitempty"`
}

// A Diff is the difference between two generations, file by file.
type Diff struct {
	From  int        `json:"from"`
	To    int        `json:"to"`
	Files []FileDiff `json:"files"` // the files that differ, sorted by name
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
	Generation int `json:"generation"` // 0: the one before the current one
}

// A Rolled is the result of a rollback.
type Rolled struct {
	From       int        `json:"from"` // the generation that was current before
	Generation Generation `json:"generation"`
}

// A Resumed is the result of a resume.
type Resumed struct {
	// Frozen is the generation that was pinned, 0 when none was.
	Frozen int `json:"frozen"`
}

// An AcceptRequest is the body of POST /v1/accept.
type AcceptRequest struct {
	Service string `json:"service,omitempty"` // "": all
}

// An Accepted is the result of an accept.
type Accepted struct {
	Released int `json:"released"` // held instances removed from rotation
}

type errorAnswer struct {
	Error string `json:"error"`
}
