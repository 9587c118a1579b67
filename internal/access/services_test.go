package access

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRulesOfServices(t *testing.T) {
	rules := Deny(nil, networks(t, "10.0.0.0/8 203.0.113.7"), Write{})
	rules = Deny(rules, networks(t, "10.0.0.0/8 203.0.113.7"), Write{Service: "cart"})
	rules = Only(rules, networks(t, "192.168.0.0/16"), Write{Service: "admin"})
	for given, want := range map[string]string{
		"10.0.0.0/8":     "deny 0.0.0.0/0 admin\ndeny 10.0.0.0/8 cart",
		"10.1.1.1":       "deny 0.0.0.0/0 admin\ndeny 10.0.0.0/8 cart",
		"203.0.113.0/24": "deny 0.0.0.0/0 admin\ndeny 203.0.113.7 cart",
		"192.168.1.1":    "",
		"2001:db8::1":    "deny ::/0 admin",
	} {
		assert.Equal(t, want, show(OfServices(rules, networks(t, given))), given)
	}
	assert.Equal(t, []string{"admin", "cart"}, ServicesAbout(rules, netip.MustParseAddr("::ffff:10.1.1.1")))
	assert.Equal(t, []string{"admin"}, ServicesAbout(rules, netip.MustParseAddr("2001:db8::1")))
}
