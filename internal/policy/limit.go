package policy

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Limit bounds the requests of a service: above a limit, nginx refuses them.
type Limit struct {
	// Address bounds the requests of each client address.
	Address CallerLimit
	// Service bounds all requests.
	Service CallerLimit
	// Header bounds the requests with the same value of a header.
	Header HeaderLimit
	// Body is the maximum size of a request's body, or of all messages of a call.
	Body Size
}

// CallerLimit bounds the requests of one caller, or of all callers together.
type CallerLimit struct {
	Rate  Rate
	Burst int // 0: the requests of one second
	Conns int // requests, calls or TCP connections at a time
}

// HeaderLimit bounds the requests by the values of headers.
type HeaderLimit struct {
	Rate  []Pair // of the name of a header, in lower case, and a Rate
	Burst int    // of each header; 0: the requests of one second
}

// Rate is a number of requests by time, "100/s" or "30/m"; "" means that it is not set.
type Rate string

var ratePattern = regexp.MustCompile(`^[1-9][0-9]{0,6}/[sm]$`)

// maxRate is the maximum number of a Rate, for a second or a minute.
const maxRate = 1_000_000

const wantRate = `requests by second or minute, such as 100/s or 30/m, at most 1000000`

func validRate(text string) bool {
	if !ratePattern.MatchString(text) {
		return false
	}
	n, _ := Rate(text).parts()
	return n <= maxRate
}

func rates() kind[Rate] {
	k := texts[Rate](wantRate, validRate)
	k.bounds = []string{"1/m", "1000000/s"}
	return k
}

// parts returns the number of requests and the time.
func (r Rate) parts() (n int, per time.Duration) {
	number, unit, _ := strings.Cut(string(r), "/")
	n, _ = strconv.Atoi(number) // validRate has checked it
	if unit == "m" {
		return n, time.Minute
	}
	return n, time.Second
}

// Nginx returns the rate in nginx's form: "100r/s".
func (r Rate) Nginx() string { return strings.Replace(string(r), "/", "r/", 1) }

// Second returns the requests of one second, at least 1.
func (r Rate) Second() int {
	n, per := r.parts()
	return max(1, n*int(time.Second)/int(per))
}

// Wait returns the time after which a caller that was refused is admitted again, in whole
// seconds: at least 1.
func (r Rate) Wait() int {
	n, per := r.parts()
	seconds := int(per / time.Second)
	return max(1, (seconds+n-1)/n)
}

// limitHeader matches the headers by whose values requests can be told apart. nginx has a
// variable for each: $http_x_api_key.
var limitHeader = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$`)

const (
	maxBurst        = 1_000_000
	maxConns        = 1_000_000 // to an instance; no server has so many connections
	maxLimitConns   = 65_535    // nginx refuses more for limit_conn
	maxLimitHeaders = 4
)

const (
	docBurst = "How many requests above the rate are admitted at once. nginx admits rate x time + burst requests, and delays none. The default is the rate of one second, at least 1."
	docConns = "nginx counts each HTTP/2 stream by itself. Above it, a request gets a 429, a call RESOURCE_EXHAUSTED, and nginx closes a TCP connection. It counts on each load balancer by itself."
)

var limitFields = []Field{
	field("max-conns", func(p *Policy) *int { return &p.MaxConns }, wholes(1, maxConns), "200",
		"How many connections nginx may have to each instance at a time. nginx tries another instance, and if all are busy, a client gets a 503, or RESOURCE_EXHAUSTED. "+
			"An instance may have an lb-max-conns of its own in its metadata. If the instances then differ, lbctl delivers them by reload, because DNS can't carry the value.",
		everyFamily, unit("connections")),

	field("limit.address.rate", func(p *Policy) *Rate { return &p.Limit.Address.Rate }, rates(), "100/s",
		"How many requests each client address may send. Above it, a request gets a 429 with Retry-After, and a call RESOURCE_EXHAUSTED with grpc-retry-pushback-ms. "+
			"Each load balancer counts by itself. It remembers the last 8,000 addresses or so, in 1 MB of memory.",
		unit("requests/time"), perPath),
	field("limit.address.burst", func(p *Policy) *int { return &p.Limit.Address.Burst }, wholes(1, maxBurst), "20",
		docBurst, unit("requests"), perPath),
	field("limit.address.conns", func(p *Policy) *int { return &p.Limit.Address.Conns }, wholes(1, maxLimitConns), "50",
		"How many requests, calls or TCP connections each client address may have at a time. "+docConns,
		everyFamily, unit("requests"), perPath),

	field("limit.service.rate", func(p *Policy) *Rate { return &p.Limit.Service.Rate }, rates(), "1000/s",
		"How many requests the service gets from all clients together. Above it, they get the same answers as above limit.address.rate.",
		unit("requests/time"), perPath),
	field("limit.service.burst", func(p *Policy) *int { return &p.Limit.Service.Burst }, wholes(1, maxBurst), "200",
		docBurst, unit("requests"), perPath),
	field("limit.service.conns", func(p *Policy) *int { return &p.Limit.Service.Conns }, wholes(1, maxLimitConns), "500",
		"How many requests, calls or TCP connections the service has at a time, from all clients together. "+docConns,
		everyFamily, unit("requests"), perPath),

	field("limit.header.rate", func(p *Policy) *[]Pair { return &p.Limit.Header.Rate },
		pairsOf(`up to 4 names of headers in lower case, each with a rate, such as "x-api-key=10/s"; a rate is `+wantRate, maxLimitHeaders,
			func(name, value string) bool { return limitHeader.MatchString(name) && validRate(value) }),
		"x-api-key=10/s",
		"How many requests with the same value of a header the service gets. Requests without the header are not limited. Above it, requests get the same answers as above limit.address.rate. "+
			"nginx remembers the last values in 1 MB of memory for each header.",
		unit("requests/time"), perPath),
	field("limit.header.burst", func(p *Policy) *int { return &p.Limit.Header.Burst }, wholes(1, maxBurst), "20",
		docBurst, unit("requests"), perPath),

	field("limit.body", func(p *Policy) *Size { return &p.Limit.Body }, sizes(1, 1<<40), "10m",
		"The maximum size of a request's body. A larger one gets a 413. For gRPC it is the size of all messages of a call that the client sends, each with 5 bytes more, so it also ends a long stream; a larger call gets RESOURCE_EXHAUSTED, or INTERNAL if its answer has begun.",
		unit("bytes"), perPath),
}

// MaxConnsOf returns the max-conns of an instance that has the given value in its own metadata; 0
// is none, in both. What most instances have in their metadata does not count for the others.
func (s Settings) MaxConnsOf(own int) int {
	value := own
	for _, l := range s.Layers() {
		text, said := l.Document.fields["max-conns"]
		if !said || own > 0 && l.Level != LevelService || l.Level == LevelMetadata && text != BuiltIn {
			continue
		}
		value, _ = strconv.Atoi(text) // BuiltIn is no number: 0
	}
	return value
}
