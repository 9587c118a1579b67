package traffic

import (
	"slices"

	"lbctl/internal/accesslog"
)

// Success is the Result of a try whose instance answered as it should.
const Success = accesslog.ResultSuccess

// The functions below return all values of a field, for those who list them.

// Codes returns the values of Requests.Code.
func Codes() []string { return slices.Clone(codeNames[:]) }

// GRPCStatuses returns the values of Requests.GRPCStatus, except for the empty one.
func GRPCStatuses() []string { return slices.Clone(statusNames[:noStatus]) }

// Results returns the values of Result.Result.
func Results() []string { return slices.Clone(resultNames[:]) }

// SessionResults returns the values of Result.Result of sessions: "success", or why nginx ended the
// session itself.
func SessionResults() []string { return slices.Clone(sessionResults[:]) }

// TryResults returns the values of Result.Result of tries to have a session taken.
func TryResults() []string {
	return []string{accesslog.ResultSuccess, accesslog.ResultCancelled, accesslog.ResultConnect}
}

// Refusals returns the keys of Service.Refused.
func Refusals() []string { return slices.Clone(refusals[:]) }

// RetryReasons returns the keys of Service.Retries.
func RetryReasons() []string { return slices.Clone(retryReasons[:]) }
