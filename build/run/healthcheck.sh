#!/usr/bin/env bash
# Docker's health check of a container with an agent and a registered service:
# healthy when the agent says that the service passes its checks.
#
#   APP_NAME     the service
#   CONSUL_PORT  the agent's HTTP port (default: 8500)
set -euo pipefail

# The agent answers 200 passing, 429 warning, 503 critical, 404 not registered.
exec 3<>"/dev/tcp/127.0.0.1/${CONSUL_PORT:-8500}"
printf 'GET /v1/agent/health/service/name/%s?format=text HTTP/1.0\r\n\r\n' "${APP_NAME:?}" >&3
read -r _ status _ <&3
sed -n '$p' <&3
[ "$status" = 200 ]
