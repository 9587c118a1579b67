# An agent beside a service, or the one with the UI. It leaves when it is
# stopped, so that what ran there is gone from the catalog at once.
server             = false
leave_on_terminate = true
rejoin_after_leave = true

# A container that was killed never comes back under its name: forget it soon.
advertise_reconnect_timeout = "15m"

# A change is asked for at the leader. Streamed from one of the others it comes up
# to 0.1 s later: they learn what is committed with the leader's next message.
use_streaming_backend = false

ports {
  dns = -1 # nobody asks
}

performance {
  leave_drain_time = "500ms" # of use to servers only, and the agent exits that much later
}
