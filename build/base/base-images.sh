#!/usr/bin/env bash
# Makes sure that the base images of docker-compose.yaml and build/Dockerfile
# are there. It pulls them. Where no registry answers, it makes stand-ins under the
# same names. It leaves images alone that are already there.
#
#   build/base/base-images.sh [IMAGE...]
#
# Without arguments these are the images that every cluster needs.
#
#   build/base/base-images.sh --list IMAGE...   print which of these and of the bases are there
#
# DEBIAN_MIRROR   mirror for the stand-ins (default: the one in the host's apt sources)
# BASE_STANDIN=1  do not even try to pull
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
all=(debian:bookworm-slim golang:1.26-bookworm nginx:1.30 hashicorp/consul:1.22)

say() { printf 'base: %s\n' "$*"; }
die() { printf 'base: %s\n' "$*" >&2; exit 1; }
have() { docker image inspect "$1" >/dev/null 2>&1; }

# shellcheck source=build/base/observability.sh
. "$here/observability.sh"

work=
cleanup() { if [ -n "$work" ]; then rm -rf --one-file-system "$work"; fi; }
trap cleanup EXIT

main() {
	command -v docker >/dev/null || die "no docker command on PATH"
	if [ "${1:-}" = --list ]; then
		list "${@:2}"
		return
	fi
	local image offline=${BASE_STANDIN:-}
	[ $# -gt 0 ] || set -- "${all[@]}"
	for image in "$@"; do
		if have "$image" && ! outdated "$image"; then continue; fi
		if [ -z "$offline" ]; then
			pull "$image" && continue
		fi
		make_standin "$image"
	done
	remove_former
}

# list prints the images that are there, with those that stand-ins are made of.
list() {
	local image
	for image in "${all[@]}" "$@" lbctl-base/debian:forky lbctl-base/observability:bookworm; do
		if have "$image"; then echo "$image"; fi
	done
}

pull() {
	local reason
	say "pulling $1"
	if reason=$(timeout "${PULL_TIMEOUT:-600}" docker pull -q "$1" 2>&1); then
		return 0
	fi
	say "cannot pull $1 (${reason##*$'\n'}); making a stand-in"
	case $reason in
	*"not found"* | *"manifest unknown"*) ;; # the registry answers: the next image may be there
	*) offline=1 ;;
	esac
	return 1
}

make_standin() {
	local started=$SECONDS
	case $1 in
	debian:bookworm-slim) debian bookworm "$1" ;;
	golang:1.26-bookworm) golang "$1" ;;
	nginx:1.30) nginx "$1" ;;
	hashicorp/consul:1.22) consul "$1" ;;
	prom/prometheus:*) prometheus "$1" ;;
	prom/alertmanager:*) alertmanager "$1" ;;
	victoriametrics/victoria-logs:*) victoria_logs "$1" ;;
	grafana/grafana:*) grafana "$1" ;;
	jaegertracing/jaeger:*) jaeger "$1" ;;
	*) die "no stand-in is known for $1, only for ${all[*]} and the images of docker-compose.observability.yaml" ;;
	esac
	say "made a stand-in for $1 in $((SECONDS - started)) s"
}

# debian SUITE IMAGE bootstraps a small Debian without the files that slim images omit.
debian() {
	local suite=$1 image=$2 mirror script=() log
	[ "$(id -u)" = 0 ] ||
		die "$image can neither be pulled nor made: bootstrapping Debian takes root. Run: sudo $0"
	if ! command -v debootstrap >/dev/null; then
		command -v apt-get >/dev/null ||
			die "$image can neither be pulled nor made: debootstrap is missing and this is not a system with apt-get"
		say "installing debootstrap"
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends debootstrap; } >/dev/null ||
			die "cannot install debootstrap, which makes $image"
	fi
	mirror=$(debian_mirror)
	cleanup
	work=$(mktemp -d)
	log=$work/debootstrap.log
	# A suite younger than the host's debootstrap is bootstrapped like sid.
	local scripts=${DEBOOTSTRAP_DIR:-/usr/share/debootstrap}/scripts
	[ -e "$scripts/$suite" ] || script=("$scripts/sid")
	say "bootstrapping Debian $suite from $mirror"
	debootstrap --variant=minbase "$suite" "$work/root" "$mirror" "${script[@]}" >"$log" 2>&1 || {
		tail -n 20 "$log" "$work/root/debootstrap/debootstrap.log" >&2 2>/dev/null || true
		die "debootstrap of $suite failed; DEBIAN_MIRROR names another mirror"
	}
	debian_sources "$suite" "$mirror" >"$work/root/etc/apt/sources.list"
	cat >"$work/root/etc/dpkg/dpkg.cfg.d/docker" <<-'EOF'
		force-unsafe-io
		path-exclude /usr/share/doc/*
		path-exclude /usr/share/info/*
		path-exclude /usr/share/locale/*
		path-exclude /usr/share/man/*
	EOF
	cat >"$work/root/etc/apt/apt.conf.d/docker" <<-'EOF'
		Acquire::Languages "none";
		Apt::AutoRemove::SuggestsImportant "false";
	EOF
	# Containers accept old mirrors, and ask through a proxy, if the host does.
	apt-config dump 2>/dev/null | grep -E '^Acquire::(Check-Valid-Until|Check-Date|https?::Proxy) ' \
		>>"$work/root/etc/apt/apt.conf.d/docker" || true
	printf '#!/bin/sh\nexit 101\n' >"$work/root/usr/sbin/policy-rc.d"
	chmod 755 "$work/root/usr/sbin/policy-rc.d"
	(
		cd "$work/root"
		rm -rf usr/share/{doc,info,locale,man}/* var/cache/apt/* var/lib/apt/lists/* \
			var/log/{bootstrap.log,dpkg.log,alternatives.log} debootstrap etc/hostname etc/resolv.conf
		tar --numeric-owner -c .
	) | docker import -c 'CMD ["bash"]' - "$image" >/dev/null
	cleanup
	work=
}

debian_mirror() {
	local mirror=${DEBIAN_MIRROR:-}
	if [ -z "$mirror" ]; then
		mirror=$(grep -rhEo '^(deb[^#]*|URIs: *)https?://[^ ]*/debian/?( |$)' \
			/etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
			grep -Eo 'https?://[^ ]*' | head -n 1 || true)
	fi
	[ -n "$mirror" ] ||
		die "base images can neither be pulled nor made: the host's apt sources name no Debian mirror; set DEBIAN_MIRROR=http://.../debian"
	echo "${mirror%/}"
}

