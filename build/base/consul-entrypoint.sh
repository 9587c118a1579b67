#!/bin/sh
# The stand-in's entry point takes the same arguments as the public image's:
# "agent ...", another consul command, or any other program.
set -e
case ${1:-} in
agent) shift; set -- consul agent -data-dir=/consul/data -config-dir=/consul/config "$@" ;;
version | members | info | operator | kv | catalog) set -- consul "$@" ;;
esac
if [ "$1" = consul ] && [ "$(id -u)" = 0 ]; then
	chown consul:consul /consul/data
	exec setpriv --reuid=consul --regid=consul --clear-groups "$@"
fi
exec "$@"
