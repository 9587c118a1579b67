#!/usr/bin/env bash
# Runs one of the benchmarks in bench/, by the name of its test. RECORD=1 keeps its
# report in docs/benchmarks; bench/README.md has the other variables.
set -euo pipefail

name=${1:?usage: $0 TEST}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
consul=$(build/need.sh consul)
nginx=$(build/need.sh nginx-packaged)
[ -x bin/nginx-1.30 ] || make --no-print-directory bin/nginx-1.30
build/need.sh consul-template >/dev/null
build/need.sh supervisord >/dev/null
build/need.sh haproxy >/dev/null
PATH=$root/bin:$(dirname "$consul"):$(dirname "$nginx"):$PATH:/usr/sbin LB_TEST_REQUIRE=1 \
	exec go test -tags bench -count=1 -timeout 2h -v -run "^$name\$" ./bench
