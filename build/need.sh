#!/usr/bin/env bash
# Prints the path of a program that building, running or testing needs. It takes the
# one on PATH if that is new enough. If not, it builds one into bin/, or installs a
# package. It reports on standard error.
#
# "nginx" is the nginx to run, "nginx-packaged" the one of the system, for the tests.
#
#   build/need.sh consul|nginx|nginx-packaged|supervisord|consul-template|otlp-receiver|haproxy|chromium|prometheus|promtool|amtool|staticcheck|protoc|gcc
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
staticcheck_version=v0.8.2

say() { printf 'build: %s\n' "$*" >&2; }
die() { printf 'build: %s\n' "$*" >&2; exit 1; }

# at_least VERSION WANTED
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

main() {
	case ${1:-} in
	consul) consul ;;
	nginx) nginx ;;
	nginx-packaged) nginx_packaged ;;
	supervisord) built supervisord ;; # the one on PATH is likely another program: Supervisor in Python
	staticcheck) staticcheck ;;
	consul-template) built consul-template ;; # of the version in go.mod, whatever is on PATH
	otlp-receiver) built otlp-receiver ;; # OpenTelemetry's, for tests
	haproxy) PATH=$PATH:/usr/sbin packaged haproxy haproxy ;;
	chromium) packaged chromium chromium fonts-liberation ;; # without fonts it shows no text
	prometheus | promtool) packaged "$1" prometheus ;;
	amtool) packaged amtool prometheus-alertmanager ;;
	gcc) packaged gcc gcc libc6-dev ;;
	protoc) packaged protoc protobuf-compiler ;;
	*) die "usage: $0 consul|nginx|nginx-packaged|supervisord|consul-template|otlp-receiver|haproxy|chromium|prometheus|promtool|amtool|staticcheck|protoc|gcc" ;;
	esac
}

consul() {
	local path version
	if path=$(type -P consul); then
		version=$("$path" version 2>/dev/null | sed -n 's/^Consul v\([0-9.]*\).*/\1/p')
		if at_least "${version:-0}" 1.14; then
			echo "$path"
			return
		fi
		say "$path is Consul ${version:-of an unknown version}, want 1.14 or newer; taking our own"
	fi
	built consul
}

# nginx_on_path prints the path of the nginx on PATH, if there is one of at least
# this version.
nginx_on_path() {
	local path version
	path=$(PATH=$PATH:/usr/sbin:/usr/local/sbin type -P nginx) || return 1
	version=$("$path" -v 2>&1 | sed -n 's|.*nginx/\([0-9.]*\).*|\1|p')
	at_least "${version:-0}" "$1" || return 1
	echo "$path"
}

# nginx is the nginx to run. It should take changes of instances without a reload, as
# nginx does since 1.27.3. If there is none, an older one will do.
nginx() {
	if nginx_on_path 1.27.3; then
		return
	fi
	if built nginx-1.30; then
		return
	fi
	say "no nginx 1.30 can be fetched: taking an older one, which reloads at each change of instances"
	nginx_packaged
}

# nginx_packaged is the nginx of the system's packages. The tests run against it and
# against bin/nginx-1.30.
nginx_packaged() {
	if nginx_on_path 1.22; then
		return
	fi
	install nginx libnginx-mod-stream
	nginx_on_path 1.22 || die "no nginx 1.22 or newer on PATH after its package was installed"
}

staticcheck() {
	local path=$root/bin/staticcheck
	if [ "$("$path" -version 2>/dev/null | grep -o '([0-9.]*)')" != "(${staticcheck_version#v})" ]; then
		say "staticcheck $staticcheck_version from its module"
		GOFLAGS="" GOBIN=$root/bin go install "honnef.co/go/tools/cmd/staticcheck@$staticcheck_version" >&2
	fi
	echo "$path"
}

# built NAME makes bin/NAME if it is not there.
built() {
	[ -x "$root/bin/$1" ] || make -C "$root" --no-print-directory "bin/$1" >&2
	echo "$root/bin/$1"
}

# packaged COMMAND PACKAGE... installs Debian packages if the command is missing.
packaged() {
	type -P "$1" >/dev/null || install "${@:2}"
	type -P "$1" || die "no $1 on PATH"
}

install() {
	command -v apt-get >/dev/null || die "$1 is missing, and this is not a system with apt-get: install it by hand"
	[ "$(id -u)" = 0 ] || die "$1 is missing: sudo apt-get install $*"
	say "installing $*"
	# Only the program is needed, so don't let the package start its service.
	local policy=/usr/sbin/policy-rc.d ours=
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
		ours=1
	fi
	local status=0
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"; } >/dev/null || status=$?
	[ -z "$ours" ] || rm -f "$policy"
	[ "$status" = 0 ] || die "apt-get install $* failed"
}

main "$@"
