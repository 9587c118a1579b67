#!/usr/bin/env bash
# Runs nginx with the configuration that lbctl keeps, under supervisord. It waits for
# the first one, and ends workers that a killed master left behind.
#
#   LBCTL_STATE_DIR  lbctl's state (default: /var/lib/lbctl)
#   LBCTL_RUN_DIR    sockets, logs and the pid file (default: $LBCTL_STATE_DIR/run)
#   LBCTL_NGINX      default: nginx
#   LBCTL_ACCESS_LOG_DIR  where nginx logs requests for lbctl, on a tmpfs (default: none)
set -euo pipefail

state=${LBCTL_STATE_DIR:-/var/lib/lbctl}
run=${LBCTL_RUN_DIR:-$state/run}
group_file=$run/nginx.pgid
[ -d "$run" ] || mkdir -p "$run"

# nginx_group PGID prints the nginx processes of a process group. The number may
# be from before a restart of this container, and another process's now.
nginx_group() {
	local stat pid comm group
	for stat in /proc/[0-9]*/stat; do
		# pid (comm) state ppid pgrp ...
		read -r pid comm _ _ group _ 2>/dev/null <"$stat" || continue
		if [ "$group" = "$1" ] && [ "$comm" = "(nginx)" ]; then echo "$pid"; fi
	done
}

# Workers whose master was killed still hold the ports, and supervisord does not
# see that the master is gone. QUIT lets them finish their open calls.
end_leftover() {
	local group pids
	[ -f "$group_file" ] || return 0
	group=$(<"$group_file")
	pids=$(nginx_group "$group" | xargs)
	if [ -n "$pids" ]; then
		echo "nginx: ending what a killed master left behind: processes $pids"
		# shellcheck disable=SC2086 # a list of numbers
		kill -QUIT $pids 2>/dev/null || true
	fi
	rm -f "$group_file"
}

# Whatever else is in their place: a shell waits for the reader of a named pipe.
for file in "$group_file" "$run/stdio.log"; do
	if [ ! -L "$file" ] && [ ! -f "$file" ]; then rm -rf "$file"; fi
done
end_leftover
if [ ! -e "$state/current/nginx.conf" ]; then
	echo "nginx: waiting for the first configuration in $state/current"
	trap 'exit 0' QUIT TERM # bash would ignore QUIT, by which nginx is stopped
	until [ -e "$state/current/nginx.conf" ]; do sleep 0.1; done
	trap - QUIT TERM
fi
# A tmpfs is empty after a restart, and nginx makes no directory for its log.
[ -z "${LBCTL_ACCESS_LOG_DIR:-}" ] || mkdir -p "$LBCTL_ACCESS_LOG_DIR" || true # nginx says what is wrong
# A killed nginx leaves its socket, and the next one refuses to bind it.
rm -rf "$run/generation.sock"

# Its output goes to a file: workers that outlive their master would keep
# supervisord's pipe open, and supervisord would wait for them. supervisord has made
# this shell the leader of a process group, so its number is the group's.
echo $$ >"$group_file"
umask 027 # its logs have addresses and query strings of clients
exec "${LBCTL_NGINX:-nginx}" -e "$run/error.log" -c "$state/current/nginx.conf" -g 'daemon off;' \
	>"$run/stdio.log" 2>&1
