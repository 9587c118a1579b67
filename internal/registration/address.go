package registration

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"
)

// setConsulAddr takes the agent's address apart: what to connect to, and a user
// name and password, which must not get into messages.
func setConsulAddr(c *Config, values []string) error {
	value := last(values)
	address, auth, err := parseConsulAddr(value)
	if err != nil {
		return fmt.Errorf("%q is not the address of an agent: %w; want host:port, http://host:port, https://host:port or unix:///path",
			withoutPassword(value), err)
	}
	c.ConsulAddr, c.ConsulAuth = address, auth
	return nil
}

func parseConsulAddr(value string) (address string, auth *api.HttpBasicAuth, err error) {
	if path, isSocket := strings.CutPrefix(value, "unix://"); isSocket {
		if !strings.HasPrefix(path, "/") {
			return "", nil, errors.New("the path of the socket does not begin with /")
		}
		return value, nil, nil
	}
	scheme, rest, hasScheme := strings.Cut(value, "://")
	if !hasScheme {
		scheme, rest = "http", value
	}
	if scheme != "http" && scheme != "https" {
		return "", nil, fmt.Errorf("scheme %q unknown", scheme)
	}
	parsed, err := url.Parse(scheme + "://" + rest)
	switch {
	case err != nil: // the error of url.Parse holds the password
		return "", nil, errors.New("it can't be read as a URL")
	case parsed.Hostname() == "":
		return "", nil, errors.New("there is no host")
	case parsed.RawQuery != "" || parsed.ForceQuery || parsed.Fragment != "":
		return "", nil, errors.New("it has a query or a fragment")
	}
	prefix := strings.TrimRight(parsed.EscapedPath(), "/")
	if prefix != "" && !hasScheme {
		return "", nil, fmt.Errorf("it has the path %q and no scheme", prefix)
	}
	if parsed.User != nil {
		auth = &api.HttpBasicAuth{Username: parsed.User.Username()}
		auth.Password, _ = parsed.User.Password()
	}
	address = parsed.Host + prefix
	if hasScheme { // else CONSUL_HTTP_SSL decides
		address = scheme + "://" + address
	}
	return address, auth, nil
}

// withoutPassword is an address for messages, also one that can't be parsed: what
// stands before the last @ is left out.
func withoutPassword(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address
	}
	scheme, _, found := strings.Cut(address, "://")
	if !found {
		return "..." + address[at:]
	}
	return scheme + "://..." + address[at:]
}
