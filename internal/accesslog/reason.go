package accesslog

// The reasons why nginx answers a request, or ends a session, itself.
const (
	ReasonDenied          = "denied"          // the client's network may not use the service, or its key is not allowed
	ReasonUnauthenticated = "unauthenticated" // there is no valid key
	ReasonRateLimit       = "rate-limit"      // too many requests in a time, or at a time
	ReasonBodyTooLarge    = "body-too-large"
	ReasonHeadersTooLarge = "headers-too-large"
	ReasonMaintenance     = "maintenance"
	ReasonMaxConns        = "max-conns" // each instance has as many connections as it may have, or is marked as failed

	ReasonNoRoute           = "no-route"
	ReasonNoInstance        = "no-instance"     // none is in rotation
	ReasonUnreachable       = "unreachable"     // nginx could not connect to an instance
	ReasonConnectTimeout    = "connect-timeout" // nginx could not connect in time
	ReasonTimeout           = "timeout"         // the instance did not answer in time
	ReasonNoAnswer          = "no-answer"       // the instance broke off, or its answer is none that nginx takes
	ReasonClientLeft        = "client-left"     // the client did not wait for the answer
	ReasonClientCertificate = "client-certificate"
	ReasonOtherHost         = "other-host" // the host wants a TLS connection of its own
	ReasonAuthUnavailable   = "auth-unavailable"
	ReasonGRPCWeb           = "grpc-web"
	ReasonMethod            = "method"
	ReasonPathTooLong       = "path-too-long"
	ReasonRequestTimeout    = "request-timeout" // the request did not arrive in time
	ReasonBadRequest        = "bad-request"
	ReasonInternal          = "internal" // nginx failed
)

// ownReasons are the reasons by the status of nginx's own error, where the status says it all.
var ownReasons = map[int]string{
	400: ReasonBadRequest, 401: ReasonUnauthenticated, 403: ReasonDenied, 404: ReasonNoRoute, 405: ReasonMethod,
	408: ReasonRequestTimeout, 411: ReasonBadRequest, 412: ReasonBadRequest, 413: ReasonBodyTooLarge,
	414: ReasonPathTooLong, 415: ReasonGRPCWeb, 416: ReasonBadRequest, 421: ReasonOtherHost, 429: ReasonRateLimit,
	431: ReasonHeadersTooLarge, 494: ReasonHeadersTooLarge, 495: ReasonClientCertificate, 496: ReasonClientCertificate,
	497: ReasonBadRequest, 501: ReasonBadRequest, 505: ReasonBadRequest,
}

// Reasons returns all reasons, those of refusals by the policy first.
func Reasons() []string {
	return []string{
		ReasonDenied, ReasonUnauthenticated, ReasonRateLimit, ReasonBodyTooLarge, ReasonHeadersTooLarge, ReasonMaintenance, ReasonMaxConns,
		ReasonNoRoute, ReasonNoInstance, ReasonUnreachable, ReasonConnectTimeout, ReasonTimeout, ReasonNoAnswer, ReasonClientLeft,
		ReasonClientCertificate, ReasonOtherHost, ReasonAuthUnavailable, ReasonGRPCWeb, ReasonMethod, ReasonPathTooLong,
		ReasonRequestTimeout, ReasonBadRequest, ReasonInternal,
	}
}

// OwnReason says in a word why nginx answered a request itself, or that its client left; "" if
// the answer is an instance's, or no error. maintenance says that the policy of the service has
// nginx answer some of its requests.
func (r *Record) OwnReason(maintenance bool) string {
	if r.Status == 499 || r.TCP && r.OwnError == 0 && !r.Completed {
		return ReasonClientLeft
	}
	switch r.OwnError {
	case 0:
		return ""
	case 500:
		if r.Status == 503 || r.GRPCStatus == 14 { // see http-errors.conf and grpc.conf
			return ReasonAuthUnavailable
		}
	case 496:
		if r.Status == 421 { // see http-errors.conf
			return ReasonOtherHost
		}
	case 502:
		return r.lastFailure(ReasonUnreachable, ReasonNoAnswer)
	case 503:
		if maintenance && len(r.Tries) == 0 {
			return ReasonMaintenance
		}
		return ReasonNoInstance
	case 504:
		return r.lastFailure(ReasonConnectTimeout, ReasonTimeout)
	}
	if reason := ownReasons[r.OwnError]; reason != "" {
		return reason
	}
	return ReasonInternal
}

// lastFailure is the reason of the last try's failure: unconnected if nginx was not connected to
// an instance, else unanswered.
func (r *Record) lastFailure(unconnected, unanswered string) string {
	if len(r.Tries) == 0 {
		return ReasonInternal
	}
	last := len(r.Tries) - 1
	switch r.Result(last, false) {
	case ResultNoInstance:
		return ReasonNoInstance
	case ResultBusy:
		return ReasonMaxConns
	case ResultConnect:
		return unconnected
	}
	return unanswered
}
