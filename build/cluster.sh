#!/usr/bin/env bash
# Starts, scales, shows and stops the demo's cluster, in Docker or as local
# processes. `make up` and similar targets call it.
#
#   build/cluster.sh up [N] | scale N | status | logs | down | clean
#
# UP=docker or UP=local chooses one. Without it, `up` uses Docker if an engine answers,
# and the other commands act on the cluster that runs.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
verb=${1:-}
count=${2:-}

die() { printf 'lbctl: %s\n' "$*" >&2; exit 2; }

case $verb in
up | scale | status | logs | down | clean) ;;
*) die "usage: $0 up [N] | scale N | status | logs | down | clean" ;;
esac
case ${UP:-} in
'' | docker | local) ;;
*) die "UP=$UP: want docker or local" ;;
esac
case $count in
'') [ "$verb" != scale ] || die "how many servers? make scale N=5" ;;
*[!0-9]* | 0*) die "N=$count: want the number of servers, at least 1" ;;
esac

docker_why=
docker_usable() {
	if ! command -v docker >/dev/null; then
		docker_why="there is no docker command"
	elif ! timeout 10 docker info >/dev/null 2>&1; then
		docker_why="no Docker engine answers"
	elif ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
		docker_why="there is a Docker engine but neither docker compose nor docker-compose"
	else
		return 0
	fi
	return 1
}

run() { "$here/$1/cluster.sh" "${@:2}"; }

# running lists the ways in which a cluster of this checkout is up.
running() {
	if run local running; then echo local; fi
	if docker_usable && run docker running; then echo docker; fi
}

in_words() { if [ "$1" = local ]; then echo "as local processes"; else echo "in containers"; fi; }

why=
if [ -n "${UP:-}" ]; then
	if [ "$UP" = docker ]; then docker_usable || die "UP=docker: $docker_why"; fi
	ways=$UP
elif [ "$verb" = up ]; then
	if docker_usable; then
		ways=docker
		why="a Docker engine answers, so the cluster runs in containers (UP=local for processes)"
	else
		ways=local
		why="$docker_why, so the cluster runs as local processes"
	fi
else
	ways=$(running)
fi

if [ "$verb" = up ]; then
	for other in $(running); do
		[ "$other" = "$ways" ] || die "this checkout's cluster already runs $(in_words "$other"), on the same ports: make down first"
	done
	[ -z "$why" ] || echo "lbctl: $why"
fi
case $verb in
scale | logs) [ -z "$ways" ] || [ -n "$(running)" ] || ways= ;;
esac
if [ -z "$ways" ]; then
	case $verb in
	down | status) echo "lbctl: no cluster is running" ;;
	clean) if docker_usable; then ways="local docker"; else ways=local; fi ;;
	*) die "no cluster is running: make up first" ;;
	esac
fi
for way in $ways; do
	run "$way" "$verb" "$count"
done
