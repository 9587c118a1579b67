package policy

import "time"

// Buffering says whether nginx collects requests and answers before it passes them on.
type Buffering struct {
	Request        Switch
	RequestMemory  Size
	Response       Switch
	ResponseMemory Size
}

// ResponseBuffers returns ResponseMemory as a number of buffers of 16k.
func (b Buffering) ResponseBuffers() int { return int((b.ResponseMemory + 16<<10 - 1) / (16 << 10)) }

// Keepalive is about the connections to instances that nginx keeps for other requests.
type Keepalive struct {
	Connections int
	Requests    int
	Timeout     Duration
}

var onlyHTTP = families(HTTP)

var bufferingFields = []Field{
	field("buffering.request", func(p *Policy) *Switch { return &p.Buffering.Request }, switches(), "on",
		"Whether nginx collects the body of a request before it passes it on. It frees an instance from slow clients, and costs time and disk. nginx never buffers gRPC, but for the methods of retry.safe.",
		onlyHTTP, defaults(string(Off)), perPath),
	field("buffering.request-memory", func(p *Policy) *Size { return &p.Buffering.RequestMemory }, sizes(1<<10, 64<<20), "256k",
		"How much of a buffered request is in memory. A larger one is in a file of nginx's run directory.",
		defaults("16k"), unit("bytes"), perPath),
	field("buffering.response", func(p *Policy) *Switch { return &p.Buffering.Response }, switches(), "on",
		"Whether nginx collects an answer in memory while the client takes it slowly, so that the instance is done sooner. Event streams then arrive late. An instance can ask for it with X-Accel-Buffering: yes, and with it can refuse it by no.",
		onlyHTTP, defaults(string(Off)), perPath),
	field("buffering.response-memory", func(p *Policy) *Size { return &p.Buffering.ResponseMemory }, sizes(128<<10, 64<<20), "1m",
		"How much of an answer nginx buffers, in steps of 16k. It writes no answer to disk: the instance waits when the memory is full.",
		onlyHTTP, defaults("128k"), unit("bytes"), perPath),
}

var keepaliveFields = []Field{
	field("keepalive.connections", func(p *Policy) *int { return &p.Keepalive.Connections }, wholes(1, 10000), "256",
		"How many idle connections to the service's instances each worker of nginx keeps.",
		defaults("64"), unit("connections")),
	field("keepalive.requests", func(p *Policy) *int { return &p.Keepalive.Requests }, wholes(1, 100_000_000), "1000",
		"How many requests nginx sends over one connection to an instance. A low number spreads connections anew more often.",
		defaults("100000"), unit("requests")),
	field("keepalive.timeout", func(p *Policy) *Duration { return &p.Keepalive.Timeout }, durations(10*time.Millisecond, 24*time.Hour), "10s",
		"How long a connection to an instance may be idle before nginx closes it. It must be less than the instance's own time: if the instance closes first, a request that nginx sends at that moment is lost. "+
			"gunicorn closes after 2 seconds, and Node.js, Apache and uvicorn after 5.",
		defaults(GRPC, "1m", HTTP, "1500ms"), unit("duration")),
}
