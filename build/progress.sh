#!/usr/bin/env bash
# Runs `go build -v ...`, which names hundreds of packages. This shows every
# hundredth, and the end of the output if the build fails.
set -euo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "$@" 2>&1 | tee "$log" | awk 'NR % 100 == 0 { print "build:   " NR " packages"; fflush() }'; then
	tail -n 30 "$log" >&2
	exit 1
fi
