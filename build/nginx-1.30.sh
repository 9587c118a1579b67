#!/usr/bin/env bash
# Puts an nginx 1.30, for the local cluster and the tests, at the path that the first
# argument names. It comes from a Debian suite that has it. The path becomes a link
# into a folder of the same name with .d behind it. The folder also holds nginx's
# stream module and the libraries it was linked against, so that it runs on a host
# with other libraries. The host's nginx and package lists stay as they are.
set -euo pipefail

out=$(realpath -ms "${1:?usage: $0 OUTPUT-FILE}")
suite=${NGINX_SUITE:-forky}
fail() { echo "nginx 1.30: $*" >&2; exit 1; }

command -v apt-get >/dev/null || fail "needs a Debian-like system with apt-get; put an nginx 1.30 at $out instead"
command -v patchelf >/dev/null || { echo "nginx 1.30: installing patchelf"; apt-get install -qq -y --no-install-recommends patchelf >/dev/null; }

# This host's mirror has other suites too.
mirror=$(grep -rhEo 'https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
	head -n 1 | tr -d ' ' || true)
[ -n "$mirror" ] || fail "no Debian mirror in the host's apt sources"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb $mirror $suite main" >"$work/sources.list"
apt() {
	apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
		-o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@"
}
touch "$work/status" # nothing counts as installed: the libraries come along

echo "nginx 1.30: fetching it and its libraries from Debian $suite"
apt update
(cd "$work" && apt download nginx libnginx-mod-stream libc6 libcrypt1 libpcre2-8-0 libssl3t64 zlib1g libzstd1)

tree=$out.d
rm -rf "$tree" && mkdir -p "$tree/root" "$tree/lib" "$tree/modules"
for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$tree/root"; done
find "$tree/root" -regextype posix-extended -regex '.*/lib/[^/]+-linux-gnu/[^/]+\.so[^/]*' -exec cp -a -t "$tree/lib" {} +
loader=$(find "$tree/lib" -name 'ld-linux-*.so.*' | head -n 1)
[ -n "$loader" ] || fail "no dynamic loader in the packages of $suite"

find "$tree/root" -path '*/nginx/modules/*.so' -exec cp -t "$tree/modules" {} +
install -m 755 "$tree/root/usr/sbin/nginx" "$tree/nginx"
patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$tree/lib" "$tree/nginx"
ln -sfn "$(basename "$tree")/nginx" "$out"
rm -rf "$tree/root"
echo "nginx 1.30: $("$out" -v 2>&1) at $out"
