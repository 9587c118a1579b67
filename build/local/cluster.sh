#!/usr/bin/env bash
# The cluster as local processes under supervisord, on loopback addresses: the
# same programs as in the containers, each with an address of its own instead of
# a container. It needs no root. See build/cluster.sh.
#
#   $LOCAL_NET.0.1    agent with Consul's UI on port 8500 (default 127.0: localhost)
#   $LOCAL_NET.1.1-3  Consul servers
#   $LOCAL_NET.2.N    server N: an agent, and grpc_server under the registrar
#   $LOCAL_NET.3.1    the load balancer's agent
#
# nginx listens where LB_GRPC_PORT, LB_GRPCS_PORT, LB_HTTP_PORT and LB_HTTPS_PORT
# say, PORT or ADDRESS:PORT as in docker-compose.yaml (default: 5000, 5443, 8080 and
# 8443), lbctl's admin port is 9119 on $LOCAL_NET.0.1. As in the containers, metrics are on ports
# 9777 (servers) and 9778 (registrars), and Prometheus finds them through Consul. Data, logs and sockets are in LOCAL_DIR (default: .run).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
net=${LOCAL_NET:-127.0}
grpc=${LB_GRPC_PORT:-5000}
grpcs=${LB_GRPCS_PORT:-5443}
http=${LB_HTTP_PORT:-8080}
https=${LB_HTTPS_PORT:-8443}
[[ $grpc == *:* ]] || grpc=:$grpc # IPv4 and IPv6
[[ $grpcs == *:* ]] || grpcs=:$grpcs
[[ $http == *:* ]] || http=:$http
[[ $https == *:* ]] || https=:$https
dir=$(realpath -m "${LOCAL_DIR:-$root/.run}")
conf=$dir/supervisord.conf
socket=$dir/supervisord.sock
logs=/dev/shm/lbctl-$(cksum <<<"$dir" | cut -d' ' -f1) # on a tmpfs

say() { printf 'lbctl: %s\n' "$*"; }
plural() { if [ "$1" = 1 ]; then echo "1 server"; else echo "$1 servers"; fi; }
die() { printf 'lbctl: %s\n' "$*" >&2; exit 1; }

up() {
	local n=${1:-}
	running || free_ports
	programs
	build
	if running; then
		n=${n:-$(<"$dir/servers")}
		say "already running (what was just built runs after make down and make up)"
		rescale "$n"
	else
		n=${n:-$(cat "$dir/servers" 2>/dev/null || echo 1)}
		mkdir -p "$dir/logs"
		echo "$n" >"$dir/servers"
		configuration "$n"
		say "starting three Consul servers, Consul's UI, $(plural "$n"), nginx and lbctl"
		# In a session of its own, so that Ctrl-C here does not reach it.
		setsid "$supervisord" -c "$conf" >>"$dir/logs/supervisord.out" 2>&1 </dev/null &
		local started=$!
		disown
		until running; do
			kill -0 "$started" 2>/dev/null || { tail -n 20 "$dir/logs/supervisord.out" >&2; die "supervisord does not start"; }
			sleep 0.1
		done
	fi
	await "$n"
	next_steps
}

# programs finds, builds or installs the programs of others.
programs() {
	consul=$(build/need.sh consul)
	nginx=$(build/need.sh nginx)
	supervisord=$(build/need.sh supervisord)
}

build() {
	command -v go >/dev/null || die "no Go toolchain on PATH, which builds lbctl"
	say "building lbctl, registrar, grpc_server and grpc_client"
	make --no-print-directory build
	bin/lbctl certificate create --if-needed --out "$dir/certificates" localhost 127.0.0.1 ::1 >/dev/null
}

