#!/usr/bin/env bash
# The cluster in containers: docker-compose.yaml, or the files of COMPOSE_FILE. Missing images are
# built first.
# See build/cluster.sh.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"

say() { printf 'lbctl: %s\n' "$*"; }
die() { printf 'lbctl: %s\n' "$*" >&2; exit 1; }

if docker compose version >/dev/null 2>&1; then
	compose=(docker compose)
else
	compose=(docker-compose)
fi

observability=docker-compose.observability.yaml

# beside makes compose read the file of Prometheus and its companions too, if they are there: what
# `make observability` has started belongs to the cluster.
beside() {
	local files=docker-compose.yaml:$observability
	[ -z "${COMPOSE_FILE:-}" ] || return 0
	[ -z "$(COMPOSE_FILE=$files "${compose[@]}" ps -q prometheus 2>/dev/null)" ] || export COMPOSE_FILE=$files
}

up() {
	ours
	beside
	if observed; then urls; fi
	build
	local n=${1:-$(servers | wc -l)} # a second `up` keeps the scale
	[ "$n" -gt 0 ] || n=1
	say "starting three Consul servers, Consul's UI, $(plural "$n") and the load balancer$(observed && echo "; and Prometheus, Grafana and the others that show them")"
	"${compose[@]}" up -d --no-build --scale hello_server="$n" 2>&1 | quiet
	await
	copy_commands
	copy_certificate
	next_steps
}

# others_images are those that compose does not build.
others_images() { "${compose[@]}" config | sed -n 's/^ *image: *//p' | sort -u; }

build() {
	build/base/base-images.sh
	local images
	images=$(others_images)
	# shellcheck disable=SC2086 # a list of names
	[ -z "$images" ] || build/base/base-images.sh $images
	if [ -n "$(docker images -q --filter "label=lbctl.checkout=$root")" ]; then
		say "building the images"
	else
		say "building the images; the first time takes some minutes"
	fi
	local log args=(--build-arg "CHECKOUT=$root")
	# These are not in the compose file: compose would recreate containers when they change.
	[ -z "${LB_VERSION:-}" ] || args+=(--build-arg "VERSION=$LB_VERSION" --build-arg "COMMIT=${LB_COMMIT:-}")
	if command -v go >/dev/null; then
		# The build in the container asks the Go mirror that the host asks.
		args+=(--build-arg "GOPROXY=$(go env GOPROXY)" --build-arg "GOSUMDB=$(go env GOSUMDB)" --build-arg "GONOSUMDB=$(go env GONOSUMDB)")
	fi
	log=$(mktemp)
	if ! PYTHONUNBUFFERED=1 "${compose[@]}" build "${args[@]}" 2>&1 | build/docker/progress.sh "$log"; then
		tail -n 40 "$log" >&2
		rm -f "$log"
		die "the images cannot be built"
	fi
	rm -f "$log"
}

# ours ends the script if the project's containers are those of another checkout.
# Compose names a project after the last part of its directory's path.
ours() {
	local other
	other=$(foreign)
	[ -z "$other" ] ||
		die "Compose gives this checkout the same project name as $other, which has containers: make clean there, or set COMPOSE_PROJECT_NAME to another name here"
}

# first_container prints the id of one of the project's containers, if there is any. It reads all
# that compose prints: a pipe that ends early would end the script.
first_container() {
	local ids
	ids=$("${compose[@]}" ps -aq 2>/dev/null) || true # what comes next says why
	echo "${ids%%$'\n'*}"
}

# foreign prints the directory of another checkout that the project's containers are of.
foreign() {
	local id dir
	for id in $(first_container); do
		dir=$(docker inspect -f '{{index .Config.Labels "com.docker.compose.project.working_dir"}}' "$id")
		if [ -d "$dir" ] && [ ! "$dir" -ef "$root" ]; then echo "$dir"; fi
	done
}

