#!/usr/bin/env bash
# Measures the time from Consul's acceptance of a registration as passing to the
# first call that the new instance answers. ROUNDS=N changes how often (50).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
consul=$(build/need.sh consul)
nginx=$(build/need.sh nginx)
[ -x bin/nginx-1.30 ] || make --no-print-directory bin/nginx-1.30
PATH=$(dirname "$consul"):$(dirname "$nginx"):$PATH LBCTL_TEST_REQUIRE=1 \
	exec go test -tags bench -count=1 -timeout 30m -v -run TestConvergence ./bench