free_ports() {
	local address
	for address in "$grpc" "$grpcs" "$http" "$https" "$net.0.1:9119" "$net.0.1:9778" "$net.0.1:8500"; do
		address=${address/#0.0.0.0:/:}
		address=${address/#:/127.0.0.1:}
		if (exec 3<>"/dev/tcp/${address/://}") 2>/dev/null; then
			die "$address is taken by another program"
		fi
	done
}

# configuration N writes supervisord's configuration for N servers.
configuration() {
	local i
	{
		preamble
		for i in 1 2 3; do consul_server "$i"; done
		agent ui "consul-ui" "$net.0.1" "-ui"
		agent lb "load-balancer" "$net.3.1"
		load_balancer
		for ((i = 1; i <= $1; i++)); do
			agent "hello-$i" "hello-$i" "$net.2.$i"
			hello_server "$i"
		done
	} >"$conf.new"
	mv "$conf.new" "$conf"
}

preamble() {
	cat <<-EOF
		; Written by build/local/cluster.sh, and again each time it scales.
		[supervisord]
		logfile=$dir/logs/supervisord.log
		logfile_maxbytes=10MB
		loglevel=info
		pidfile=$dir/supervisord.pid

		[unix_http_server]
		file=$socket

		[supervisorctl]
		serverurl=unix://$socket

		[program-default]
		autorestart=true
		startsecs=1
		stopsignal=TERM
		killasgroup=true
		redirect_stderr=true
		stdout_logfile=$dir/logs/%(program_name)s.log
		stdout_logfile_maxbytes=10MB
		stdout_logfile_backups=1
	EOF
}

consul_server() {
	cat <<-EOF

		[program:server-$1]
		command="$consul" agent -config-file "$root/build/consul/common.hcl" -config-file "$root/build/consul/server.hcl" -data-dir "$dir/server-$1" -node=server-$1 -bind=$net.1.$1 -client=$net.1.$1 -retry-join=$net.1.1 -retry-join=$net.1.2 -retry-join=$net.1.3
		stopwaitsecs=20
	EOF
}

# agent NAME NODE ADDRESS [ARGS]
agent() {
	cat <<-EOF

		[program:agent-$1]
		command="$root/build/run/consul-agent.sh"
		environment=CONSUL_BINARY="$consul",CONSUL_CONFIG="$root/build/consul/common.hcl $root/build/consul/client.hcl",CONSUL_DATA_DIR="$dir/agent-$1",CONSUL_NODE="$2",CONSUL_ADDRESS="$3",CONSUL_CLIENT="$3",CONSUL_JOIN="$net.1.1 $net.1.2 $net.1.3",CONSUL_ARGS="${4:--log-level=warn}",AGENT_LOCK="$dir/agent-$1.lock"
		stopwaitsecs=80
	EOF
}

hello_server() {
	cat <<-EOF

		[program:hello-$1]
		command="$root/build/run/needs-agent.sh" "$root/bin/registrar" exec -- "$root/bin/grpc_server" -listen $net.2.$1:7777 -name hello_$1
		environment=AGENT_LOCK="$dir/agent-hello-$1.lock",CONSUL_HTTP_ADDR="$net.2.$1:8500",APP_NAME="hello_server",APP_PORT="7777",SERVICE_ID="hello_server-$1",TAGS="grpc_server",META="metrics-port=9777",GRPC_SERVER_METRICS="$net.2.$1:9777",METRICS="$net.2.$1:9778",HEALTH_CHECK_ENDPOINT="$net.2.$1:7777"
		stopwaitsecs=60
	EOF
}

load_balancer() {
	# Other users may be unable to read the checkout, so the workers have ours.
	local env user
	user=$(id -un)
	env="LBCTL_STATE_DIR=\"$dir/lbctl\",LBCTL_NGINX=\"$nginx\",LBCTL_NGINX_USER=\"$user\",LBCTL_ACCESS_LOG_DIR=\"$logs\",LBCTL_ADMIN=\"$net.0.1:9119\",LBCTL_DNS_LISTEN=\"$net.0.1:9153\",LBCTL_GRPC_LISTEN=\"$grpc\",LBCTL_HTTP_LISTEN=\"$http\",LBCTL_LISTENER=\"grpcs=grpcs://$grpcs https=https://$https\",LBCTL_CERTIFICATES=\"$dir/certificates\",LBCTL_GRPC_HEALTH=\"on\",CONSUL_HTTP_ADDR=\"$net.3.1:8500\""
	cat <<-EOF

		[program:nginx]
		command="$root/build/run/nginx.sh"
		environment=$env
		stopsignal=QUIT
		stopwaitsecs=20

		[program:lbctl]
		command="$root/bin/lbctl" run
		environment=$env
		stopwaitsecs=20

		[program:registrar-nginx]
		command="$root/build/run/needs-agent.sh" "$root/bin/registrar"
		environment=AGENT_LOCK="$dir/agent-lb.lock",CONSUL_HTTP_ADDR="$net.3.1:8500",APP_NAME="nginx",APP_PORT="${grpc##*:}",SERVICE_ADDRESS="$net.0.1",META="metrics-port=9119",METRICS="$net.0.1:9778",HEALTH_CHECK_TYPE="http",HEALTH_CHECK_ENDPOINT="http://$net.0.1:9119/readyz",DRAIN="0s"
		stopwaitsecs=20
	EOF
}

pid() { cat "$dir/supervisord.pid" 2>/dev/null; }

# The pid file may be from before a reboot, so the process must have our configuration.
running() {
	local pid
	pid=$(pid) && [ -r "/proc/$pid/cmdline" ] && tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "$conf"
}

# control talks to supervisord, whose exit code says nothing.
control() { "$(build/need.sh supervisord)" -c "$conf" ctl "$@"; }

lbctl() { LBCTL_STATE_DIR=$dir/lbctl LBCTL_ADDR=http://$net.0.1:9119 "$root/bin/lbctl" "$@"; }

# registered asks the agent with the UI how many servers pass their checks.
registered() {
	get "$net.0.1" 8500 "/v1/health/service/hello_server?passing" | grep -o '"Service":{"ID"' | wc -l
}

# get HOST PORT PATH prints what an HTTP server answers. The machine may have no curl.
get() {
	(
		exec 3<>"/dev/tcp/$1/$2" || exit 1
		printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$3" "$1" >&3
		cat <&3
	) 2>/dev/null || true
}

await() {
	local deadline=$((SECONDS + 120))
	say "waiting until it serves"
	until [ "$(registered)" = "$1" ]; do
		running || { tail -n 20 "$dir/logs/supervisord.out" "$dir/logs/supervisord.log" >&2 || true; die "supervisord has ended"; }
		[ "$SECONDS" -lt "$deadline" ] || { control status; die "not all $1 servers pass their checks after two minutes; see $dir/logs"; }
		sleep 0.3
	done
	lbctl status --wait 60s >/dev/null || { lbctl status || true; die "nginx does not serve what Consul says; see $dir/logs/lbctl.log"; }
}

next_steps() {
	cat <<-EOF

		The cluster serves. Next:
		  one call, and who answered  go run grpc_client/main.go -port=${grpc##*:}
		  the same over TLS           go run ./grpc_client -addr=localhost:${grpcs##*:} -tls -ca=${dir#"$root"/}/certificates/localhost.crt
		  five servers                make scale N=5
		  what nginx serves           bin/lbctl status
		  the same in a browser, live http://$net.0.1:9119/
		  what a call gets, and why   bin/lbctl explain grpc://localhost/protos.Ping/SayHello
		  how a service is balanced   bin/lbctl policy set hello_server timeout.read=5s
		  go back to an earlier state bin/lbctl rollback --run-dir ${dir#"$root"/}/lbctl/run
		  HTTP services               http://localhost:${http##*:}/ (README.md, "Your own services")
		  Consul's UI                 http://localhost:8500/ui/dc1/services
		  stop it                     make down; make clean deletes its data too

		Logs are in $dir/logs.
	EOF
}

scale() {
	programs
	rescale "$1"
	await "$1"
	say "$(plural "$1"), and nginx serves what Consul says"
}

# rescale N adds or stops servers and leaves everything else alone. It stops servers
# before it removes them from the configuration: supervisord does not wait for
# programs that it no longer has there.
rescale() {
	local n=$1 now i going=()
	[ "$n" -le 250 ] || die "N=$n: want at most 250 servers, each has a loopback address of its own"
	now=$(<"$dir/servers")
	[ "$n" != "$now" ] || return 0
	say "scaling from $now to $(plural "$n")"
	for ((i = n + 1; i <= now; i++)); do going+=("hello-$i" "agent-hello-$i"); done
	stop "${going[@]}"
	echo "$n" >"$dir/servers"
	configuration "$n"
	control reload >/dev/null
	for ((i = n + 1; i <= now; i++)); do rm -rf "$dir/agent-hello-$i"; done
}

# stop PROGRAM... stops programs at the same time, and waits for all.
stop() {
	local program
	for program in "$@"; do control stop "$program" >/dev/null & done
	wait
}

status() {
	running || { say "no local cluster is running"; return; }
	control status | sed 's/\x1b\[[0-9;]*m//g'
	echo
	lbctl status || true
	echo
	lbctl services || true
}

logs() { tail -n 20 -F "$dir"/logs/*.log "$dir/lbctl/run/error.log"; }

down() {
	if ! running; then return; fi
	halt
	say "stopped; its data stays in $dir (make clean deletes it)"
}

# halt stops the Consul servers last, so that all others can leave them first.
halt() {
	local pid i programs=(nginx lbctl registrar-nginx agent-lb agent-ui) deadline
	pid=$(pid)
	for ((i = 1; i <= $(<"$dir/servers"); i++)); do programs+=("hello-$i" "agent-hello-$i"); done
	say "stopping"
	stop "${programs[@]}"
	kill -TERM "$pid"
	deadline=$((SECONDS + 60))
	while running; do
		[ "$SECONDS" -lt "$deadline" ] || die "supervisord, process $pid, does not end"
		sleep 0.2
	done
	rm -f "$dir/supervisord.pid" "$socket"
}

clean() {
	if running; then halt; fi
	rm -rf "$logs"
	if [ -e "$dir" ]; then
		rm -rf "$dir"
		say "deleted $dir"
	else
		say "there is no data in $dir"
	fi
}

"$@"
