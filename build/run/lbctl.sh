#!/usr/bin/env bash
# Runs lbctl under supervisord.
#
#   LBCTL_CERTIFICATES  the directory with certificates for TLS (default: no TLS)
#   CERTIFICATE_HOSTS   names and addresses, separated by blanks: put a certificate for
#                       them into the directory that signs itself (default: none)
set -euo pipefail

if [ -n "${CERTIFICATE_HOSTS:-}" ]; then
	# shellcheck disable=SC2086 # a list
	lbctl certificate create --if-needed --out "${LBCTL_CERTIFICATES:?CERTIFICATE_HOSTS needs it}" $CERTIFICATE_HOSTS
fi
# supervisord copies what programs write in chunks that may end within a line, and another
# program's may follow. The lines of LBCTL_REQUEST_LOG=stdout must stay whole, so lbctl writes them
# to the container's standard output itself, which is descriptor 3 (see lb.sh). Its log goes the way
# of all others.
if { true >&3; } 2>/dev/null; then
	exec lbctl run >&3 3>&-
fi
exec lbctl run
