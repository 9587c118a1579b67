package metadata

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"lbctl/internal/endpoints"
)

var (
	hostPattern    = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*$`)
	pathPattern    = regexp.MustCompile(`^(/[A-Za-z0-9._~@:+!-]+)*/?$`)
	versionLabel   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	nowhereSegment = regexp.MustCompile(`/\.{1,2}(/|$)`)
)

// splitList parses a comma-separated list; an empty one has one element, "".
func splitList(list string, parse func(string) (string, error)) ([]string, error) {
	var elements []string
	for element := range strings.SplitSeq(list, ",") {
		element = strings.TrimSpace(element)
		if element == "" {
			continue
		}
		element, err := parse(element)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(elements, element) {
			elements = append(elements, element)
		}
	}
	if len(elements) == 0 {
		return []string{""}, nil
	}
	return elements, nil
}

func parseHost(host string, reserved Reserved) (string, error) {
	host = strings.ToLower(host)
	if len(host) > 253 || !hostPattern.MatchString(host) {
		return "", errors.New(`host names like "example.com" or "*.example.com", without a port, separated by commas`)
	}
	if reserved.ReservedHost(host) {
		return "", fmt.Errorf("host names outside of %q, which is reserved for the balancer", reserved.Domain)
	}
	return host, nil
}

// parsePath returns a path prefix in canonical form, without "/" at its end. The prefix of all
// paths is "".
func parsePath(p endpoints.Protocol, path string) (string, error) {
	if len(path) > 256 || !strings.HasPrefix(path, "/") || !pathPattern.MatchString(path) || nowhereSegment.MatchString(path) {
		return "", errors.New(`path prefixes like "/api" of letters, digits and "._~@:+!-", separated by commas`)
	}
	path = strings.TrimSuffix(path, "/")
	if ReservedPath(path) {
		return "", fmt.Errorf("paths outside of %q, which is reserved for the balancer", reservedPath)
	}
	if p.Family() == "grpc" && strings.Count(path, "/") > 2 {
		return "", errors.New(`"/package.Service" or "/package.Service/Method" for gRPC, separated by commas`)
	}
	return path, nil
}

// Shorten shortens values from Consul for messages. They may have 512 characters.
func Shorten(value string) string {
	if len(value) <= 80 {
		return value
	}
	return value[:77] + "..."
}

func listOf(ports []int) string {
	words := make([]string, len(ports))
	for n, port := range ports {
		words[n] = strconv.Itoa(port)
	}
	return strings.Join(words, ", ")
}

// joinLines is like errors.Join, but in one line.
func joinLines(errs []error) error {
	words := make([]string, len(errs))
	for n, err := range errs {
		words[n] = err.Error()
	}
	return errors.New(strings.Join(words, "; "))
}
