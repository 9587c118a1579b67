package access

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/kv"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// networks parses networks separated by spaces.
func networks(t testing.TB, text string) []netip.Prefix {
	t.Helper()
	var all []netip.Prefix
	for _, word := range strings.Fields(text) {
		p, err := ParseNetworks(word)
		require.NoError(t, err)
		all = append(all, p...)
	}
	return all
}

func show(rules []Rule) string {
	var lines []string
	for _, r := range rules {
		word := "deny"
		if r.Allow {
			word = "allow"
		}
		line := strings.TrimSpace(fmt.Sprintf("%s %s %s", word, NetworkText(r.Network), r.Service))
		if !r.Until.IsZero() {
			line += r.Until.Format(" 15:04")
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestParseNetworks(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.7":        "203.0.113.7",
		"203.0.113.0/24":     "203.0.113.0/24",
		"203.0.113.7/32":     "203.0.113.7",
		"2001:DB8::/32":      "2001:db8::/32",
		"::ffff:203.0.113.7": "203.0.113.7",
		"all":                "0.0.0.0/0 ::/0",
	} {
		var texts []string
		for _, p := range networks(t, text) {
			texts = append(texts, NetworkText(p))
		}
		assert.Equal(t, want, strings.Join(texts, " "), text)
	}
	for text, want := range map[string]string{
		"":                 "want an address or a network",
		"example.com":      "want an address or a network",
		"203.0.113.7/24":   `network "203.0.113.7/24" has bits beyond its length, want 203.0.113.0/24`,
		"203.0.113.0/33":   "want an address or a network",
		"203.0.113.0/024":  "want an address or a network",
		"fe80::1%eth0":     "want an address or a network",
		"::ffff:1.2.3.0/8": "want the IPv4 network itself",
		"1.2.3.4; deny":    "want an address or a network",
	} {
		_, err := ParseNetworks(text)
		assert.ErrorContains(t, err, want, text)
	}
}

func TestDenyAndAllow(t *testing.T) {
	w := Write{By: "me"}
	cart := Write{By: "me", Service: "cart"}
	hour := Write{By: "me", Until: noon.Add(time.Hour)}
	rules := Deny(nil, networks(t, "203.0.113.0/24 2001:db8::/32"), hour)
	rules = Deny(rules, networks(t, "203.0.113.0/24 203.0.113.9"), cart)
	assert.Equal(t, "deny 203.0.113.0/24 13:00\ndeny 203.0.113.0/24 cart\ndeny 203.0.113.9 cart\ndeny 2001:db8::/32 13:00", show(rules))

	assert.Equal(t, "deny 203.0.113.0/24\ndeny 203.0.113.0/24 cart\ndeny 203.0.113.9 cart\ndeny 2001:db8::/32 13:00",
		show(Deny(rules, networks(t, "203.0.113.0/24"), w)), "the later denial replaces the earlier one")
	assert.Equal(t, "deny 203.0.113.0/24 cart\ndeny 203.0.113.9 cart\ndeny 2001:db8::/32 13:00",
		show(Allow(rules, networks(t, "203.0.113.0/24"), w)), "only the denial for every service goes")
	assert.Equal(t, "deny 203.0.113.0/24 13:00\ndeny 2001:db8::/32 13:00",
		show(Allow(rules, networks(t, "203.0.113.0/24"), cart)), "denials within the network go too")
	assert.Equal(t, "deny 203.0.113.0/24 13:00\ndeny 203.0.113.0/24 cart\nallow 203.0.113.7 13:00\ndeny 203.0.113.9 cart\ndeny 2001:db8::/32 13:00",
		show(Allow(rules, networks(t, "203.0.113.7"), w)), "an exception lasts as long as the denial")
	assert.Equal(t, show(rules), show(Allow(rules, networks(t, "198.51.100.0/24"), w)), "what is not denied needs no rule")

	only := Only(rules, networks(t, "10.0.0.0/8"), cart)
	assert.Equal(t, "deny 0.0.0.0/0 cart\nallow 10.0.0.0/8 cart\ndeny 203.0.113.0/24 13:00\ndeny 203.0.113.0/24 cart\ndeny 203.0.113.9 cart\ndeny ::/0 cart\ndeny 2001:db8::/32 13:00", show(only))
	assert.NotContains(t, show(Only(only, networks(t, "192.0.2.0/24"), cart)), "10.0.0.0/8", "only the newest networks are let in")
	assert.Equal(t, "deny 203.0.113.0/24 13:00\ndeny 2001:db8::/32 13:00", show(Allow(only, All, cart)))
}

func TestNetworksForNginx(t *testing.T) {
	rules := Deny(nil, networks(t, "203.0.113.0/24"), Write{})
	rules = Allow(rules, networks(t, "203.0.113.7"), Write{})
	rules = Only(rules, networks(t, "10.0.0.0/8 203.0.113.0/24"), Write{Service: "web"})
	rules = Deny(rules, networks(t, "10.1.0.0/16"), Write{Service: "cart"})
	n := compile(rules, noon)
	assert.Equal(t, `0.0.0.0/0 ,2,;
10.0.0.0/8 "";
10.1.0.0/16 ,1,;
203.0.113.0/24 all;
203.0.113.7/32 "";
::/0 ,2,;
`, string(n.Geo()))
	assert.Equal(t, `$lb_denied ~ "^all$|,2,"`, n.Check("lb_denied", "web"))
	assert.Equal(t, `$lb_denied = all`, n.Check("lb_denied", "other"))
	assert.Equal(t, "allow 203.0.113.7/32;\ndeny 203.0.113.0/24;\n", string(n.Lines("")))
	assert.Equal(t, "allow 203.0.113.7/32;\nallow 10.0.0.0/8;\ndeny 0.0.0.0/0;\ndeny ::/0;\n", string(n.Lines("web")))
	var none *Networks
	assert.Empty(t, none.Check("lb_denied", "web"))
	assert.Nil(t, compile(nil, noon))
}

func TestRulesEndInBatches(t *testing.T) {
	var rules []Rule
	for n, seconds := range []int{1, 59, 60, 61, 3600} {
		rules = Deny(rules, networks(t, fmt.Sprintf("203.0.113.%d", n)), Write{Until: noon.Add(time.Duration(seconds) * time.Second)})
	}
	for _, tt := range []struct {
		at, next time.Duration
		count    int
	}{
		{0, time.Minute, 5},
		{59 * time.Second, time.Minute, 5},
		{time.Minute, 2 * time.Minute, 2},
		{2 * time.Minute, time.Hour, 1},
		{time.Hour, 0, 0},
	} {
		n := compile(rules, noon.Add(tt.at))
		assert.Equal(t, tt.count, n.Count(), tt.at)
		if tt.next != 0 {
			assert.Equal(t, noon.Add(tt.next), n.Next(), tt.at)
		}
	}
}

// TestWhatNginxGetsAgreesWithDecide compares, for random rules in a small space of addresses, what
// nginx would find in the block geo and in the lines with what Decide says.
func TestWhatNginxGetsAgreesWithDecide(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	services := []string{"", "a", "b"}
	for range 300 {
		var rules []Rule
		for range random.IntN(12) {
			bits := 24 + random.IntN(9)
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(16))}), bits).Masked()
			w := Write{Service: services[random.IntN(3)], Allow: random.IntN(3) == 0}
			rules = set(rules, []netip.Prefix{p}, &w)
		}
		n := compile(rules, noon)
		geo := map[netip.Prefix]string{}
		for line := range strings.Lines(string(n.Geo())) {
			network, value, _ := strings.Cut(strings.TrimSuffix(line, ";\n"), " ")
			geo[netip.MustParsePrefix(network)] = value
		}
		for last := range 16 {
			address := netip.AddrFrom4([4]byte{10, 0, 0, byte(last)})
			value, _ := around(netip.PrefixFrom(address, 32), geo)
			for _, service := range []string{"a", "b", "c"} {
				_, _, want := n.Decide(address, service)
				byGeo := value == "all" || n.Own(service) && strings.Contains(value, fmt.Sprintf(",%d,", n.Number(service)))
				require.Equal(t, want, byGeo, "%s for %s by geo with rules\n%s\n\n%s", address, service, show(rules), n.Geo())
				byLine := false
				for line := range strings.Lines(string(n.Lines(service))) {
					word, network, _ := strings.Cut(strings.TrimSuffix(line, ";\n"), " ")
					if netip.MustParsePrefix(network).Contains(address) {
						byLine = word == "deny"
						break
					}
				}
				require.Equal(t, want, byLine, "%s for %s by lines with rules\n%s\n\n%s", address, service, show(rules), n.Lines(service))
			}
		}
	}
}

