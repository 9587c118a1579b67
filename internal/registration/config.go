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
	// ID identifies the instance among those of its service.
	ID string
	// Address is the address for callers. If it is empty, Consul uses its node's address if
	// the agent runs on this machine; with an agent elsewhere it is the address from which
	// this machine reaches the agent.
	Address string
	Tags    []string
	Meta    map[string]string
	// Weights are the instance's weights while its status is passing, and warning.
	Weights api.AgentWeights

	// Reflection: ask a gRPC server by reflection which services it offers, and register them
	// for lbctl, unless Meta says itself where the service is routed.
	Reflection bool

	Check Check

	// Drain is how long the server keeps serving after it has left the rotation.
	Drain time.Duration
	// StopTimeout is how long the command may take to end after SIGTERM. Then it is
	// killed.
	StopTimeout time.Duration
	// ReadyTimeout is how long a starting server may take to answer its health check. Then
	// it is registered as critical.
	ReadyTimeout time.Duration

	// ConsulAddr is the agent: "host:port", a URL, which may have a user and a
	// password, or "unix:///path". Token, TLS and namespace come from Consul's
	// CONSUL_* environment variables.
	ConsulAddr string
	// Attempts is how often the first registration is tried, AttemptDelay the
	// pause between two attempts.
	Attempts     int
	AttemptDelay time.Duration

	// Metrics is where the registrar's metrics are, "address:port"; empty: nowhere. The port
	// becomes a part of the metadata, so that Prometheus finds it.
	Metrics string
}
