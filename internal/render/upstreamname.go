package render

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"lbctl/internal/endpoints"
)

// maxUpstreamName is the length of a DNS label (RFC 1035, section 2.3.4), the
// smallest bound of all that an upstream's name is used for: the upstream and its
// zone in nginx, the host name that nginx asks for, and the file of its bootstrap
// servers.
const maxUpstreamName = 63

// nameHash writes 20 bytes of SHA-256 in 32 lower-case letters and digits: too many
// for anybody to find two services with the same hash.
var nameHash = base32.StdEncoding.WithPadding(base32.NoPadding)

// UpstreamName is the name of a service's upstream: at most 63 lower-case letters,
// digits, "-" and "_", and another one for each service. It depends on nothing but
// the service's protocol and name, so no service can change the name of another.
//
//	grpc-hello                                     "hello": short and in lower case
//	grpc_hello-<hash of "grpc-Hello">              "Hello": nginx and DNS ignore case
//	grpc_aaaaaaaaaaaaaaaaaaaaaaaa-<hash of all>    255 times "a"
//
// Only a name with a hash has "_" after the protocol, so no service can be called
// so that its upstream has the name of another one's hash.
func UpstreamName(p endpoints.Protocol, service string) string {
	plain := string(p) + "-" + service
	if len(plain) <= maxUpstreamName && plain == strings.ToLower(plain) {
		return plain
	}
	sum := sha256.Sum256([]byte(plain))
	hash := "-" + strings.ToLower(nameHash.EncodeToString(sum[:20]))
	readable := string(p) + "_" + strings.ToLower(service)
	return readable[:min(len(readable), maxUpstreamName-len(hash))] + hash
}
