#!/bin/sh
# Starts Grafana with the dashboards, and with the URLs of PROMETHEUS_URL, LOGS_URL and TRACES_URL
# in their links if these are set: a dashboard can't read environment variables. A POSIX shell and
# sed are all that it needs.
set -eu

dashboards=/etc/grafana/dashboards
if [ -n "${PROMETHEUS_URL:-}${LOGS_URL:-}${TRACES_URL:-}" ]; then
	quoted() { printf '%s' "$1" | sed 's/[\\&|]/\\&/g'; }
	mkdir -p /tmp/dashboards
	for file in "$dashboards"/*.json; do
		sed -e "s|\"http://localhost:9090\"|\"$(quoted "${PROMETHEUS_URL:-http://localhost:9090}")\"|" \
			-e "s|\"http://localhost:9428\"|\"$(quoted "${LOGS_URL:-http://localhost:9428}")\"|" \
			-e "s|\"http://localhost:16686\"|\"$(quoted "${TRACES_URL:-http://localhost:16686}")\"|" \
			"$file" >"/tmp/dashboards/${file##*/}"
	done
	dashboards=/tmp/dashboards
fi
export LB_DASHBOARDS="$dashboards" # the provisioning names it
export GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH="$dashboards/services.json"
exec /run.sh "$@"
