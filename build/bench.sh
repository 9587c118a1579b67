#!/usr/bin/env bash
# Runs one of the benchmarks in bench/, by the name of its test. ROUNDS=N changes
# how many registrations TestConvergence measures (50).
set -euo pipefail

name=${1:?usage: $0 TEST}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
consul=$(build/need.sh consul)
nginx=$(build/need.sh nginx)
[ -x bin/nginx-1.30 ] || make --no-print-directory bin/nginx-1.30
PATH=$(dirname "$consul"):$(dirname "$nginx"):$PATH LBCTL_TEST_REQUIRE=1 \
	exec go test -tags bench -count=1 -timeout 30m -v -run "^$name\$" ./bench
