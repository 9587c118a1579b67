#!/usr/bin/env bash
# Runs the Consul agent beside a service, under supervisord.
#
# supervisord stops all its programs at once. The registrar still needs the agent
# then: it leaves the rotation, drains and deregisters. So it holds a shared lock
# (needs-agent.sh). On TERM the agent ends when the lock is free, or after
# AGENT_LINGER seconds.
#
#   CONSUL_CONFIG    configuration files, separated by spaces
#   CONSUL_JOIN      servers to join, separated by spaces; it never gives up
#   CONSUL_DATA_DIR  the agent's own data
#   CONSUL_ADDRESS   address to listen on and to be known by (default: the one
#                    towards the servers, which matters with several networks)
#   CONSUL_CLIENT    address of the HTTP API (default: 127.0.0.1)
#   CONSUL_NODE      node name (default: the host name; HOST-ADDRESS, with dashes in
#                    the address, when the address is not the first one)
#   CONSUL_PORT      port of the HTTP API (default: 8500)
#   CONSUL_HTTP_TOKEN  may remove the node of an old name (node:write), where Consul
#                    has ACLs
#   CONSUL_ARGS      further arguments, separated by spaces
#   AGENT_LOCK       the lock file
#   AGENT_LINGER     seconds to wait for the lock at most (default: 60)
set -euo pipefail

: "${CONSUL_CONFIG:?}" "${CONSUL_DATA_DIR:?}" "${AGENT_LOCK:?}"
read -ra servers <<<"${CONSUL_JOIN:-}"
read -ra extra <<<"${CONSUL_ARGS:-}"
read -ra configs <<<"$CONSUL_CONFIG"
pid_file=$CONSUL_DATA_DIR/agent.pid

# address_towards HOST prints the address this host speaks to HOST from. No
# packet is sent: connecting a UDP socket only asks the routing table.
address_towards() {
	local inode hex
	# In braces, because a failed redirection ends the shell.
	{ exec 8<>"/dev/udp/$1/8301"; } 2>/dev/null || return 1
	inode=$(readlink /proc/self/fd/8)
	inode=${inode//[^0-9]/}
	hex=$(awk -v inode="$inode" '$10 == inode { split($2, a, ":"); print a[1] }' /proc/self/net/udp)
	exec 8>&-
	[ -n "$hex" ] || return 1 # IPv6: let Consul choose
	printf '%d.%d.%d.%d\n' "0x${hex:6:2}" "0x${hex:4:2}" "0x${hex:2:2}" "0x${hex:0:2}"
}

# own_address prints the address to be known by: the one towards the servers. The
# names of stopped containers do not resolve. So while all servers are away it prints
# the address of last time, if this host still has it, or else the host's first.
own_address() {
	local server address
	for server in "${servers[@]}"; do
		if address=$(address_towards "$server"); then
			echo "$address" | tee "$CONSUL_DATA_DIR/address"
			return
		fi
	done
	address=$(cat "$CONSUL_DATA_DIR/address" 2>/dev/null || true)
	local mine
	mine=$(hostname -I 2>/dev/null || hostname -i)
	case " $mine " in
	*" ${address:-none} "*) echo "$address" ;;
	*) echo "${mine%% *}" ;;
	esac
}

# node_name ADDRESS prints the node name for an address. After a kill a container can
# come back with another address. For half a minute Consul's gossip refuses a name, and a
# node id, that it knows under another address or name. So each name has one address: the
# host name has the first one. With another name than last time the agent gets a new id,
# and old-node keeps the old name for forget.
node_name() {
	local first=$CONSUL_DATA_DIR/first-address node last
	[ -s "$first" ] || echo "$1" >"$first"
	node=$(hostname)
	[ "$(<"$first")" = "$1" ] || node=$node-${1//[.:]/-}
	last=$(cat "$CONSUL_DATA_DIR/node-name" 2>/dev/null || true)
	if [ -n "$last" ] && [ "$last" != "$node" ]; then
		echo "$last" >"$CONSUL_DATA_DIR/old-node"
		rm -f "$CONSUL_DATA_DIR/node-id"
	fi
	echo "$node" | tee "$CONSUL_DATA_DIR/node-name"
}

# forget removes the node of the old name, with its entries, from Consul's catalog. It
# tries until the agent has reached a server. The gossip forgets the name by itself.
forget() {
	local old=$CONSUL_DATA_DIR/old-node body tries
	[ -s "$old" ] || return 0
	body="{\"Node\":\"$(<"$old")\"}"
	for ((tries = 0; tries < 240; tries++)); do
		if deregister "$body" 2>/dev/null; then
			rm -f "$old"
			return
		fi
		sleep 0.25
	done
	echo "consul-agent: cannot remove the node $(<"$old"), which was this container's, from Consul" >&2
}

# deregister BODY asks the agent to remove what BODY says. It is a subshell, because a
# failed redirection ends the shell.
deregister() (
	exec 3<>"/dev/tcp/${CONSUL_CLIENT:-127.0.0.1}/${CONSUL_PORT:-8500}"
	printf 'PUT /v1/catalog/deregister HTTP/1.0\r\nX-Consul-Token: %s\r\nContent-Length: %d\r\n\r\n%s' \
		"${CONSUL_HTTP_TOKEN:-}" "${#1}" "$1" >&3
	read -r _ status _ <&3
	[ "$status" = 200 ]
)

# If this script was killed, its agent may still run and hold the ports.
end_leftover() {
	local pid
	pid=$(cat "$pid_file" 2>/dev/null) || return 0
	if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = consul ] &&
		tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "-pid-file=$pid_file"; then
		echo "consul-agent: ending the agent left over as process $pid"
		kill -KILL "$pid" 2>/dev/null || true
	fi
	rm -f "$pid_file"
}

mkdir -p "$CONSUL_DATA_DIR" "$(dirname "$AGENT_LOCK")"
end_leftover

arguments=(-data-dir="$CONSUL_DATA_DIR" -pid-file="$pid_file" -client="${CONSUL_CLIENT:-127.0.0.1}")
for file in "${configs[@]}"; do arguments+=(-config-file="$file"); done
for server in "${servers[@]}"; do arguments+=(-retry-join="$server"); done
address=${CONSUL_ADDRESS:-$(own_address)}
node=${CONSUL_NODE:-}
if [ -n "$address" ]; then
	arguments+=(-bind="$address")
	node=${node:-$(node_name "$address")}
fi
if [ -n "$node" ]; then arguments+=(-node="$node"); fi

"${CONSUL_BINARY:-consul}" agent "${arguments[@]}" "${extra[@]}" &
agent=$!
forget &
forget=$!

# shellcheck disable=SC2317 # called by the trap
stop() {
	trap '' TERM INT
	kill "$forget" 2>/dev/null || true
	flock -x -w "${AGENT_LINGER:-60}" "$AGENT_LOCK" true ||
		echo "consul-agent: not everybody was done with the agent after ${AGENT_LINGER:-60} s; stopping it" >&2
	kill -TERM "$agent" 2>/dev/null || true
}
trap stop TERM INT

# wait returns early when the trap runs, so ask again until the agent has ended.
status=0
while kill -0 "$agent" 2>/dev/null; do
	wait "$agent" && status=0 || status=$?
done
exit "$status"