debian_sources() {
	echo "deb $2 $1 main"
	case $1 in
	bookworm)
		echo "deb $2 $1-updates main"
		echo "deb ${2}-security $1-security main"
		;;
	esac
}

# debian_image SUITE prints the name of a Debian image of that suite, made if need be.
debian_image() {
	local image=lbctl-base/debian:$1
	[ "$1" = bookworm ] && image=debian:bookworm-slim
	have "$image" || debian "$1" "$image" >&2
	echo "$image"
}

golang() {
	local goroot base
	command -v go >/dev/null || die "$1 can neither be pulled nor made: no Go toolchain on PATH"
	case $(go env GOVERSION) in
	go1.26*) ;;
	*) die "$1 can neither be pulled nor made: Go on PATH is $(go env GOVERSION), want go1.26" ;;
	esac
	goroot=$(go env GOROOT)
	base=$(debian_image bookworm)
	say "putting $(go env GOVERSION) of $goroot into $1"
	context
	# api, doc and test are not needed to build.
	tar -C "$goroot" --exclude=./api --exclude=./doc --exclude=./test -cf "$work/go.tar" .
	# The build must trust the host's CAs: the Go mirror may have one of its own.
	if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
		cp -L /etc/ssl/certs/ca-certificates.crt "$work/"
	else
		die "$1 can neither be pulled nor made: no CA bundle at /etc/ssl/certs/ca-certificates.crt"
	fi
	cat >"$work/Dockerfile" <<-EOF
		FROM $base
		ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
		    GOPATH=/go GOTOOLCHAIN=local
		COPY ca-certificates.crt /etc/ssl/certs/
		ADD go.tar /usr/local/go/
		WORKDIR /go
	EOF
	docker_build "$1"
	docker run --rm "$1" go version >/dev/null || die "the stand-in for $1 does not run"
}

nginx() {
	local base
	base=$(debian_image forky) # the first Debian with nginx 1.30
	say "installing nginx into $1"
	context
	cat >"$work/Dockerfile" <<-EOF
		FROM $base
		RUN groupadd --system --gid 101 nginx \\
		 && useradd --system --uid 101 --gid nginx --no-create-home --home-dir /nonexistent --shell /bin/false nginx \\
		 && apt-get update -qq \\
		 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nginx libnginx-mod-stream ca-certificates >/dev/null \\
		 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \\
		 && ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log
		EXPOSE 80
		STOPSIGNAL SIGQUIT
		CMD ["nginx", "-g", "daemon off;"]
	EOF
	docker_build "$1"
	docker run --rm "$1" /usr/sbin/nginx -v 2>&1 | grep -q 'nginx/1\.30' ||
		die "the stand-in for $1 has $(docker run --rm "$1" /usr/sbin/nginx -v 2>&1), want nginx 1.30"
}

consul() {
	local base binary
	base=$(debian_image bookworm)
	binary=$root/bin/consul
	[ -x "$binary" ] || make -C "$root" --no-print-directory bin/consul
	say "putting $("$binary" version | head -n 1) into $1"
	context
	cp "$binary" "$work/consul"
	cp "$here/consul-entrypoint.sh" "$work/docker-entrypoint.sh"
	cat >"$work/Dockerfile" <<-EOF
		FROM $base
		RUN groupadd --system --gid 1000 consul && useradd --system --uid 100 --gid consul --no-create-home consul \\
		 && mkdir -p /consul/data /consul/config && chown -R consul:consul /consul
		COPY consul /bin/consul
		COPY docker-entrypoint.sh /usr/local/bin/
		VOLUME /consul/data
		EXPOSE 8300 8301 8301/udp 8302 8302/udp 8500 8600 8600/udp
		ENTRYPOINT ["docker-entrypoint.sh"]
		CMD ["agent", "-dev", "-client", "0.0.0.0"]
	EOF
	docker_build "$1"
	docker run --rm --entrypoint /bin/consul "$1" version >/dev/null ||
		die "bin/consul does not run in $base; remove it and run \`make bin/consul\`, which links it statically"
}

context() {
	cleanup
	work=$(mktemp -d)
}

docker_build() {
	local log=$work.log
	if ! docker build -t "$1" "$work" >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		rm -f "$log"
		die "cannot build the stand-in for $1"
	fi
	rm -f "$log"
	cleanup
	work=
}

main "$@"
