#!/usr/bin/env bash
# The gate: format, vet, staticcheck, tidy, and all tests with the race
# detector, against real Consul and real nginx. None of them may be missing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

failed=()
check() {
	local name=$1
	shift
	printf 'test: %s\n' "$name"
	"$@" || failed+=("$name")
}

formatted() {
	local files
	files=$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l)
	[ -z "$files" ] || { printf 'not formatted, run gofmt -w:\n%s\n' "$files" >&2; return 1; }
}
vetted() { go vet ./... && go vet -tags e2e,bench ./...; }
checked() { "$(build/need.sh staticcheck)" -tags e2e,bench ./...; }
shell_checked() { git ls-files -co --exclude-standard '*.sh' .ci/run | xargs shellcheck -x; }

consul=$(build/need.sh consul)
nginx=$(build/need.sh nginx-packaged)
build/need.sh supervisord >/dev/null
build/need.sh otlp-receiver >/dev/null
build/need.sh promtool >/dev/null # and prometheus
build/need.sh chromium >/dev/null
[ -x bin/nginx-1.30 ] || make --no-print-directory bin/nginx-1.30
build/need.sh amtool >/dev/null
command -v gcc >/dev/null || build/need.sh gcc >/dev/null # the race detector takes cgo

check gofmt formatted
check vet vetted
check staticcheck checked
check 'go mod tidy' go mod tidy -diff
if command -v shellcheck >/dev/null; then check shellcheck shell_checked; fi
PATH=$(dirname "$consul"):$(dirname "$nginx"):$PATH LB_TEST_REQUIRE=1 CGO_ENABLED=1 \
	check 'go test -race' go run ./build/gotest -race -count=1 -timeout 20m ./...

if [ ${#failed[@]} -gt 0 ]; then
	printf 'test: FAILED: %s\n' "${failed[*]}" >&2
	exit 1
fi
