# shellcheck shell=bash
# shellcheck disable=SC2154 # base-images.sh sets them
# Stand-ins for the images of docker-compose.observability.yaml, sourced by base-images.sh. They
# take the same files, arguments and environment as the public images:
#
#   prom/prometheus               Debian's, which finds services in Consul with the help of standin
#   prom/alertmanager             Debian's
#   victoriametrics/victoria-logs the real one, from its Go module
#   grafana/grafana               standin, which draws our dashboards
#   jaegertracing/jaeger          standin, which takes and shows spans
#
# standin is build/observability/standin.

# standin_sources names what the stand-ins are made of, so that a changed one is made again.
standin_sources() {
	cat "$here/observability.sh" "$root"/build/observability/standin/*.go "$root"/build/observability/standin/pages/* "$root/build/observability/tools/go.sum" | sha256sum | cut -c1-16
}

# outdated tells whether an image is a stand-in made of other sources than today's.
outdated() {
	local of
	of=$(docker image inspect -f '{{index .Config.Labels "lbctl.standin"}}' "$1" 2>/dev/null) || return 1
	[ -n "$of" ] && [ "$of" != "$(standin_sources)" ]
}

# remove_former removes the stand-ins that have no name any more, because another image has got it,
# and that no container uses. One that is in use now is removed another time.
remove_former() {
	docker image prune -f --filter label=lbctl.standin >/dev/null ||
		say "the images of former stand-ins are left: docker image prune"
}

prometheus() {
	standin_program standin
	cat >"$work/Dockerfile" <<-EOF
		FROM $(tools_image)
		RUN install -d -o nobody -g nogroup /prometheus /etc/prometheus
		COPY standin /usr/local/bin/
		USER nobody
		VOLUME /prometheus
		WORKDIR /prometheus
		EXPOSE 9090
		ENTRYPOINT ["standin", "prometheus"]
		CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
		LABEL lbctl.standin=$(standin_sources)
	EOF
	docker_build "$1"
}

alertmanager() {
	context
	cat >"$work/Dockerfile" <<-EOF
		FROM $(tools_image)
		RUN install -d -o nobody -g nogroup /alertmanager && ln -s prometheus-alertmanager /usr/bin/alertmanager
		USER nobody
		VOLUME /alertmanager
		WORKDIR /alertmanager
		EXPOSE 9093
		ENTRYPOINT ["/bin/alertmanager"]
		CMD ["--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"]
		LABEL lbctl.standin=$(standin_sources)
	EOF
	docker_build "$1"
}

victoria_logs() {
	standin_program victoria-logs
	cat >"$work/Dockerfile" <<-EOF
		FROM $(tools_image)
		RUN install -d -o nobody -g nogroup /vlogs
		COPY victoria-logs /usr/local/bin/
		USER nobody
		VOLUME /vlogs
		EXPOSE 9428
		ENTRYPOINT ["victoria-logs"]
		LABEL lbctl.standin=$(standin_sources)
	EOF
	docker_build "$1"
}

grafana() {
	standin_program standin
	cat >"$work/Dockerfile" <<-EOF
		FROM $(tools_image)
		COPY standin /usr/local/bin/
		RUN printf '#!/bin/sh\\nexec standin grafana\\n' >/run.sh && chmod 755 /run.sh
		USER nobody
		EXPOSE 3000
		ENTRYPOINT ["/run.sh"]
		LABEL lbctl.standin=$(standin_sources)
	EOF
	docker_build "$1"
	say "the stand-in for Grafana shows the dashboards, and does no more"
}

jaeger() {
	standin_program standin
	cat >"$work/Dockerfile" <<-EOF
		FROM $(tools_image)
		COPY standin /usr/local/bin/
		USER nobody
		EXPOSE 4317 4318 16686
		ENTRYPOINT ["standin", "traces"]
		LABEL lbctl.standin=$(standin_sources)
	EOF
	docker_build "$1"
}

# standin_program makes a context with a program of bin/, built if need be.
standin_program() {
	make -C "$root" --no-print-directory "bin/$1" >&2
	context
	cp "$root/bin/$1" "$work/"
}

# tools_image prints the name of a Debian image with the packages that the stand-ins need: wget for
# health checks comes from busybox, as in the public images.
tools_image() {
	local image=lbctl-base/observability:bookworm base
	if ! have "$image"; then
		base=$(debian_image bookworm)
		say "installing Prometheus and Alertmanager into $image" >&2
		local log
		log=$(mktemp)
		docker build -t "$image" - >"$log" 2>&1 <<-EOF || { tail -n 30 "$log" >&2; rm -f "$log"; die "cannot build $image"; }
			FROM $base
			RUN apt-get update -qq \\
			 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus prometheus-alertmanager busybox >/dev/null \\
			 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /etc/prometheus \\
			 && ln -s /bin/busybox /usr/bin/wget
		EOF
		rm -f "$log"
	fi
	echo "$image"
}
