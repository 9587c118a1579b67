package policy

import (
	"net/url"
	"regexp"
	"strings"
)

// Check is how lbctl probes the instances of a service, the field "check":
//
//	tcp           the port accepts connections; the default, also when empty
//	http:/path    the answer to a GET of the path has a status of 200 to 399
//	grpc          gRPC's health service reports the server as SERVING
//	grpc:NAME     gRPC's health service reports the service NAME as SERVING
//	none          no probe
type Check string

// The checks without a parameter.
const (
	CheckTCP  Check = "tcp"
	CheckGRPC Check = "grpc"
	CheckNone Check = "none"
)

var (
	checkPath    = regexp.MustCompile(`^/[!-~]{0,255}$`)
	checkService = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,255}$`)
)

// Valid reports whether c is a known check.
func (c Check) Valid() bool {
	switch c {
	case "", CheckTCP, CheckGRPC, CheckNone:
		return true
	}
	if path, ok := c.HTTPPath(); ok {
		_, err := url.ParseRequestURI(path)
		return err == nil && checkPath.MatchString(path)
	}
	service, ok := c.GRPCService()
	return ok && checkService.MatchString(service)
}

// HTTPPath returns the path that an HTTP check requests; false for other checks.
func (c Check) HTTPPath() (string, bool) { return strings.CutPrefix(string(c), "http:") }

// GRPCService returns the service that a gRPC check asks about, "" for the whole server;
// false for other checks.
func (c Check) GRPCService() (string, bool) {
	if c == CheckGRPC {
		return "", true
	}
	return strings.CutPrefix(string(c), "grpc:")
}
