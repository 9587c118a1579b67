#!/usr/bin/env bash
# Copies the output of an image build to a file, and shows each step that takes longer
# than a moment. It knows the lines of the classic builder and of BuildKit.
#
#   docker-compose build 2>&1 | progress.sh LOG
set -euo pipefail

log=${1:?usage: $0 LOG}
moment=3 # seconds

image=
step=
since=0

# note LINE remembers which image and step a line begins.
note() {
	case $1 in
	'Building '*) image="${1#Building }, " ;;
	'Step '*) begin "${1#Step }" ;;
	'#'*' ['*']'*) begin "${1#* }" ;;
	'Successfully built '*) step= ;;
	esac
}

begin() {
	step=$1
	since=$SECONDS
}

show() {
	if [ -n "$step" ] && [ $((SECONDS - since)) -ge "$moment" ]; then
		printf 'build:   %s%.100s\n' "$image" "$step"
		step=
	fi
}

: >"$log"
while :; do
	status=0
	IFS= read -r -t 1 line || status=$?
	if [ "$status" = 0 ]; then
		printf '%s\n' "$line" >>"$log"
		note "$line"
	elif [ "$status" -le 128 ]; then
		[ -z "$line" ] || printf '%s\n' "$line" >>"$log"
		break # the build has ended
	fi
	show
done