func TestDocumentsOfRules(t *testing.T) {
	rules := Deny(nil, networks(t, "203.0.113.0/24 2001:db8::1"), Write{By: "me@host", At: noon, Why: "<scan>", Until: noon.Add(time.Hour)})
	rules = Deny(rules, networks(t, "203.0.113.0/24"), Write{By: "me@host", At: noon, Service: "cart"})
	edits, err := Edits(nil, rules, nil)
	require.NoError(t, err)
	require.Len(t, edits, 2)
	var stored []kv.Document
	for n, e := range edits {
		assert.Zero(t, e.Before.Index)
		stored = append(stored, kv.Document{Name: e.Before.Name, Value: e.Value, Index: uint64(n + 1)})
	}
	read, broken := ReadRules(stored, noon)
	require.Empty(t, broken)
	assert.Equal(t, rules, read)
	assert.Equal(t, `{"writes":[{"until":"2026-11-27T13:00:00Z","by":"me@host","at":"2026-11-27T12:00:00Z","why":"<scan>"},`+
		`{"service":"cart","by":"me@host","at":"2026-11-27T12:00:00Z"}],"networks":{"203.0.113.0/24":[0,1]}}`+"\n", string(documentWith(stored, "203.0.113.0/24").Value))

	edits, err = Edits(stored, rules, nil)
	require.NoError(t, err)
	assert.Empty(t, edits, "nothing changes")
	edits, err = Edits(stored, Allow(rules, networks(t, "2001:db8::1"), Write{}), nil)
	require.NoError(t, err)
	require.Len(t, edits, 1)
	assert.Nil(t, edits[0].Value, "a document without rules is deleted")
	assert.NotZero(t, edits[0].Before.Index)

	read, broken = ReadRules(stored, noon.Add(time.Hour))
	require.Empty(t, broken)
	assert.Equal(t, "deny 203.0.113.0/24 cart", show(read), "rules that are over are left out")
}

