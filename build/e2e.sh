#!/usr/bin/env bash
# End-to-end tests: the whole cluster in Docker, where an engine answers, and as
# local processes.
#
#   LB_E2E_OUTAGE   how long the outage of all Consul servers lasts (default: 20s)
#   LB_E2E_OBSERVABILITY=off  leave out Prometheus and its companions (build/observability)
#   LB_E2E_PROJECT  the name of the Compose project (default: lbctl-e2e- and a number)
#   E2E_TIMEOUT     the longest that the tests may take (default: 45m)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
exec go run ./build/gotest -v -tags e2e -count=1 -timeout "${E2E_TIMEOUT:-45m}" ./test/e2e
