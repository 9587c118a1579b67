// Package policy has the settings that say how a service is balanced: timeouts, checks and so
// on. They come from four layers. Each overrides the ones before it, field by field:
//
//	built in < lb/default < what the service says in metadata < lb/service/NAME
//
// A [Document] is what one layer says. [Resolve] merges the documents of a service into its
// [Settings]. The table of [Fields] has each field's values, default, unit and description.
package policy

// The families of protocols, as in endpoints.Protocol.Family.
const (
	GRPC = "grpc"
	HTTP = "http"
	TCP  = "tcp"
)

// Policy is how a service, or one path of it, is balanced. A zero value means that no layer
// says anything, so that the built-in default applies. Each leaf is one Field.
//
// To add a field, add it here and to the table: see CONTRIBUTING.md.
type Policy struct {
	// Check is how lbctl probes the instances.
	Check Check
	// MinInstances is how many instances stay in rotation when more vanish.
	MinInstances int
	// Endpoints says how changes of the instances reach nginx.
	Endpoints Delivery
	Timeout   Timeout
	Auth      Auth
	Outlier   Outlier
	// MaxConns is how many connections nginx may have to each instance at a time: see
	// Settings.MaxConnsOf.
	MaxConns int
	Limit    Limit
	// Balance is how nginx chooses the instance for a request.
	Balance   Algorithm
	Sticky    Sticky
	Retry     Retry
	Buffering Buffering
	Keepalive Keepalive

	Headers     Headers
	Compression Compression
	CORS        CORS
	Redirect    Redirect
	Path        PathRewrite
	Mirror      Mirror
	TLS         TLS
	Maintenance Maintenance
	Health      Health
}
