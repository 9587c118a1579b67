#!/usr/bin/env bash
# Runs `go build -v ...`, which names hundreds of packages. This shows every hundredth, a
# sign of life every half minute, and the end of the output if the build fails.
set -euo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# progress counts the lines that it reads.
progress() {
	local n=0 rc
	while true; do
		rc=0
		read -r -t 30 || rc=$?
		if [ "$rc" -gt 128 ]; then # 30 s without a line
			echo "build:   $n packages, $SECONDS s"
		elif [ "$rc" -ne 0 ]; then # the end
			return
		elif ((++n % 100 == 0)); then
			echo "build:   $n packages"
		fi
	done
}

if ! "$@" 2>&1 | tee "$log" | progress; then
	tail -n 30 "$log" >&2
	exit 1
fi
