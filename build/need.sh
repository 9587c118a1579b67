#!/usr/bin/env bash
# Prints the path of a program that building or running needs. One on PATH is
# taken when it is new enough; else one is built into bin/, or installed where
# that takes a package. What is going on is said on standard error.
#
#   build/need.sh consul|nginx|supervisord|consul-template|haproxy|staticcheck|protoc|gcc
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
	supervisord) built supervisord ;; # the one on PATH is likely another program: Supervisor in Python
	staticcheck) staticcheck ;;
	consul-template) built consul-template ;; # of the version in go.mod, whatever is on PATH
	haproxy) PATH=$PATH:/usr/sbin packaged haproxy haproxy ;;
	gcc) packaged gcc gcc libc6-dev ;;
	protoc) packaged protoc protobuf-compiler ;;
	*) die "usage: $0 consul|nginx|supervisord|consul-template|haproxy|staticcheck|protoc|gcc" ;;
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

nginx() {
	local path version
	if path=$(PATH=$PATH:/usr/sbin:/usr/local/sbin type -P nginx); then
		version=$("$path" -v 2>&1 | sed -n 's|.*nginx/\([0-9.]*\).*|\1|p')
		if at_least "${version:-0}" 1.22; then
			echo "$path"
			return
		fi
		say "$path is nginx ${version:-of an unknown version}, want 1.22 or newer; taking our own"
	fi
	if [ ! -x "$root/bin/nginx-1.30" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		install nginx libnginx-mod-stream
		if path=$(type -P nginx); then
			echo "$path"
			return
		fi
	fi
	built nginx-1.30
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
	# A service is not wanted, only its program: nothing is to be started.
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
