package endpoints

import (
	"net/url"
	"regexp"
	"strings"
)

// Check is how lbctl asks an instance itself whether it can serve, as in its
// lb-check metadata:
//
//	tcp           its port takes connections; the default, also when empty
//	http:/path    a GET of the path is answered with a status of 200 to 399
//	grpc          gRPC's health service says that the server is SERVING
//	grpc:NAME     it says so of the service NAME
//	none          it is not asked
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

// Valid reports whether it is one of the checks there are.
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

// HTTPPath is the path that an HTTP check gets; false for other checks.
func (c Check) HTTPPath() (string, bool) { return strings.CutPrefix(string(c), "http:") }

// GRPCService is the service that a gRPC check asks about, "" for the whole server;
// false for other checks.
func (c Check) GRPCService() (string, bool) {
	if c == CheckGRPC {
		return "", true
	}
	return strings.CutPrefix(string(c), "grpc:")
}
