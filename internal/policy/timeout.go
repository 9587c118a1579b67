package policy

import "time"

// Timeout has the times after which nginx gives up on an instance.
type Timeout struct {
	Connect Duration
	Read    Duration
	Send    Duration
}

var timeoutFields = []Field{
	field("timeout.connect", func(p *Policy) *Duration { return &p.Timeout.Connect }, durations(10*time.Millisecond, time.Minute), "1s",
		"How long nginx tries to connect to an instance before it tries another one. The default is less than a second, because Linux repeats a lost SYN only after a second, and the next instance is faster.",
		everyFamily, defaults("500ms"), unit("duration"), perPath),
	field("timeout.read", func(p *Policy) *Duration { return &p.Timeout.Read }, durations(10*time.Millisecond, 24*time.Hour), "5s",
		"How long an instance may be silent: the time between two reads of its answer, not the whole time of the answer. A gRPC client then gets DEADLINE_EXCEEDED, an HTTP client 504. For TCP it is the time in which neither side sends.",
		everyFamily, defaults(GRPC, "1h", HTTP, "5m", TCP, "1h"), unit("duration"), perPath),
	field("timeout.send", func(p *Policy) *Duration { return &p.Timeout.Send }, durations(10*time.Millisecond, 24*time.Hour), "5s",
		"How long an instance may take no more of a request: the time between two writes to it.",
		defaults(GRPC, "1h", HTTP, "5m"), unit("duration"), perPath),
}
