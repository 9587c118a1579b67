#!/usr/bin/env bash
# End-to-end tests: the whole cluster in Docker, where an engine answers, and as
# local processes. LBCTL_E2E_OUTAGE=5m makes the outage of all Consul servers
# as long as that (default: 20s).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
exec go run ./build/gotest -v -tags e2e -count=1 -timeout 45m ./test/e2e
