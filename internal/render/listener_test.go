package render

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
)

func TestParseListener(t *testing.T) {
	for text, want := range map[string]Listener{
		"internal=http://10.0.0.1:8081":                  {Name: "internal", Protocol: endpoints.HTTP, Listen: Listen{"10.0.0.1:8081"}},
		"a=grpcs://:1,[::1]:2?proxy-protocol=on":         {Name: "a", Protocol: endpoints.GRPCS, Listen: Listen{":1", "[::1]:2"}, ProxyProtocol: true},
		"http=http://:80?redirect=8443":                  {Name: "http", Protocol: endpoints.HTTP, Listen: Listen{":80"}, Redirect: 8443},
		"https=https://:443?proxy-protocol=on&hsts=3600": {Name: "https", Protocol: endpoints.HTTPS, Listen: Listen{":443"}, ProxyProtocol: true, HSTS: 3600},
		"https=off": {Name: "https"},
	} {
		l, err := ParseListener(text)
		require.NoError(t, err)
		assert.Equal(t, want, l)
		assert.Equal(t, text, l.String())
	}
	for text, want := range map[string]string{
		"internal":                       "want NAME=PROTOCOL://ADDRESS:PORT",
		"http://:80?a=b":                 "want NAME=PROTOCOL://ADDRESS:PORT",
		"A=http://:80":                   `name "A", want 1 to 32 lower-case letters, digits, "-" or "_"`,
		"a=:80":                          `":80" has no protocol, want PROTOCOL://ADDRESS:PORT`,
		"a=tcp://:80":                    `protocol "tcp", want grpc, grpcs, http or https`,
		"a=http://localhost:80":          `addresses "localhost:80": want addresses like :5000`,
		"a=http://:80?redirct=1":         `unknown option "redirct", did you mean redirect? (options are proxy-protocol, redirect, hsts)`,
		"a=http://:80?redirect=x":        `redirect "x", want the port of HTTPS as clients see it, such as 443`,
		"a=http://:80?redirect=1&hsts=x": `hsts "x", want a number of seconds, such as 31536000`,
		"a=http://:80?hsts=1":            "hsts is for listeners of https, this one has http",
		"a=https://:80?redirect=1":       "redirect is for listeners of http, this one has https",
		"a=http://:80?proxy-protocol=1":  `proxy-protocol "1", want on or off`,
		"a=https://:8?hsts=1&hsts=2":     "option hsts is given 2 times, want it once",
		"A=x://y?z":                      `addresses "y": want addresses like`,
	} {
		_, err := ParseListener(text)
		assert.ErrorContains(t, err, want, text)
	}
	_, err := ParseListener("A=x://y?z=1")
	assert.ErrorContains(t, err, `name "A"`, "all mistakes are told")
	assert.ErrorContains(t, err, `protocol "x"`)
	assert.ErrorContains(t, err, `unknown option "z"`)
}

func FuzzParseListener(f *testing.F) {
	f.Add("internal=http://10.0.0.1:8081?proxy-protocol=on&redirect=1")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseListener(text)
		if err != nil || l.Protocol == "" {
			return
		}
		again, err := ParseListener(l.String())
		require.NoError(t, err)
		assert.Equal(t, l, again)
		assert.Empty(t, CheckListeners([]Listener{l}, []string{"10.0.0.0/8"}))
	})
}
