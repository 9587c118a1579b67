//go:build bench

package bench

import (
	"fmt"
	"runtime"
)

// workers is the number of workers of the hand-written nginx: one per core, as lbctl
// sets it for nginx 1.27.1 and newer.
var workers = runtime.NumCPU()

// A variant is a hand-written nginx that differs from the first one in one thing.
type variant struct {
	name    string
	conf    handwritten
	missing string // the program that it needs and that is missing
}

// nginxVariants are variants that may make a gRPC call cheaper. The first one is the
// reference for the others.
func nginxVariants(s *site, grpc, web *fleet) []variant {
	with := func(change func(*handwritten)) handwritten {
		h := handwritten{Workers: workers, Upstreams: grpc.upstream(64, true) + web.upstream(64, true)}
		change(&h)
		return h
	}
	upstreams := func(keepalive int, zone bool) handwritten {
		return with(func(h *handwritten) { h.Upstreams = grpc.upstream(keepalive, zone) + web.upstream(keepalive, zone) })
	}
	directives := func(text string) handwritten {
		return with(func(h *handwritten) { h.HTTP = text })
	}
	all := []variant{{name: "by hand", conf: with(func(*handwritten) {})}}
	for _, n := range []int{1, 2} {
		if n != workers {
			all = append(all, variant{name: fmt.Sprintf("%d workers", n), conf: with(func(h *handwritten) { h.Workers = n })})
		}
	}
	all = append(all,
		variant{name: "keepalive 16", conf: upstreams(16, true)},
		variant{name: "keepalive 32", conf: upstreams(32, true)},
		variant{name: "keepalive 256", conf: upstreams(256, true)},
		variant{name: "no zone", conf: upstreams(64, false)},
		variant{name: "grpc_buffer_size 4k", conf: directives("grpc_buffer_size 4k;")},
		variant{name: "grpc_buffer_size 16k", conf: directives("grpc_buffer_size 16k;")},
		variant{name: "http2_recv_buffer_size 64k", conf: directives("http2_recv_buffer_size 64k;")},
		variant{name: "http2_chunk_size 16k", conf: directives("http2_chunk_size 16k;")},
		variant{name: "tcp_nodelay off", conf: directives("tcp_nodelay off;")},
		variant{name: "postpone_output 0", conf: directives("postpone_output 0;")},
		variant{name: "worker_cpu_affinity auto", conf: with(func(h *handwritten) { h.Main = "worker_cpu_affinity auto;" })},
		variant{name: "access_log on, unbuffered", conf: with(func(h *handwritten) { h.AccessLog = "access.log" })},
		variant{name: "access_log on, buffered", conf: with(func(h *handwritten) { h.AccessLog = "access.log combined buffer=64k flush=200ms" })},
		variant{name: "no forwarding headers", conf: with(func(h *handwritten) { h.Mute = true })},
	)
	http2 := variant{name: "proxy_pass, HTTP/2", conf: with(func(h *handwritten) {
		h.GRPC = `proxy_pass http://` + grpcService + `; proxy_http_version 2; proxy_pass_trailers on; proxy_set_header TE trailers;
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;
      proxy_request_buffering off; proxy_buffering off;`
	})}
	if !atLeast(s.nginx.Version, 1, 29, 4) {
		http2.missing = "nginx 1.29.4"
	}
	return append(all, http2)
}
