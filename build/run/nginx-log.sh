#!/usr/bin/env bash
# Copies nginx's error log to its own output, and so to `docker logs`. It follows the
# log when that is rotated.
#
#   LBCTL_STATE_DIR  lbctl's state (default: /var/lib/lbctl)
#   LBCTL_RUN_DIR    where the log is (default: $LBCTL_STATE_DIR/run)
set -euo pipefail

log=${LBCTL_RUN_DIR:-${LBCTL_STATE_DIR:-/var/lib/lbctl}/run}/error.log
mkdir -p "$(dirname "$log")"
(umask 027 && touch "$log") # see nginx.sh
exec tail -q -n 0 -F "$log" 2>/dev/null
