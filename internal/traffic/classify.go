package traffic

import (
	"slices"
	"strconv"

	"lbctl/internal/accesslog"
)

// statusNames are the values of Requests.GRPCStatus: the statuses of gRPC by number, and those of
// calls without one of them.
var statusNames = append(accesslog.GRPCStatusNames(), "OTHER", "NONE", "")

// The indexes of the last ones of statusNames.
const (
	otherStatus = 17 // a number that gRPC does not know
	callEnded   = 18 // the client got none
	noStatus    = 19 // it is not gRPC
	numStatuses = 20
)

// IsError reports whether requests with these values of Requests are errors: status 5xx, or a gRPC
// status that is a server's error by OpenTelemetry's conventions.
func IsError(code, grpcStatus string) bool {
	return code == codeNames[5] || accesslog.ServerError(slices.Index(statusNames, grpcStatus))
}

func isError(k tallyKey) bool { return k.class == 5 || accesslog.ServerError(int(k.grpc)) }

// codeNames are the values of Requests.Code, by class.
var codeNames = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

func codeClass(status int) uint8 {
	if status < 100 || status > 599 {
		return 0
	}
	return uint8(status / 100)
}

// statusIndex returns the index in statusNames for a request.
func statusIndex(r *accesslog.Record, grpc bool) uint8 {
	if !grpc {
		return noStatus
	}
	switch status := r.ClientGRPCStatus(); {
	case status < 0:
		return callEnded
	case status < otherStatus:
		return uint8(status)
	}
	return otherStatus
}

// resultNames are the values of Result.Result. The first ones are not errors of the instance.
var resultNames = [...]string{
	accesslog.ResultSuccess, accesslog.ResultCancelled, accesslog.Result4xx,
	accesslog.Result5xx, accesslog.ResultConnect, accesslog.ResultTimeout, accesslog.ResultReset,
	"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
}

const (
	firstFailure = 3
	numResults   = len(resultNames)
)

// resultIndexes are the indexes of resultNames.
var resultIndexes = indexes(resultNames[:])

func indexes(names []string) map[string]int {
	all := make(map[string]int, len(names))
	for n, name := range names {
		all[name] = n
	}
	return all
}

type results [numResults]uint64

// isFailure reports whether a result is an error of the instance.
func isFailure(result int) bool { return result >= firstFailure }

// text says for people what went wrong at an instance.
func (f failure) text() string {
	switch name := resultNames[f.result]; name {
	case accesslog.Result5xx:
		return "answered " + strconv.Itoa(int(f.status))
	case accesslog.ResultConnect:
		return "no connection"
	case accesslog.ResultTimeout:
		return "no answer in time"
	case accesslog.ResultReset:
		return "broke off"
	default:
		return name
	}
}

// retryReasons are the keys of Service.Retries: why the try before failed.
var retryReasons = [...]string{
	accesslog.ResultConnect, accesslog.ResultTimeout, accesslog.ResultReset,
	"status-403", "status-404", "status-429", "status-500", "status-502", "status-503", "status-504", "other",
}

// retryStatuses are the statuses in retryReasons.
var retryStatuses = [len(retryReasons)]int{3: 403, 4: 404, 5: 429, 6: 500, 7: 502, 8: 503, 9: 504}

// retryReason returns why nginx tried again after a try, as an index in retryReasons.
func retryReason(try *accesslog.Try, result string) int {
	at := -1
	if try.Answered() {
		at = slices.Index(retryStatuses[:], try.Status)
	} else {
		at = slices.Index(retryReasons[:], result)
	}
	if at < 0 {
		return len(retryReasons) - 1
	}
	return at
}

// refusals are the keys of Service.Refused: the reasons of accesslog that are a matter of policy.
var refusals = [...]string{
	accesslog.ReasonDenied, accesslog.ReasonUnauthenticated, accesslog.ReasonRateLimit, accesslog.ReasonBodyTooLarge,
	accesslog.ReasonHeadersTooLarge, accesslog.ReasonMaintenance, accesslog.ReasonMaxConns,
}

// refusal returns why nginx refused a request, as an index in refusals; -1 if it did not.
func refusal(r *accesslog.Record, inMaintenance bool) int {
	if r.OwnError == 0 {
		return -1
	}
	reason := r.OwnReason(inMaintenance)
	switch {
	case reason == accesslog.ReasonClientCertificate || reason == accesslog.ReasonOtherHost:
		reason = accesslog.ReasonUnauthenticated
	case len(r.Tries) > 1 || len(r.Tries) == 1 && reason != accesslog.ReasonMaxConns:
		return -1 // it was tried
	}
	return slices.Index(refusals[:], reason)
}
