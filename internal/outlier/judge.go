package outlier

import (
	"strconv"
	"strings"

	"lbctl/internal/accesslog"
)

// verdict is what a try says about its instance.
type verdict int

const (
	unknown verdict = iota // nothing: the client did not wait, or nobody knows how the call ended
	success
	failure
)

// errorNames are the gRPC statuses with which a server says that it has failed itself. With the
// others it answers as it should: even DEADLINE_EXCEEDED is about the time that the client gave,
// and UNIMPLEMENTED about what it asked for.
var errorNames = map[int]string{2: "UNKNOWN", 13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS"}

// judge returns what the nth try of a request says about its instance, and for a failure why, in
// a few words.
func judge(r *accesslog.Record, n int, grpc bool) (v verdict, why string) {
	try := &r.Tries[n]
	if grpc && n == len(r.Tries)-1 && r.Expired() {
		return unknown, "" // a client that gives little time must not eject instances
	}
	switch {
	case try.Status == 0:
		return unknown, ""
	case try.Status >= 500 && try.Status != 501:
		if try.Answered() {
			return failure, strconv.Itoa(try.Status)
		}
		if try.Status == 504 {
			return failure, "no answer in time"
		}
		return failure, "no answer"
	case !try.Answered():
		return unknown, ""
	case grpc && try.Status == 200 && r.GRPCStatus < 0:
		return unknown, "" // the call has no end: the client has left, or the instance has broken it off
	case grpc && try.Status == 200 && errorNames[r.GRPCStatus] != "":
		return failure, errorNames[r.GRPCStatus]
	}
	return success, ""
}

// causes are the reasons of failures, the latest last, without repetitions.
type causes []string

// maxCauses bounds causes, because an instance can send many statuses.
const maxCauses = 4

func (c *causes) add(why string) {
	for n, known := range *c {
		if known == why {
			copy((*c)[n:], (*c)[n+1:])
			(*c)[len(*c)-1] = why
			return
		}
	}
	if len(*c) == maxCauses {
		copy(*c, (*c)[1:])
		(*c)[maxCauses-1] = why
		return
	}
	*c = append(*c, why)
}

func (c causes) String() string { return strings.Join(c, ", ") }