func documentWith(documents []kv.Document, text string) kv.Document {
	for _, d := range documents {
		if strings.Contains(string(d.Value), `"`+text+`"`) {
			return d
		}
	}
	return kv.Document{}
}

func TestBrokenDocumentsOfRules(t *testing.T) {
	name := shardOf(networks(t, "203.0.113.7")[0])
	for value, want := range map[string]string{
		`{"writes": [{"by": "x", "at": "2026-11-27T12:00:00Z"}], "networks": {"203.0.113.7": [1]}}`:                                   `network "203.0.113.7": write 1 is not there, want 0 to 0`,
		`{"writes": [{"by": "x", "at": "2026-11-27T12:00:00Z"}], "networks": {"203.0.113.7": [0, 0]}}`:                                "two rules",
		`{"writes": [{"by": "x", "at": "2026-11-27T12:00:00Z"}], "networks": {"203.0.113.7/32": [0]}}`:                                `want "203.0.113.7"`,
		`{"writes": [{"by": "x", "at": "2026-11-27T12:00:00Z"}], "networks": {"203.0.113.8": [0]}}`:                                   "write it with lbctl deny",
		`{"writes": [{"by": "x", "at": "2026-11-27T12:00:00Z"}], "networks": {"1;}": [0]}}`:                                           "want an address or a network",
		`{"writes": [{"by": "x", "at": "2026-11-27T12:00:00Z", "service": "a\"; return 200"}], "networks": {"203.0.113.7": [0]}}`:     "want up to 255 letters",
		`{"writes": [{"by": "x", "at": "2026-11-27T12:00:00Z", "untill": "2026-11-27T12:00:00Z"}], "networks": {"203.0.113.7": [0]}}`: `unknown field "untill"`,
		`{"writes": [], "networks": {}} x`: "text after its end",
		`[`:                                "no valid JSON",
	} {
		rules, broken := ReadRules([]kv.Document{{Name: name, Value: []byte(value)}}, noon)
		assert.Empty(t, rules, value)
		require.Len(t, broken, 1, value)
		assert.Contains(t, broken[0].Message, want, value)
		assert.Equal(t, name, broken[0].Document)
	}
}

