package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// service shows one service, by route, version and instance.
func service() *dashboard.DashboardBuilder {
	return board("lbctl-service", "lbctl: one service", "One service by route, version and instance.").
		WithVariable(choice("service", "Service", "lbctl_requests_total")).
		Link(external("Its requests' log lines", "${logs}/select/vmui/?#/?query=event.line.service%3A%3D${service}&g0.range_input=30m&g0.relative_time=last_30_minutes", "The log lines of this service's requests")).
		WithPanel(words("State", "Where the service's list of instances comes from.",
			`max by (state) (lbctl_service_state{service="$service"})`, "{{state}}")).
		WithPanel(number("In rotation", "Instances that get traffic.", count,
			`max(lbctl_instances{service="$service", state="in-rotation"})`, 1, 0.5)).
		WithPanel(number("Ejected", "Instances that get none, because they fail lbctl's probes or answer with errors.", count,
			`max(lbctl_instances{service="$service", state="ejected"})`, 1, 3)).
		WithPanel(number("Requests", "Requests a second.", perSecond,
			`sum(rate(lbctl_requests_total{service="$service"}[$__rate_interval]))`, 0, 0)).
		WithPanel(number("Errors", "Share of requests that are errors, over five minutes.", share,
			`service:lbctl_request_errors:ratio_rate5m{service="$service"}`, 0.001, 0.01)).
		WithPanel(number("p99", "99 of 100 requests took at most this long, over five minutes.", seconds,
			`service:lbctl_request_duration_seconds:p99_rate5m{service="$service"}`, 0.5, 1)).
		WithPanel(graph("Requests by route", "Requests a second.", perSecond,
			query{`sum by (route) (rate(lbctl_requests_total{service="$service"}[$__rate_interval]))`, "{{route}}"})).
		WithPanel(stacked("Answers", "By class of HTTP's code, and gRPC's code.", perSecond,
			query{`sum by (code, grpc_status) (rate(lbctl_requests_total{service="$service"}[$__rate_interval]))`, "{{code}} {{grpc_status}}"})).
		WithPanel(graph("Duration", "Of whole requests, as clients see them, without the network to the client.", seconds,
			query{`histogram_quantile(0.5, sum by (le) (rate(lbctl_request_duration_seconds_bucket{service="$service"}[$__rate_interval])))`, "p50"},
			query{`histogram_quantile(0.9, sum by (le) (rate(lbctl_request_duration_seconds_bucket{service="$service"}[$__rate_interval])))`, "p90"},
			query{`histogram_quantile(0.99, sum by (le) (rate(lbctl_request_duration_seconds_bucket{service="$service"}[$__rate_interval])))`, "p99"})).
		WithPanel(graph("In flight", "Requests that have begun and not ended; of several load balancers, all together. lbctl counts them with --requests-in-flight=on.", count,
			query{`sum(lbctl_requests_in_flight{service="$service"})`, "in flight"})).
		WithPanel(stacked("Retries", "Tries after the first one, by what the try before got.", perSecond,
			query{`sum by (reason) (rate(lbctl_upstream_retries_total{service="$service"}[$__rate_interval]))`, "{{reason}}"})).
		WithPanel(stacked("Refused", "Requests that nginx itself refused, by reason.", perSecond,
			query{`sum by (reason) (rate(lbctl_requests_refused_total{service="$service"}[$__rate_interval]))`, "{{reason}}"})).
		WithRow(dashboard.NewRowBuilder("By version (lb-version)")).
		WithPanel(graph("Tries by version", "Tries a second. A retried request is two tries.", perSecond,
			query{`sum by (version) (rate(lbctl_upstream_requests_total{service="$service"}[$__rate_interval]))`, "version {{version}}"})).
		WithPanel(graph("Errors by version", "Share of a version's tries that failed.", share,
			query{`service_version:lbctl_upstream_errors:ratio_rate5m{service="$service"}`, "version {{version}}"})).
		WithPanel(graph("p99 by version", "99 of 100 tries took at most this long.", seconds,
			query{`service_version:lbctl_upstream_duration_seconds:p99_rate5m{service="$service"}`, "version {{version}}"})).
		WithRow(dashboard.NewRowBuilder("By instance")).
		WithPanel(graph("Tries by instance", "Tries a second: an instance's share of the traffic.", perSecond,
			query{`sum by (endpoint) (rate(lbctl_upstream_requests_total{service="$service"}[$__rate_interval]))`, "{{endpoint}}"})).
		WithPanel(stacked("Failed tries by instance", "Tries without an answer or with an error, by result. cancelled is the client's doing.", perSecond,
			query{`sum by (endpoint, result) (rate(lbctl_upstream_requests_total{service="$service", result!~"success|4xx"}[$__rate_interval]))`, "{{endpoint}} {{result}}"})).
		WithPanel(graph("Instances", "By state; of several load balancers, the highest number.", count,
			query{`max by (state) (lbctl_instances{service="$service"})`, "{{state}}"})).
		WithPanel(graph("Ejections", "In the last five minutes: by lbctl's probes, or by the circuit breaker (outlier).", count,
			query{`sum by (by) (increase(lbctl_instance_ejections_total{service="$service"}[5m]))`, "{{by}}"})).
		WithPanel(grid("Instances", "Over five minutes.", "",
			map[string]string{"endpoint": "Instance", "version": "Version"},
			column{`sum by (endpoint, version) (rate(lbctl_upstream_requests_total{service="$service"}[5m]))`, "Tries", perSecond},
			column{`(sum by (endpoint, version) (rate(lbctl_upstream_requests_total{service="$service", result!~"success|cancelled|4xx"}[5m])) or 0 * sum by (endpoint, version) (rate(lbctl_upstream_requests_total{service="$service"}[5m]))) / (sum by (endpoint, version) (rate(lbctl_upstream_requests_total{service="$service"}[5m])) > 0)`, "Errors", share},
			column{`sum by (endpoint, version) (rate(lbctl_upstream_requests_total{service="$service"}[5m])) / on () group_left () (sum(rate(lbctl_upstream_requests_total{service="$service"}[5m])) > 0)`, "Share", share}).Span(16).Height(8))
}
