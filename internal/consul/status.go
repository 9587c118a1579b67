package consul

import "time"

// Status is the state of Consul.
type Status struct {
	Address string `json:"address"` // "127.0.0.1:8500"
	// Reachable is whether the agent answers.
	Reachable bool `json:"reachable"`
	// Leader is the leading server's address, empty if there is none: Consul then answers
	// from memory, and accepts no changes.
	Leader string `json:"leader,omitempty"`
	// Refused is whether Consul refuses the token or the certificate.
	Refused bool `json:"refused,omitempty"`
	// Since is when this status began.
	Since time.Time `json:"since,omitzero"`
	// Contact is when Consul, with a leader, last answered; zero before the first time.
	Contact time.Time `json:"contact,omitzero"`
	// LastError is the problem; empty if there is none.
	LastError string `json:"last_error,omitempty"`
}

// Up reports whether the agent answers and there is a leader.
func (s Status) Up() bool { return s.Reachable && s.Leader != "" }
