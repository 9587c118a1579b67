package consultest

import (
	"fmt"
	"testing"
)

// Cluster is a cluster of Consul servers that can be stopped and started one by
// one. Server i has a loopback address of its own, 127.0.1.(i+1), and the node
// name server-(i+1).
type Cluster struct {
	// Servers are the cluster's servers, in the order of their indexes.
	Servers []*Server

	t       testing.TB
	options options
	clients int
}

// StartCluster starts n servers and waits until all of them are in the catalog.
// Their state is kept on disk: a stopped server comes back with it.
func StartCluster(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for _, opt := range opts {
		opt(&c.options)
	}
	binary := Binary(t)
	var join []string
	for i := range n {
		s := newServer(t, binary, c.options, fmt.Sprintf("server-%d", i+1), fmt.Sprintf("127.0.1.%d", i+1))
		s.settings["server"] = true
		s.settings["bootstrap_expect"] = n
		join = append(join, s.serfAddr())
		c.Servers = append(c.Servers, s)
	}
	for _, s := range c.Servers {
		s.settings["retry_join"] = join
		s.settings["retry_interval"] = "1s"
		s.Start()
	}
	c.WaitLeader()
	for _, s := range c.Servers {
		s.WaitReady()
	}
	return c
}

// StopServer ends server i with SIGTERM and waits until it has ended.
func (c *Cluster) StopServer(i int) { c.Servers[i].Stop() }

// StartServer starts server i again with the data it had, and waits until its
// HTTP API answers. Use [Cluster.WaitLeader] to wait for a quorum.
func (c *Cluster) StartServer(i int) { c.t.Helper(); c.Servers[i].Start() }

// WaitLeader waits until the running servers agree on a leader.
func (c *Cluster) WaitLeader() {
	c.t.Helper()
	Eventually(c.t, startTimeout, func() (bool, string) {
		leader := ""
		for _, s := range c.Servers {
			if s.process == nil {
				continue
			}
			seen, err := s.Client().Status().Leader()
			if err != nil {
				return false, fmt.Sprintf("ask %s for the leader: %v", s.Node, err)
			}
			if seen == "" || leader != "" && seen != leader {
				return false, fmt.Sprintf("%s sees leader %q, another one %q", s.Node, seen, leader)
			}
			leader = seen
		}
		return leader != "", "no server runs"
	})
}

// Leader is the index of the server that leads, or -1 when there is none.
func (c *Cluster) Leader() int {
	for i, s := range c.Servers {
		if s.process == nil {
			continue
		}
		stats, err := s.Client().Agent().Self()
		if err == nil && stats["Stats"]["raft"] != nil {
			if raft, ok := stats["Stats"]["raft"].(map[string]any); ok && raft["state"] == "Leader" {
				return i
			}
		}
	}
	return -1
}

// StartClient starts a client agent that joins the cluster, with the node name
// client-N and the address 127.0.1.(100+N), and waits until it is in the
// catalog. The options are added to the cluster's.
func (c *Cluster) StartClient(opts ...Option) *Server {
	c.t.Helper()
	c.clients++
	o := c.options
	for _, opt := range opts {
		opt(&o)
	}
	s := newServer(c.t, c.Servers[0].binary, o, fmt.Sprintf("client-%d", c.clients), fmt.Sprintf("127.0.1.%d", 100+c.clients))
	var join []string
	for _, server := range c.Servers {
		join = append(join, server.serfAddr())
	}
	s.settings["retry_join"] = join
	s.settings["retry_interval"] = "1s"
	s.Start()
	s.WaitReady()
	return s
}
