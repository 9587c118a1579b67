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
exec lbctl run
