package consulclient

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"
)

// address is Consul's parsed address.
type address struct {
	url   string             // for the client: "https://consul.example:8501/prefix", "unix:///path"
	shown string             // for people: the given address without user, password and last slash
	auth  *api.HttpBasicAuth // nil: the address has none
}

// parseAddress parses addresses such as HOST:PORT and http://USER:PASSWORD@HOST:PORT/PREFIX.
// scheme applies if the address has none; it never turns "https" into "http". No error quotes
// the text before an "@".
func parseAddress(given, scheme string) (address, error) {
	own, rest, hasScheme := strings.Cut(given, "://")
	if !hasScheme {
		own, rest = scheme, given
	}
	var a address
	if at := strings.LastIndexByte(rest, '@'); at >= 0 && own != "unix" {
		user, password, _ := strings.Cut(rest[:at], ":")
		user, errUser := url.PathUnescape(user)
		password, errPassword := url.PathUnescape(password)
		if errUser != nil || errPassword != nil {
			return a, errors.New(`its user or password has a "%" that begins no percent-encoded character, want "%25" for "%"`)
		}
		a.auth = &api.HttpBasicAuth{Username: user, Password: password}
		rest = rest[at+1:]
	}
	rest = strings.TrimRight(rest, "/")
	a.shown = rest
	if hasScheme {
		a.shown = own + "://" + rest
	}
	const want = `want HOST:PORT, "http://HOST:PORT", "https://HOST:PORT" or "unix:///PATH"`
	switch own {
	case "unix":
		a.url = a.shown
		return a, nil
	case "http", "https":
	default:
		return a, fmt.Errorf("it has the scheme %q, %s", own, want)
	}
	if strings.ContainsAny(rest, "?#") {
		return a, fmt.Errorf("%q has a query or a fragment, %s", a.shown, want)
	}
	if scheme == "https" {
		own = scheme
	}
	parsed, err := url.Parse(own + "://" + rest)
	if err != nil || parsed.Hostname() == "" {
		return a, fmt.Errorf("%q, %s", a.shown, want)
	}
	a.url = own + "://" + rest
	return a, nil
}
