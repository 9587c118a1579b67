package policy

import (
	"slices"
	"strings"
	"time"
)

// Retry says when nginx sends a request to another instance.
type Retry struct {
	On      []RetryOn
	Tries   int // the first one included
	Timeout Duration
	// Safe says that a request may be sent a second time, although an instance may have acted on
	// it already.
	Safe Switch
}

// RetryOn is a condition for another try, in nginx's words.
type RetryOn string

// NoRetry is the RetryOn for a single try; it stands alone.
const NoRetry RetryOn = "off"

// safeSince is the first nginx that sends gRPC by proxy_pass.
const safeSince = "1.29.4"

var retryFields = []Field{
	field("retry.on", func(p *Policy) *[]RetryOn { return &p.Retry.On }, retryConditions(), "error, timeout, http_503",
		"When nginx sends a request to another instance. error: it can't connect, or the connection breaks off (Envoy: connect-failure, reset). timeout: timeout.connect or timeout.read is over. invalid_header: the answer is not HTTP, or the instance resets the HTTP/2 stream. "+
			"http_...: the instance answers with that status. off: never. Without retry.safe, nginx does this only while it has sent nothing of the request, or if the method is idempotent and the request has no body.",
		defaults("error, timeout"), perPath),
	field("retry.tries", func(p *Policy) *int { return &p.Retry.Tries }, wholes(1, 20), "2",
		"How many instances nginx tries for a request, the first one included.",
		everyFamily, defaults("3"), unit("instances"), perPath),
	field("retry.timeout", func(p *Policy) *Duration { return &p.Retry.Timeout }, durations(10*time.Millisecond, 24*time.Hour), "10s",
		"For how long after the start of a request nginx still begins a new try. With the condition timeout, it must be longer than timeout.read, or nothing is tried again after it.",
		everyFamily, defaults("3s"), unit("duration"), perPath),
	field("retry.safe", func(p *Policy) *Switch { return &p.Retry.Safe }, switches(), "on",
		"Whether nginx may send the requests for a path a second time, although an instance may have acted on them already. It is for paths only. nginx then buffers the request. For gRPC it is for single methods, which must be unary: "+
			"a call of a buffered stream never ends. Such calls cost nginx about twice as much, because it keeps no connections for them.",
		defaults(string(Off)), perPath, suits(func(family string, v Value) string {
			if v.Path == "" {
				return `it has no effect on a whole service: want it in "paths", for each path or method that may be sent twice`
			}
			if family == GRPC && strings.Count(string(v.Path), "/") != 2 {
				return `it has no effect: want it for single unary methods, "/package.Service/Method"`
			}
			return ""
		}), sinceOf(GRPC, safeSince)),
}

func retryConditions() kind[[]RetryOn] {
	k := listsOf(`"off", or some of "error", "timeout", "invalid_header", "http_403", "http_404", "http_429", "http_500", "http_502", "http_503" and "http_504", separated by commas`, 10,
		oneOf[RetryOn]("error", "timeout", "invalid_header", "http_403", "http_404", "http_429", "http_500", "http_502", "http_503", "http_504", NoRetry))
	parse := k.parse
	k.parse = func(text string) ([]RetryOn, bool) {
		list, ok := parse(text)
		slices.Sort(list)
		list = slices.Compact(list)
		return list, ok && (len(list) == 1 || !slices.Contains(list, NoRetry))
	}
	return k
}
