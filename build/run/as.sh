#!/usr/bin/env bash
# Runs a command as another user, for good. Without root it keeps the present user.
#
#   as.sh USER COMMAND [ARGUMENT...]
set -euo pipefail

user=${1:?usage: $0 USER COMMAND [ARGUMENT...]}
shift
[ "$(id -u)" = 0 ] || exec "$@"
exec setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"
