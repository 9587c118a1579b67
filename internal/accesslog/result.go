package accesslog

import "bytes"

// grpcStatusNames are the names of gRPC's statuses, by number.
var grpcStatusNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// GRPCStatusName returns the name of a grpc-status as gRPC's specification writes it: "OK",
// "UNAVAILABLE". It returns "OTHER" for a number that gRPC does not have, and "" for less than 0,
// which is none.
func GRPCStatusName(code int) string {
	switch {
	case code < 0:
		return ""
	case code >= len(grpcStatusNames):
		return "OTHER"
	default:
		return grpcStatusNames[code]
	}
}

// GRPCStatusNames returns the names of gRPC's 17 statuses, by number.
func GRPCStatusNames() []string { return append([]string{}, grpcStatusNames[:]...) }

// ServerError reports whether OpenTelemetry counts a grpc-status as an error of the server:
// UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS.
func ServerError(code int) bool {
	switch code {
	case 2, 4, 12, 13, 14, 15:
		return true
	}
	return false
}

// The results of a try.
const (
	ResultSuccess    = "success"
	Result4xx        = "4xx" // another try followed, or it is no answer of gRPC; any other one is a success
	Result5xx        = "5xx"
	ResultConnect    = "connect"     // nginx could not connect
	ResultTimeout    = "timeout"     // the instance did not answer in time, or within the client's deadline
	ResultReset      = "reset"       // the instance broke off without an answer, or sent none that nginx understands
	ResultCancelled  = "cancelled"   // the client left; after the headers it may be the instance that broke off: nginx does not say
	ResultNoInstance = "no-instance" // there was no instance to try
	ResultBusy       = "busy"        // each instance has as many connections as it may have, or nginx has marked it as failed
)

// sentinel is the address of an upstream without instances: see the package resolver.
const sentinel = "127.0.0.1:0"

// Result returns what became of the nth try: one of the results above, or the name of a gRPC
// status for which ServerError is true. grpc says that the request is a gRPC call.
func (r *Record) Result(n int, grpc bool) string {
	t, last := &r.Tries[n], n == len(r.Tries)-1
	switch {
	case string(t.Address) == sentinel:
		return ResultNoInstance
	case bytes.IndexByte(t.Address, ':') < 0:
		return ResultBusy
	case r.TCP:
		return r.sessionResult(t, last)
	case t.Status == 0:
		return r.ended(last)
	case !t.Answered():
		if grpc && last && t.Connect >= 0 && r.Expired() {
			return ResultTimeout // a server may break a call off at the client's deadline
		}
		return t.failure()
	case t.Status >= 500:
		return Result5xx
	case (!last || r.OwnError > 0 || grpc) && t.Status >= 400:
		return Result4xx
	case !last || r.OwnError > 0:
		return ResultSuccess
	case grpc && r.GRPCStatus >= 0:
		if ServerError(r.GRPCStatus) {
			return GRPCStatusName(r.GRPCStatus)
		}
		return ResultSuccess
	case grpc && r.Expired() || !r.Completed:
		return r.ended(last)
	case grpc:
		return GRPCStatusName(2) // UNKNOWN: what clients make of an answer without a status
	}
	return ResultSuccess
}

// ended is the result of a try that had no end.
func (r *Record) ended(last bool) string {
	if last && r.Expired() {
		return ResultTimeout
	}
	return ResultCancelled
}

// failure is the result of a try without an answer.
func (t *Try) failure() string {
	switch {
	case t.Connect < 0:
		return ResultConnect
	case t.Status == 504:
		return ResultTimeout
	}
	return ResultReset
}

// ClientGRPCStatus is the grpc-status that the client of a gRPC call saw; -1 if none. At the
// deadline of a call the client makes it itself: DEADLINE_EXCEEDED. An answer of nginx's own comes too
// late then.
func (r *Record) ClientGRPCStatus() int {
	if (r.GRPCStatus < 0 || r.OwnError > 0) && r.Expired() {
		return 4
	}
	return r.GRPCStatus
}
