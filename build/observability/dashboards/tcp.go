package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// sessionFailed matches the series of lbctl_sessions_total that are errors of the service or of nginx.
const sessionFailed = `result=~"no-instance|unreachable|max-conns|internal"`

// tcp shows TCP services. They have a dashboard of their own, because the others would have empty
// panels where there is none.
func tcp() *dashboard.DashboardBuilder {
	return board("lbctl-tcp", "lbctl: TCP services", "Sessions of TCP services, by service and instance. A session counts when it ends.").
		WithVariable(several(choice("service", "Service", "lbctl_sessions_total"))).
		Link(external("Their sessions' log lines", "${logs}/select/vmui/?#/?query=event.line.protocol%3A%3Dtcp&g0.range_input=30m&g0.relative_time=last_30_minutes", "The log lines of TCP sessions")).
		WithPanel(number("Sessions", "Sessions a second.", opsPerSec,
			`sum(rate(lbctl_sessions_total{service=~"$service"}[$__rate_interval]))`, 0, 0)).
		WithPanel(number("Failed", "Share of sessions that no instance took, because of the service or of nginx.", share,
			`(sum(rate(lbctl_sessions_total{service=~"$service", `+sessionFailed+`}[$__rate_interval])) or vector(0)) / (sum(rate(lbctl_sessions_total{service=~"$service"}[$__rate_interval])) > 0)`, 0.001, 0.01)).
		WithPanel(number("p99 to connect", "nginx was connected to an instance within this time in 99 of 100 sessions.", seconds,
			`histogram_quantile(0.99, sum by (le) (rate(lbctl_upstream_connect_duration_seconds_bucket{service=~"$service"}[$__rate_interval])))`, 0.5, 1)).
		WithPanel(number("Median length", "Half of the sessions that ended were shorter.", seconds,
			`histogram_quantile(0.5, sum by (le) (rate(lbctl_session_duration_seconds_bucket{service=~"$service"}[$__rate_interval])))`, 0, 0)).
		WithPanel(number("Instances in rotation", "Instances that get sessions, of all chosen services.", count,
			`sum(max by (service) (lbctl_instances{service=~"$service", state="in-rotation"} and on (service) lbctl_sessions_total))`, 1, 0.5)).
		WithPanel(number("Ejected", "Instances that get none, because they fail lbctl's probes.", count,
			`sum(max by (service) (lbctl_instances{service=~"$service", state="ejected"} and on (service) lbctl_sessions_total))`, 1, 3)).
		WithPanel(graph("Sessions", "Sessions a second.", opsPerSec,
			query{`sum by (service) (rate(lbctl_sessions_total{service=~"$service"}[$__rate_interval]))`, "{{service}}"})).
		WithPanel(stacked("Sessions by result", "success: an instance took it. With the others nginx refused the client, could not reach an instance, or the client left.", opsPerSec,
			query{`sum by (service, result) (rate(lbctl_sessions_total{service=~"$service"}[$__rate_interval]))`, "{{service}}: {{result}}"})).
		WithPanel(graph("Sessions of no service", "On ports that services share, by result.", opsPerSec,
			query{`sum by (result) (rate(lbctl_unrouted_sessions_total[$__rate_interval]))`, "{{result}}"})).
		WithPanel(graph("p99 to connect", "nginx was connected to an instance within this time in 99 of 100 sessions.", seconds,
			query{`histogram_quantile(0.99, sum by (service, le) (rate(lbctl_upstream_connect_duration_seconds_bucket{service=~"$service"}[$__rate_interval])))`, "{{service}}"})).
		WithPanel(graph("Length", "From the client's connection until both sides were closed.", seconds,
			query{`histogram_quantile(0.5, sum by (service, le) (rate(lbctl_session_duration_seconds_bucket{service=~"$service"}[$__rate_interval])))`, "{{service}}: p50"},
			query{`histogram_quantile(0.99, sum by (service, le) (rate(lbctl_session_duration_seconds_bucket{service=~"$service"}[$__rate_interval])))`, "{{service}}: p99"})).
		WithPanel(graph("Bytes", "What clients sent and got, in the sessions that ended.", bytesPerSec,
			query{`sum(rate(lbctl_request_bytes_total{service=~"$service"}[$__rate_interval]) and on (service) lbctl_sessions_total)`, "sent"},
			query{`sum(rate(lbctl_response_bytes_total{service=~"$service"}[$__rate_interval]) and on (service) lbctl_sessions_total)`, "got"})).
		WithPanel(graph("Tries by instance", "Tries a second. A session is several if nginx could not connect.", opsPerSec,
			query{`sum by (service, endpoint) (rate(lbctl_upstream_sessions_total{service=~"$service"}[$__rate_interval]))`, "{{service}}: {{endpoint}}"})).
		WithPanel(stacked("Failed tries by instance", "connect: nginx could not connect. cancelled: the client left before.", opsPerSec,
			query{`sum by (service, endpoint, result) (rate(lbctl_upstream_sessions_total{service=~"$service", result!="success"}[$__rate_interval]))`, "{{service}}: {{endpoint}} {{result}}"})).
		WithPanel(graph("Tries by version", "Tries a second, by lb-version.", opsPerSec,
			query{`sum by (service, version) (rate(lbctl_upstream_sessions_total{service=~"$service"}[$__rate_interval]))`, "{{service}}: {{version}}"}))
}
