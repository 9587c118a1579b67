# The settings that all agents of the cluster share.
datacenter         = "dc1"
log_level          = "WARN"
disable_update_check = true

# LAN gossip tuned for one site: a killed agent is noticed in 0.8 s, not in 6.5.
gossip_lan {
  probe_interval  = "200ms"
  probe_timeout   = "100ms"
  suspicion_mult  = 2
  gossip_interval = "100ms"
}

# lbctl holds a connection for each service. Consul's default is 200.
limits {
  http_max_conns_per_client = 4096
}

retry_interval = "1s"
retry_max      = 0 # for ever
