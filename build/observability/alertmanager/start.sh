#!/bin/sh
# Starts Alertmanager with alertmanager.yml, and with the URL of ALERT_WEBHOOK_URL in it if that is
# set: Alertmanager itself reads no environment variables. A POSIX shell and sed are all that it
# needs, as Alertmanager's image has little more.
set -eu

config=/etc/alertmanager/alertmanager.yml
if [ -n "${ALERT_WEBHOOK_URL:-}" ]; then
	url=$(printf '%s' "$ALERT_WEBHOOK_URL" | sed 's/[\\&|]/\\&/g')
	sed "s|- url: .*|- url: '$url'|" "$config" >/tmp/alertmanager.yml
	config=/tmp/alertmanager.yml
fi
exec /bin/alertmanager --config.file="$config" --storage.path=/alertmanager "$@"
