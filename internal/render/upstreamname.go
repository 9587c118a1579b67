package render

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"lbctl/internal/endpoints"
)

// maxUpstreamName is the maximum length of a DNS label (RFC 1035, section 2.3.4). Of all
// uses of an upstream's name, the host name that nginx asks for has the smallest bound; the
// others are the upstream and its zone in nginx, and the file of its bootstrap servers.
const maxUpstreamName = 63

// nameHash encodes 20 bytes of SHA-256 as 32 lower-case letters and digits, so many that
// nobody can find two services with the same hash.
var nameHash = base32.StdEncoding.WithPadding(base32.NoPadding)

// UpstreamName returns the name of a service's upstream: at most 63 lower-case letters,
// digits, "-" and "_", different for each service. It depends only on the service's
// protocol and name, so no service can change the name of another.
//
//	grpc-hello                                     "hello": short and in lower case
//	grpc_hello-<hash of "grpc-Hello">              "Hello": nginx and DNS ignore case
//	grpc_aaaaaaaaaaaaaaaaaaaaaaaa-<hash of all>    255 times "a"
//
// Only a name with a hash has "_" after the protocol, so a name without a hash never equals
// one with a hash.
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
