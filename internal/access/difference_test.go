package access

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestDifferences(t *testing.T) {
	write := func(service, why string) Write {
		return Write{Service: service, By: "alice@ops-1", At: noon, Why: why}
	}
	none := []Rule(nil)
	scan := Deny(none, networks(t, "203.0.113.0/24"), write("", "port scan"))
	hour := write("", "")
	hour.Until = noon.Add(time.Hour)
	var many []netip.Prefix
	for k := range 1000 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(k >> 8), byte(k), 0}), 24))
	}
	var crowd []Rule
	for k := range 6 {
		crowd = Deny(crowd, networks(t, fmt.Sprintf("203.0.113.%d", k)), write(fmt.Sprint("s", k), ""))
	}
	for name, tt := range map[string]struct {
		before, after []Rule
		want          string
	}{
		"none":                  {none, none, ""},
		"the same":              {scan, Deny(none, networks(t, "203.0.113.0/24"), write("", "port scan")), ""},
		"a new rule":            {none, scan, "203.0.113.0/24 denied for every service by alice@ops-1: port scan"},
		"a rule that is gone":   {scan, none, "203.0.113.0/24 no longer denied for every service"},
		"a rule that has ended": {Deny(none, networks(t, "203.0.113.7"), hour), none, "203.0.113.7 no longer denied for every service: its time is over"},
		"another reason":        {scan, Deny(scan, networks(t, "203.0.113.0/24"), write("", "bots")), "203.0.113.0/24 denied for every service by alice@ops-1: bots"},
		"an exception":          {scan, Allow(scan, networks(t, "203.0.113.7"), write("", "")), "203.0.113.7 allowed for every service by alice@ops-1"},
		"a private service": {none, Only(none, networks(t, "10.0.0.0/8 fd00::/8"), write("admin", "")),
			"0.0.0.0/0 and 1 more denied for admin by alice@ops-1, 10.0.0.0/8 and 1 more allowed for admin by alice@ops-1"},
		"many networks":           {scan, Deny(scan, many, write("", "feed")), "11.0.0.0/24 and 999 more denied for every service by alice@ops-1: feed"},
		"many that are gone":      {Deny(scan, many, write("", "feed")), scan, "11.0.0.0/24 and 999 more no longer denied for every service"},
		"one and its replacement": {scan, Deny(none, networks(t, "203.0.113.0/24"), write("cart", "")), "203.0.113.0/24 no longer denied for every service, 203.0.113.0/24 denied for cart by alice@ops-1"},
		"more than can be named":  {none, crowd, "203.0.113.0 denied for s0 by alice@ops-1, 203.0.113.1 denied for s1 by alice@ops-1, 203.0.113.2 denied for s2 by alice@ops-1, 203.0.113.3 denied for s3 by alice@ops-1, and 2 more about networks"},
	} {
		at := noon
		if name == "a rule that has ended" {
			at = noon.Add(2 * time.Hour)
		}
		assert.Equal(t, tt.want, compile(tt.after, at).Differences(compile(tt.before, noon), at), name)
	}
}
