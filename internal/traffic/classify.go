package traffic

import (
	"slices"
	"strconv"

	"lbctl/internal/accesslog"
)

// statusNames are the values of Requests.GRPCStatus: the statuses of gRPC by number, and those of
// calls without one of them.
var statusNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	otherStatus: "OTHER", // a number that gRPC does not know
	callEnded:   "NONE",  // the client got none
	noStatus:    "",      // it is not gRPC
}

const (
	deadlineExceeded = 4

	otherStatus = 17
	callEnded   = 18
	noStatus    = 19
)

// serverErrors are the gRPC statuses that are a server's errors, by OpenTelemetry's conventions.
var serverErrors = [...]uint8{2, deadlineExceeded, 12, 13, 14, 15}

// StatusName returns the name of a gRPC status: "OK", or "OTHER" for a number that gRPC does not
// know.
func StatusName(grpcStatus int) string {
	if grpcStatus < 0 || grpcStatus >= otherStatus {
		return statusNames[otherStatus]
	}
	return statusNames[grpcStatus]
}

// IsError reports whether requests with these values of Requests are errors: status 5xx, or a gRPC
// status that is a server's error by OpenTelemetry's conventions.
func IsError(code, grpcStatus string) bool {
	status := slices.Index(statusNames[:], grpcStatus)
	return code == codeNames[5] || status >= 0 && isServerError(uint8(status))
}

func isServerError(status uint8) bool { return slices.Contains(serverErrors[:], status) }

func isError(k tallyKey) bool { return k.class == 5 || isServerError(k.grpc) }

// codeNames are the values of Requests.Code, by class.
var codeNames = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

func codeClass(status int) uint8 {
	if status < 100 || status > 599 {
		return 0
	}
	return uint8(status / 100)
}

// statusIndex returns the index in statusNames for a request. A call that ended at its deadline
// without a status counts as DEADLINE_EXCEEDED: that is what the client sees.
func statusIndex(r *accesslog.Record, grpc bool) uint8 {
	switch {
	case !grpc:
		return noStatus
	case r.GRPCStatus >= otherStatus:
		return otherStatus
	case r.GRPCStatus >= 0:
		return uint8(r.GRPCStatus)
	case r.Expired():
		return deadlineExceeded
	}
	return callEnded
}

// The results of a try. The first ones are not errors of the instance.
const (
	success = iota
	cancelled
	unlikeGRPC
	http5xx
	noConnection
	timedOut
	broken
	grpcErrors // and those that follow, in the order of serverErrors
	numResults = grpcErrors + len(serverErrors)
)

type results [numResults]uint64

// resultNames are the values of Result.Result.
var resultNames = func() (names [numResults]string) {
	names = [numResults]string{
		success: Success, cancelled: "cancelled", unlikeGRPC: "4xx", http5xx: "5xx", noConnection: "connect", timedOut: "timeout", broken: "reset",
	}
	for n, status := range serverErrors {
		names[grpcErrors+n] = statusNames[status]
	}
	return names
}()

// isFailure reports whether a result is an error of the instance.
func isFailure(result int) bool { return result > unlikeGRPC }

// judge returns the result of the nth try of a request.
func judge(r *accesslog.Record, n int, grpc bool) int {
	try, isLast := &r.Tries[n], n == len(r.Tries)-1
	switch {
	case try.Status == 0:
		if isLast && r.Expired() {
			return timedOut
		}
		return cancelled
	case !try.Answered():
		switch {
		case try.Connect < 0:
			return noConnection
		case try.Status == 504:
			return timedOut
		}
		return broken
	case try.Status >= 500:
		return http5xx
	case !isLast || r.OwnError > 0:
		if try.Status >= 400 {
			return unlikeGRPC // nginx tries again after a 403, 404 or 429 if it is told to
		}
		return success
	case grpc && try.Status != 200:
		return unlikeGRPC
	case grpc && r.GRPCStatus >= 0:
		if at := slices.Index(serverErrors[:], uint8(min(r.GRPCStatus, otherStatus))); at >= 0 {
			return grpcErrors + at
		}
		return success
	case grpc && r.Expired():
		return timedOut
	case !r.Completed:
		return cancelled // or the instance broke the answer off: nginx does not say
	case grpc:
		return grpcErrors // UNKNOWN: an answer without a status
	}
	return success
}

// text says for people what went wrong at an instance.
func (f failure) text() string {
	switch f.result {
	case http5xx:
		return "answered " + strconv.Itoa(int(f.status))
	case noConnection:
		return "no connection"
	case timedOut:
		return "no answer in time"
	case broken:
		return "broke off"
	}
	return resultNames[f.result]
}

// retryReasons are the keys of Service.Retries: why the try before failed.
var retryReasons = [...]string{
	"connect", "timeout", "reset", "status-403", "status-404", "status-429", "status-500", "status-502", "status-503", "status-504", "other",
}

// retryReason returns why nginx tried again after the nth try, as an index in retryReasons; -1 if
// that try had no instance.
func retryReason(r *accesslog.Record, n int, grpc bool) int {
	try := &r.Tries[n]
	if !isInstance(try.Address) {
		return -1
	}
	if try.Answered() {
		for n := 3; n < len(retryReasons)-1; n++ {
			if retryStatuses[n] == try.Status {
				return n
			}
		}
		return len(retryReasons) - 1
	}
	switch judge(r, n, grpc) {
	case noConnection:
		return 0
	case timedOut:
		return 1
	case broken:
		return 2
	}
	return len(retryReasons) - 1
}

// retryStatuses are the statuses in retryReasons.
var retryStatuses = [len(retryReasons)]int{3: 403, 4: 404, 5: 429, 6: 500, 7: 502, 8: 503, 9: 504}

// refusals are the keys of Service.Refused.
var refusals = [...]string{"denied", "unauthenticated", "rate-limit", "body-too-large", "headers-too-large", "maintenance", "max-conns"}

// refusal returns why nginx refused a request, as an index in refusals; -1 if it did not.
func refusal(r *accesslog.Record, inMaintenance bool) int {
	if r.OwnError == 0 {
		return -1
	}
	if len(r.Tries) > 0 {
		// With the name of the upstream in the place of an address, nginx found no instance with
		// room for one more.
		if last := r.Tries[len(r.Tries)-1].Address; len(r.Tries) == 1 && !hasPort(last) {
			return 6
		}
		return -1
	}
	switch r.OwnError {
	case 403:
		return 0
	case 401, 421, 496:
		return 1
	case 429:
		return 2
	case 413:
		return 3
	case 431:
		return 4
	case 503:
		if inMaintenance {
			return 5
		}
	}
	return -1
}

// isInstance reports whether the address of a try can be an instance's. It is the name of the
// upstream if nginx could try none, and has port 0 if the service has none.
func isInstance(address []byte) bool { return hasPort(address) && string(address) != "127.0.0.1:0" }

func hasPort(address []byte) bool { return slices.Contains(address, ':') }
