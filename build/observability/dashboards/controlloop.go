package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// controlLoop shows lbctl itself: from Consul's answer to nginx serving, and what they cost.
func controlLoop() *dashboard.DashboardBuilder {
	return board("lbctl-control", "lbctl: control loop", "Whether nginx serves what Consul says, how soon, and what lbctl and nginx need for it.").
		WithVariable(several(choice("node", "Load balancer", "lbctl_build_info"))).
		WithPanel(words("State", "serving: nginx serves what Consul says.",
			`max by (state) (lbctl_state{node=~"$node"}) == 1`, "{{state}}")).
		WithPanel(yesNo("nginx", "Whether nginx answers lbctl, on all chosen load balancers.", `min(lbctl_nginx_up{node=~"$node"})`, 1, "up", "down")).
		WithPanel(yesNo("Consul", "Whether Consul answers lbctl and has a leader.", `min(lbctl_consul_up{node=~"$node"})`, 1, "up", "down")).
		WithPanel(yesNo("Pinned", "Whether an operator's rollback is served.", `max(lbctl_frozen{node=~"$node"})`, 0, "yes", "no")).
		WithPanel(number("Generation", "The configuration that nginx serves.", count, `max(lbctl_generation{node=~"$node"})`, 0, 0)).
		WithPanel(number("Problems", "Values in Consul, policies, certificates or templates that lbctl leaves out.", count, `max(lbctl_problems{node=~"$node"})`, 1, 10)).
		WithRow(dashboard.NewRowBuilder("From Consul to nginx")).
		WithPanel(graph("Convergence", "From Consul's answer to nginx serving it.", seconds,
			query{`histogram_quantile(0.5, sum by (delivery, le) (rate(lbctl_convergence_seconds_bucket{node=~"$node"}[$__rate_interval])))`, "p50 {{delivery}}"},
			query{`histogram_quantile(0.99, sum by (delivery, le) (rate(lbctl_convergence_seconds_bucket{node=~"$node"}[$__rate_interval])))`, "p99 {{delivery}}"})).
		WithPanel(graph("Reloads", "In the last five minutes: those that succeeded, by reason, and all that did not.", count,
			query{`sum by (reason) (increase(lbctl_reloads_total{node=~"$node", outcome="success"}[5m]))`, "{{reason}}"},
			query{`sum(increase(lbctl_reloads_total{node=~"$node", outcome!="success"}[5m]))`, "failed"})).
		WithPanel(graph("Reload duration", "From HUP to nginx answering with the new generation.", seconds,
			query{`histogram_quantile(0.5, sum by (le) (rate(lbctl_reload_duration_seconds_bucket{node=~"$node"}[$__rate_interval])))`, "p50"},
			query{`histogram_quantile(0.99, sum by (le) (rate(lbctl_reload_duration_seconds_bucket{node=~"$node"}[$__rate_interval])))`, "p99"})).
		WithPanel(graph("Changes coalesced", "Changes that shared a generation with another one, in the last five minutes.", count,
			query{`increase(lbctl_changes_coalesced_total{node=~"$node"}[5m])`, "{{node}}"})).
		WithPanel(graph("Since the last success", "Since nginx last took a configuration or a list of instances.", seconds,
			query{`time() - lbctl_last_success_timestamp_seconds{node=~"$node"}`, "{{node}}"})).
		WithPanel(graph("Discovery age", "Since Consul last confirmed a service's instances: the oldest service.", seconds,
			query{`max by (node) (lbctl_discovery_age_seconds{node=~"$node"})`, "{{node}}"})).
		WithPanel(stacked("Services by state", "Of several load balancers, the highest number.", count,
			query{`max by (state) (lbctl_services{node=~"$node"})`, "{{state}}"})).
		WithPanel(graph("Instances by state", "Of all services.", count,
			query{`max by (state) (sum by (node, state) (lbctl_instances{node=~"$node"}))`, "{{state}}"})).
		WithPanel(graph("Ejections", "In the last five minutes.", count,
			query{`sum by (service, by) (increase(lbctl_instance_ejections_total{node=~"$node"}[5m]))`, "{{service}} by {{by}}"})).
		WithRow(dashboard.NewRowBuilder("nginx")).
		WithPanel(stacked("Connections", "Of clients, by what nginx does with them.", count,
			query{`sum by (state) (lbctl_nginx_connections{node=~"$node", state!="active"})`, "{{state}}"})).
		WithPanel(graph("New connections and requests", "A second.", opsPerSec,
			query{`sum(rate(lbctl_nginx_connections_accepted_total{node=~"$node"}[$__rate_interval]))`, "connections accepted"},
			query{`sum(rate(lbctl_nginx_connections_handled_total{node=~"$node"}[$__rate_interval]))`, "connections handled"},
			query{`sum(rate(lbctl_nginx_requests_total{node=~"$node"}[$__rate_interval]))`, "requests"})).
		WithPanel(graph("Requests in progress", "Streams count too.", count,
			query{`lbctl_nginx_requests_in_flight{node=~"$node"}`, "{{node}}"})).
		WithPanel(graph("Workers", "Old workers serve connections from before a reload, until these end.", count,
			query{`lbctl_nginx_workers{node=~"$node"}`, "{{node}}: workers"},
			query{`lbctl_nginx_old_workers{node=~"$node"}`, "{{node}}: old workers"})).
		WithPanel(graph("nginx's memory", "Of all its processes, and of old workers.", bytesUnit,
			query{`lbctl_nginx_memory_bytes{node=~"$node"}`, "{{node}}: all"},
			query{`lbctl_nginx_old_workers_memory_bytes{node=~"$node"}`, "{{node}}: old workers"})).
		WithPanel(graph("Certificates", "Time until they expire.", seconds,
			query{`lbctl_certificate_expiry_timestamp_seconds{node=~"$node"} - time()`, "{{node}}: {{name}}"})).
		WithRow(dashboard.NewRowBuilder("lbctl and what it sees")).
		WithPanel(graph("Requests seen", "Lines of nginx's log that lbctl has counted, a second.", opsPerSec,
			query{`rate(lbctl_accesslog_lines_total{node=~"$node"}[$__rate_interval])`, "{{node}}"})).
		WithPanel(graph("Requests not seen", "Lines that were lost or malformed, in the last five minutes.", count,
			query{`increase(lbctl_accesslog_lost_total{node=~"$node"}[5m])`, "{{node}}: lost"},
			query{`increase(lbctl_accesslog_malformed_total{node=~"$node"}[5m])`, "{{node}}: malformed"})).
		WithPanel(graph("Log lag", "How old the newest line was when lbctl read it: at most some 0.4 s while it keeps up.", seconds,
			query{`lbctl_accesslog_lag_seconds{node=~"$node"}`, "{{node}}"})).
		WithPanel(graph("Log not read", "What nginx has written and lbctl has not read, and the room for it. nginx drops lines when it is full.", bytesUnit,
			query{`lbctl_accesslog_unread_bytes{node=~"$node"}`, "{{node}}: not read"},
			query{`lbctl_accesslog_size_bytes{node=~"$node"}`, "{{node}}: room"})).
		WithPanel(graph("Request log", "Lines written to the standard output, and lines that could not be, a second.", opsPerSec,
			query{`rate(lbctl_request_log_lines_total{node=~"$node"}[$__rate_interval])`, "{{node}}: written"},
			query{`rate(lbctl_request_log_dropped_total{node=~"$node"}[$__rate_interval])`, "{{node}}: dropped"})).
		WithPanel(graph("Spans", "Sent to the trace store, and dropped, a second.", opsPerSec,
			query{`rate(lbctl_traces_spans_exported_total{node=~"$node"}[$__rate_interval])`, "{{node}}: exported"},
			query{`rate(lbctl_traces_spans_dropped_total{node=~"$node"}[$__rate_interval])`, "{{node}}: dropped"})).
		WithPanel(graph("lbctl's memory", "Resident, and the heap that it uses.", bytesUnit,
			query{`process_resident_memory_bytes{job="lbctl", node=~"$node"}`, "{{node}}: resident"},
			query{`go_memstats_heap_inuse_bytes{job="lbctl", node=~"$node"}`, "{{node}}: heap"})).
		WithPanel(graph("lbctl's processor time", "Share of one core.", share,
			query{`rate(process_cpu_seconds_total{job="lbctl", node=~"$node"}[$__rate_interval])`, "{{node}}"})).
		WithPanel(graph("Registrars", "Instances that are registered, as their registrars say.", count,
			query{`sum by (service) (registrar_registered)`, "{{service}}"})).
		WithPanel(graph("Scrapes", "Time that a scrape of lbctl takes.", seconds,
			query{`scrape_duration_seconds{job="lbctl", node=~"$node"}`, "{{node}}"}))
}
