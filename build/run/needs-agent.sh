#!/usr/bin/env bash
# Runs a command that needs the Consul agent beside it until its own end: while
# the command or a child of it runs, consul-agent.sh does not stop the agent.
#
#   AGENT_LOCK  the lock file, the same as for consul-agent.sh
set -euo pipefail

exec 9>>"${AGENT_LOCK:?}"
flock -s 9
exec "$@"
