#!/usr/bin/env bash
# Runs `go build -v ...` and, of the hundreds of packages it names, shows only
# every hundredth, and on failure the end of what it said.
set -euo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "$@" 2>&1 | tee "$log" | awk 'NR % 100 == 0 { print "build:   " NR " packages"; fflush() }'; then
	tail -n 30 "$log" >&2
	exit 1
fi