# alone ends the script if other containers are on the cluster's network, such as those of README.md's
# "Your own services": compose can't remove the network under them, and they leave Consul's catalog
# only while there is a Consul.
alone() {
	local id project networks guests=
	id=$(first_container)
	[ -n "$id" ] || return 0
	project=$(docker inspect -f '{{index .Config.Labels "com.docker.compose.project"}}' "$id")
	networks=$(docker network ls -q --filter "label=com.docker.compose.project=$project")
	[ -n "$networks" ] || return 0
	# shellcheck disable=SC2086 # a list of ids
	for id in $(docker network inspect -f '{{range $id, $_ := .Containers}}{{$id}} {{end}}' $networks); do
		[ "$(docker inspect -f '{{index .Config.Labels "com.docker.compose.project"}}' "$id")" = "$project" ] ||
			guests+=" $(docker inspect -f '{{slice .Name 1}}' "$id")"
	done
	[ -z "$guests" ] || die "other containers are on the cluster's network, stop them first: docker stop -t 30$guests"
}

# quiet removes compose's progress lines, of either version.
quiet() {
	tr -d '\r' | grep -vE '^$|\.\.\. *$|is up-to-date$| not found\.$| (Creating|Created|Starting|Running|Waiting|Healthy|Stopping|Stopped|Removing)$' || true
}

plural() { if [ "$1" = 1 ]; then echo "1 server"; else echo "$1 servers"; fi; }

servers() { "${compose[@]}" ps -q hello_server 2>/dev/null; }

# observed tells whether compose reads the file of Prometheus and its companions.
observed() { [[ ":${COMPOSE_FILE:-}:" == *":$observability:"* ]]; }

# urls says where a browser reaches what has got another port, for the links between the programs.
urls() {
	local name default port url
	while read -r name default; do
		port=${name}_PORT url=${name}_URL
		[ -n "${!url:-}" ] || [ "${!port:-$default}" = "$default" ] || export "$url=http://localhost:${!port##*:}"
	done <<-EOF
		PROMETHEUS 127.0.0.1:9090
		ALERTMANAGER 127.0.0.1:9093
		GRAFANA 127.0.0.1:3000
		LOGS 127.0.0.1:9428
		TRACES 127.0.0.1:16686
	EOF
}

# health prints a line for each container. One that runs and has no check counts as healthy.
health() { docker inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else if .State.Running}}healthy{{else}}{{.State.Status}}{{end}}' "$@"; }

# await waits until all containers are healthy and nginx serves what Consul says.
await() {
	local deadline=$((SECONDS + 180)) containers
	containers=$("${compose[@]}" ps -q)
	say "waiting until it serves"
	# shellcheck disable=SC2086 # a list of ids
	while health $containers | grep -qv '^healthy$'; do
		[ "$SECONDS" -lt "$deadline" ] || { "${compose[@]}" ps; die "not healthy after three minutes; see: make logs"; }
		sleep 0.5
	done
	"${compose[@]}" exec -T load-balancer lbctl status --wait 60s >/dev/null ||
		{ "${compose[@]}" exec -T load-balancer lbctl status || true; die "nginx does not serve what Consul says"; }
}

# copy_commands puts lbctl and registrar into bin/, for use from the host. Those of the
# image run on any Linux.
copy_commands() {
	mkdir -p bin
	if [ "$(uname -s)" = Linux ]; then
		local container name
		container=$("${compose[@]}" ps -q load-balancer)
		for name in lbctl registrar; do docker cp "$container:/usr/local/bin/$name" "bin/$name" >/dev/null; done
	elif command -v go >/dev/null; then
		make --no-print-directory bin/lbctl bin/registrar
	fi
}

# copy_certificate copies the load balancer's certificate, which clients must trust.
copy_certificate() {
	mkdir -p .run/certificates
	docker cp "$("${compose[@]}" ps -q load-balancer):/var/lib/lbctl/own/localhost.crt" .run/certificates/localhost.crt >/dev/null
}

