# An agent beside a service, or the one with the UI. It leaves when it is stopped,
# so that its services are gone from the catalog at once.
server             = false
leave_on_terminate = true
rejoin_after_leave = true

# A container that was killed never comes back under its name: forget it soon.
advertise_reconnect_timeout = "15m"

# The agent asks the leader for changes. Other servers stream them up to 0.1 s later:
# they learn of a commit with the leader's next message.
use_streaming_backend = false

ports {
  dns = -1 # not used
}

performance {
  leave_drain_time = "500ms" # only servers need it, and the agent exits that much later
}

# For Prometheus (docker-compose.observability.yaml).
telemetry {
  prometheus_retention_time = "2m"
  disable_hostname          = true
}
