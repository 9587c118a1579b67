# One of the three servers. Stopping it is a pause, not a leave: it comes back
# with its data, perhaps under another address, and is still a voter.
server                  = true
bootstrap_expect        = 3
leave_on_terminate      = false
skip_leave_on_interrupt = true

performance {
  raft_multiplier = 1 # a leader within a second or two, not ten
}

# Without this, Consul removes a stopped server. The two others are then a cluster of
# two, which loses its quorum with the next one, even after the first is back.
autopilot {
  cleanup_dead_servers = false
}
