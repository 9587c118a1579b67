package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// services shows all services, or some, by rate, errors and duration.
func services() *dashboard.DashboardBuilder {
	toService := "/d/lbctl-service/service?${__url_time_range}&var-service=${__value.text}"
	return board("lbctl-services", "lbctl: services", "Rate, errors and duration of the requests that nginx balances, by service.").
		WithVariable(several(choice("service", "Service", "lbctl_requests_total"))).
		WithPanel(number("Requests", "Requests of the chosen services, over the last minutes.", perSecond,
			`sum(rate(lbctl_requests_total{service=~"$service"}[$__rate_interval]))`, 0, 0)).
		WithPanel(number("Errors", "Share of requests that got HTTP 5xx, or a gRPC code that is the server's fault.", share,
			`(sum(rate(lbctl_requests_total{service=~"$service", code="5xx"}[$__rate_interval]) or rate(lbctl_requests_total{service=~"$service", `+failed+`}[$__rate_interval])) or vector(0)) / (sum(rate(lbctl_requests_total{service=~"$service"}[$__rate_interval])) > 0)`, 0.001, 0.01)).
		WithPanel(number("p99", "99 of 100 requests took at most this long. Streams count with their whole length.", seconds,
			`histogram_quantile(0.99, sum by (le) (rate(lbctl_request_duration_seconds_bucket{service=~"$service"}[$__rate_interval])))`, 0.5, 1)).
		WithPanel(number("Instances in rotation", "Instances that get traffic, of all chosen services.", count,
			`sum(max by (service) (lbctl_instances{service=~"$service", state="in-rotation"}))`, 1, 0.5)).
		WithPanel(number("Services not fresh", "Services whose instances are not simply what Consul says now: stale, held, in panic or in quarantine.", count,
			`count(max by (service) (lbctl_service_state{service=~"$service", state!="fresh"})) or vector(0)`, 1, 2)).
		WithPanel(number("Alerts", "Alerts that fire.", count,
			`count(ALERTS{alertstate="firing"}) or vector(0)`, 1, 2)).
		WithPanel(graph("Requests", "Requests a second.", perSecond,
			query{`sum by (service) (rate(lbctl_requests_total{service=~"$service"}[$__rate_interval]))`, "{{service}}"})).
		WithPanel(graph("Errors", "Share of a service's requests that are errors.", share,
			query{`service:lbctl_request_errors:ratio_rate1m{service=~"$service"}`, "{{service}}"})).
		WithPanel(graph("p99", "99 of 100 requests took at most this long.", seconds,
			query{`histogram_quantile(0.99, sum by (service, le) (rate(lbctl_request_duration_seconds_bucket{service=~"$service"}[$__rate_interval])))`, "{{service}}"})).
		WithPanel(grid("Services", "All of the above in one table, over five minutes. A name leads to the service's own dashboard.", toService,
			map[string]string{"service": "Service"},
			column{`sum by (service) (service:lbctl_requests:rate5m{service=~"$service"})`, "Requests", perSecond},
			column{`sum by (service) (service:lbctl_request_errors:ratio_rate5m{service=~"$service"})`, "Errors", share},
			column{`sum by (service) (service:lbctl_request_duration_seconds:p50_rate5m{service=~"$service"})`, "p50", seconds},
			column{`sum by (service) (service:lbctl_request_duration_seconds:p99_rate5m{service=~"$service"})`, "p99", seconds},
			column{`max by (service) (lbctl_instances{service=~"$service", state="in-rotation"})`, "In rotation", count},
			column{`max by (service) (lbctl_instances{service=~"$service", state="registered"})`, "Registered", count},
			column{`max by (service) (lbctl_instances{service=~"$service", state="ejected"})`, "Ejected", count})).
		WithPanel(stacked("Answers by code", "What clients got: HTTP's class of codes. A gRPC call gets 200 whatever its own code.", perSecond,
			query{`sum by (code) (rate(lbctl_requests_total{service=~"$service"}[$__rate_interval]))`, "{{code}}"})).
		WithPanel(stacked("gRPC calls by code", "What clients got: gRPC's code. NONE is a call that ended without one, as when the client cancelled it.", perSecond,
			query{`sum by (grpc_status) (rate(lbctl_requests_total{service=~"$service", grpc_status!=""}[$__rate_interval]))`, "{{grpc_status}}"})).
		WithPanel(graph("Requests of no service", "Requests that matched no route, by class of code.", perSecond,
			query{`sum by (code) (rate(lbctl_unrouted_requests_total[$__rate_interval]))`, "{{code}}"})).
		WithPanel(stacked("Refused", "Requests that nginx itself refused because of a service's policy, by reason.", perSecond,
			query{`sum by (service, reason) (rate(lbctl_requests_refused_total{service=~"$service"}[$__rate_interval]))`, "{{service}}: {{reason}}"})).
		WithPanel(stacked("Retries", "Tries after the first one, by what the try before got.", perSecond,
			query{`sum by (service, reason) (rate(lbctl_upstream_retries_total{service=~"$service"}[$__rate_interval]))`, "{{service}}: {{reason}}"})).
		WithPanel(graph("Bytes", "Of requests and answers, headers included, and of TCP sessions, which count when they end.", bytesPerSec,
			query{`sum(rate(lbctl_request_bytes_total{service=~"$service"}[$__rate_interval]))`, "requests"},
			query{`sum(rate(lbctl_response_bytes_total{service=~"$service"}[$__rate_interval]))`, "answers"}))
}