// TestRulesBesideABrokenDocument: one broken document must not keep an operator from denying networks
// whose rules are in others.
func TestRulesBesideABrokenDocument(t *testing.T) {
	edits, err := Edits(nil, Deny(nil, networks(t, "203.0.113.7 203.0.113.8"), Write{By: "me", At: noon}), nil)
	require.NoError(t, err)
	require.Len(t, edits, 2)
	var documents []kv.Document
	for _, e := range edits {
		documents = append(documents, kv.Document{Name: e.Before.Name, Value: e.Value, Index: 1})
	}
	documents[0].Value = []byte("garbage")
	rules, broken := ReadRules(documents, noon)
	require.Len(t, rules, 1)
	require.Len(t, broken, 1)
	edits, err = Edits(documents, Allow(rules, []netip.Prefix{rules[0].Network}, Write{}), broken)
	require.NoError(t, err)
	require.Len(t, edits, 1, "the broken document stays")
	assert.Equal(t, documents[1].Name, edits[0].Before.Name)
	_, err = Edits(documents, Deny(nil, networks(t, "203.0.113.7 203.0.113.8"), Write{}), broken)
	assert.ErrorContains(t, err, documents[0].Name)
}

func BenchmarkCompile(b *testing.B) {
	rules := many(b, 100_000)
	for b.Loop() {
		compile(rules, noon)
	}
}

// many returns rules about n networks.
func many(t testing.TB, n int) []Rule {
	t.Helper()
	var all []netip.Prefix
	for k := range n {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(11 + k>>16), byte(k >> 8), byte(k), 0}), 24))
	}
	return Deny(nil, all, Write{By: "me", At: noon})
}

func BenchmarkManyDocuments(b *testing.B) {
	edits, err := Edits(nil, many(b, 100_000), nil)
	require.NoError(b, err)
	size, largest := 0, 0
	var documents []kv.Document
	for _, e := range edits {
		size, largest = size+len(e.Value), max(largest, len(e.Value))
		documents = append(documents, kv.Document{Name: e.Before.Name, Value: e.Value})
	}
	b.ReportMetric(float64(size), "bytes")
	b.ReportMetric(float64(largest), "largest")
	for b.Loop() {
		rules, _ := ReadRules(documents, noon)
		require.Len(b, rules, 100_000)
	}
}

func TestDecideForAll(t *testing.T) {
	for name, c := range map[string]struct {
		rules []Rule
		want  string
	}{
		"no rule":                  {nil, ""},
		"everybody, every service": {Deny(nil, networks(t, "all"), Write{}), "0.0.0.0/0"},
		"everybody":                {Deny(nil, networks(t, "all"), Write{Service: "shop"}), "0.0.0.0/0 shop"},
		"another service":          {Deny(nil, networks(t, "all"), Write{Service: "cart"}), ""},
		"the first networks":       {Deny(nil, networks(t, "0.0.0.0/8 ::/8"), Write{Service: "shop"}), ""},
		"IPv4 alone":               {Deny(nil, networks(t, "0.0.0.0/0"), Write{Service: "shop"}), ""},
		"all but some":             {Only(nil, networks(t, "10.0.0.0/8 0.0.0.0/8"), Write{Service: "shop"}), "0.0.0.0/0 shop"},
	} {
		got := ""
		if rule, found := compile(c.rules, noon).DecideForAll("shop"); found {
			got = strings.TrimSpace(rule.Network.String() + " " + rule.Service)
		}
		assert.Equal(t, c.want, got, name)
	}
}

func TestDenials(t *testing.T) {
	one := networks(t, "203.0.113.0/24")
	rules := Deny(nil, one, Write{})
	rules = Deny(rules, networks(t, "198.51.100.0/24"), Write{Service: "cart"})
	rules = Allow(rules, networks(t, "203.0.113.7"), Write{})
	rules = Only(rules, one, Write{Service: "admin"})
	n := compile(rules, noon)
	assert.Equal(t, 1, n.Denials("shop"), "the exception is no denial")
	assert.Equal(t, 2, n.Denials("cart"))
	assert.Equal(t, 1+len(All), n.Denials("admin"))
	assert.Zero(t, (*Networks)(nil).Denials("shop"))
}
