package routing

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
)

func TestDecide(t *testing.T) {
	l := Listener{Protocol: endpoints.HTTP, Ways: []Way{
		{Route: endpoints.Route{Host: "a.test", Path: "/api", Method: "POST"}, Service: "writes"},
		{Route: endpoints.Route{Host: "a.test", Path: "/api", Headers: "x-v=2"}, Service: "v2"},
		{Route: endpoints.Route{Host: "a.test", Path: "/api"}, Service: "api"},
		{Route: endpoints.Route{Path: "/api"}, Service: "any"},
		{Route: endpoints.Route{}, Service: "default"},
	}}
	d := l.Decide(Request{Method: "GET", Host: "A.test:8080", Target: "/x/../%61pi?q"}, Reading{})
	assert.Equal(t, "a.test", d.Host)
	assert.Equal(t, "/api", d.Path)
	assert.Equal(t, "api", d.Taken.Service)
	var lost []string
	for _, o := range d.Lost {
		lost = append(lost, o.Service+": "+o.Reason)
	}
	assert.Equal(t, []string{
		"writes: its method is POST, and the request's is GET",
		"v2: it wants the header x-v: 2, and the request has none",
		"any: it is for any host, and the taken one names it",
		"default: it is for any host, and the taken one names it",
	}, lost)

	l.Ways[2].Method = "PUT"
	d = l.Decide(Request{Method: "POST", Host: "a.test", Target: "/api"}, Reading{})
	assert.Equal(t, "writes", d.Taken.Service)
	assert.Equal(t, "it wants the header x-v: 2, and the request has none", d.Lost[0].Reason)
	assert.Equal(t, "its method is PUT, and the request's is POST", d.Lost[1].Reason, "it would not get the request either")
	assert.Equal(t, "it is for any host, and the taken one names it", d.Lost[2].Reason)

	l.Ways = l.Ways[:2]
	d = l.Decide(Request{Method: "GET", Host: "a.test", Target: "/api", Headers: []Header{{"X-V", "3"}}}, Reading{})
	assert.Nil(t, d.Taken)
	assert.Equal(t, `it wants the header x-v: 2, and the request has "3"`, d.Lost[1].Reason)

	l.Redirect = 8443
	d = l.Decide(Request{Method: "GET", Host: "a.test", Target: "/api"}, Reading{})
	assert.Equal(t, &Refusal{308, "the listener redirects every request to HTTPS on port 8443"}, d.Refused)
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		request Request
		want    string
	}{
		{Request{Method: "get", Host: "a", Target: "/"}, `method "get", want upper-case letters`},
		{Request{Method: "GET", NoHost: true, Target: "/"}, "an HTTP/1.1 request without the header Host"},
		{Request{Method: "GET", Host: "a..b", Target: "/"}, `host "a..b", want a name or an address`},
		{Request{Method: "GET", Host: "a", Target: "/%0"}, errBadCode.Error()},
		{Request{Method: "GET", Host: "a", Target: "/.."}, errAbove.Error()},
		{Request{Method: "GET", Host: "a", Target: "*"}, `target "*", want a path that begins with a slash, or an absolute URI`},
		{Request{Method: "TRACE", Host: "a", Target: "/"}, "nginx does not pass on the methods CONNECT and TRACE"},
	} {
		d := Listener{Protocol: endpoints.HTTP}.Decide(c.request, Reading{})
		if assert.NotNil(t, d.Refused, c.want) {
			assert.Equal(t, c.want, d.Refused.Reason)
		}
	}
}