next_steps() {
	local grpc=${LB_GRPC_PORT:-5000} grpcs=${LB_GRPCS_PORT:-5443} http=${LB_HTTP_PORT:-8080} admin=${LB_ADMIN_PORT:-9119} ui=${CONSUL_UI_PORT:-8500}
	cat <<-EOF

		The cluster serves. Next:
		  one call, and who answered  go run grpc_client/main.go -port=${grpc##*:}
		  the same over TLS           go run ./grpc_client -addr=localhost:${grpcs##*:} -tls -ca=.run/certificates/localhost.crt
		  five servers                make scale N=5
		  what nginx serves           bin/lbctl status
		  the same in a browser, live http://localhost:${admin##*:}/
		  what a call gets, and why   bin/lbctl explain grpc://localhost/protos.Ping/SayHello
		  how a service is balanced   bin/lbctl policy set hello_server timeout.read=5s
		  go back to an earlier state ${compose[*]} exec load-balancer lbctl rollback
		  HTTP services               http://localhost:${http##*:}/ (README.md, "Your own services")
		  Consul's UI                 http://localhost:${ui##*:}/ui/dc1/services
		  stop it                     make down; make clean deletes its data too
	EOF
	if observed; then
		local grafana=${GRAFANA_PORT:-3000} prometheus=${PROMETHEUS_PORT:-9090} alertmanager=${ALERTMANAGER_PORT:-9093} logs=${LOGS_PORT:-9428} traces=${TRACES_PORT:-16686}
		cat <<-EOF

			What it does (docs/observability.md):
			  dashboards                  http://localhost:${grafana##*:}/
			  metrics and alerts          http://localhost:${prometheus##*:}/alerts, notifications http://localhost:${alertmanager##*:}/
			  logs                        http://localhost:${logs##*:}/select/vmui/
			  traces                      http://localhost:${traces##*:}/
		EOF
	fi
}

scale() {
	ours
	beside
	local now
	now=$(servers | wc -l)
	[ "$1" = "$now" ] || say "scaling from $now to $(plural "$1")"
	"${compose[@]}" up -d --no-build --no-recreate --scale hello_server="$1" 2>&1 | quiet
	await
	say "$(plural "$1"), and nginx serves what Consul says"
}

status() {
	beside
	"${compose[@]}" ps
	echo
	"${compose[@]}" exec -T load-balancer lbctl status || true
	echo
	"${compose[@]}" exec -T load-balancer lbctl services || true
}

running() { [ -n "$("${compose[@]}" ps -q 2>/dev/null)" ] && [ -z "$(foreign)" ]; }
logs() {
	beside
	"${compose[@]}" logs -f --tail=100
}
down() {
	ours
	every_file
	alone
	"${compose[@]}" down --remove-orphans 2>&1 | quiet
	say "stopped; the data of Consul and the generations stay in volumes (make clean deletes them)"
}

# every_file makes compose read the files of all examples and of observability, for commands that
# end what any of them has started.
every_file() {
	local IFS=: files=(docker-compose.yaml "$observability" examples/*/docker-compose.yaml)
	export COMPOSE_FILE=${COMPOSE_FILE:-"${files[*]}"}
}

# clean leaves the images of others, which other checkouts use too, and all that is another checkout's.
clean() {
	ours
	every_file
	alone
	local out label="label=lbctl.checkout=$root" untagged
	out=$("${compose[@]}" down --remove-orphans --volumes --rmi local 2>&1) || die "compose cannot remove everything: $out"
	rm -rf .run/certificates
	untagged=$(docker images -q --filter dangling=true --filter "$label")
	docker image prune -f --filter "$label" >/dev/null
	if [ -n "$untagged" ] || removed <<<"$out"; then
		say "deleted this checkout's containers, volumes and images"
	else
		say "this checkout has no containers, volumes or images"
	fi
	local stay
	# shellcheck disable=SC2046 # a list of names
	stay=$(build/base/base-images.sh --list $(others_images) | paste -sd ' ')
	[ -z "$stay" ] || say "images of others stay, for all checkouts: docker rmi $stay"
}

# removed tells from the output of compose, of either version, whether it removed something.
removed() { awk '/^Removing |Removed *$/ { n++ } / not found\.?$|No such image/ { n-- } END { exit n <= 0 }'; }

"$@"
