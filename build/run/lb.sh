#!/usr/bin/env bash
# Runs the programs of the load balancer's container under supervisord, and ends
# them in order: nginx is the last one to stop.
#
# supervisord on its own stops all of its programs at once. nginx would then close
# its ports first, and there would be no service during the five seconds in which the
# Consul agent leaves. So, on TERM:
#
#   1. The registrar takes nginx out of Consul. Its DRAIN passes, in which lbctl
#      still follows Consul and nginx still serves.
#   2. lbctl ends, and the agent leaves Consul. nginx serves.
#   3. nginx closes its ports, and gets a moment for open calls. The container ends
#      with it.
#
# As root it gives each program a user of its own. docs/architecture.md says which
# and why.
#
#   LBCTL_STATE_DIR  lbctl's state (default: /var/lib/lbctl)
#   LBCTL_RUN_DIR    sockets, logs and the pid file (default: $LBCTL_STATE_DIR/run)
#   CONSUL_DATA_DIR  the agent's data
#   AGENT_LOCK       see consul-agent.sh
set -euo pipefail

conf=/etc/supervisord.conf
state=${LBCTL_STATE_DIR:-/var/lib/lbctl}
run=${LBCTL_RUN_DIR:-$state/run}

die() { printf 'lb: %s\n' "$*" >&2; exit 1; }

# owned OWNER DIRECTORY... gives directories, with all that is in them, to a user.
# An earlier release, or a run without root, may have left them to another one.
owned() {
	local dir
	for dir in "${@:2}"; do
		[ "$(stat -c %U:%G "$dir")" = "$1" ] && continue
		chown root "$dir"
		chmod 755 "$dir"
		chown -R "$1" "$dir"
	done
}

# What stat says of a prepared container's directories and of the lock.
prepared='root:root 755
root:root 755
consul:consul 755
root:root 755
root:root 700
consul:registrar 660'

# prepare starts as few processes as it can, because callers wait for nginx.
prepare() {
	[ -d "$run" ] || mkdir -p "$run" 2>/dev/null || true
	local dir agent=${AGENT_LOCK%/*}
	for dir in "$state" "$run" "$CONSUL_DATA_DIR" /run/supervisord "$agent"; do
		[ -w "$dir" ] || die "user $EUID cannot write to $dir, which belongs to $(stat -c %U "$dir"): want a new volume, or start the container as root, which takes it over"
	done
	if [ "$EUID" != 0 ]; then
		echo "lb: started as user $EUID, so all programs share it, nginx's workers too; started as root, each has its own"
		return
	fi
	if [ "$(stat -c '%U:%G %a' "$state" "$run" "$CONSUL_DATA_DIR" "$agent" /run/supervisord "$AGENT_LOCK" 2>/dev/null)" = "$prepared" ]; then
		return
	fi
	owned root:root "$state" "$run"
	owned consul:consul "$CONSUL_DATA_DIR"
	# The image leaves them open for a start without root.
	chmod 755 "$state" "$run" "$agent"
	chmod 700 /run/supervisord
	rm -f "$AGENT_LOCK"
	(umask 007 && : >"$AGENT_LOCK")
	chown consul:registrar "$AGENT_LOCK"
}

# stop_program NAME stops a program and waits until it has ended.
# shellcheck disable=SC2317 # called by stop
stop_program() { supervisord -c "$conf" ctl stop "$1" >/dev/null || true; }

# shellcheck disable=SC2317 # called by the trap
stop() {
	trap '' TERM INT
	local agent
	stop_program consul & # it waits for the registrar by itself
	agent=$!
	stop_program registrar
	stop_program lbctl
	wait "$agent" || true

	# supervisord looks only once a second whether nginx has ended. No call is accepted
	# while nginx ends, so long calls get a quarter of a second only.
	local nginx waited
	nginx=$(cat "$run/nginx.pgid" 2>/dev/null || true)
	stop_program nginx &
	if [ -n "$nginx" ]; then
		for ((waited = 0; waited < 25; waited++)); do
			kill -0 "$nginx" 2>/dev/null || exit 0
			sleep 0.01
		done
		kill -TERM "$nginx" 2>/dev/null || true
		while kill -0 "$nginx" 2>/dev/null; do sleep 0.01; done
	else
		wait $! || true
	fi
	exit 0
}

prepare
trap stop TERM INT
# The container's standard output, for lbctl.sh.
supervisord -c "$conf" 3>&1 &
supervisord=$!
status=0
wait "$supervisord" || status=$?
echo "lb: supervisord ended with status $status" >&2
exit 1
