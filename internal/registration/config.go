package registration

import (
	"time"

	"github.com/hashicorp/consul/api"
)

// Config is a complete, valid configuration. [Parse] makes one.
type Config struct {
	// Name is the service's name in Consul, Port the one the server listens on.
	Name string
	Port int
	// ID tells the instance from the others of its service.
	ID string
	// Address is what callers should use. Empty leaves it to Consul, which
	// takes its node's, when the agent runs on this machine; with an agent
	// elsewhere it is the address this machine reaches the agent from.
	Address string
	Tags    []string
	Meta    map[string]string
	// Weights are the instance's share of the traffic while it is passing and
	// while it is in warning.
	Weights api.AgentWeights

	Check Check

	// Drain is how long the server serves on after it has left the rotation.
	Drain time.Duration
	// StopTimeout is how long a child may take from SIGTERM to its end before
	// it is killed.
	StopTimeout time.Duration
	// ReadyTimeout is how long to wait for a starting server to answer its
	// health check before it is registered as critical.
	ReadyTimeout time.Duration

	// ConsulAddr is the agent: "host:port", a URL, which may have a user and a
	// password, or "unix:///path". Token, TLS and namespace come from Consul's
	// CONSUL_* environment variables.
	ConsulAddr string
	// Attempts is how often the first registration is tried, AttemptDelay the
	// pause between two attempts.
	Attempts     int
	AttemptDelay time.Duration
}
