package render

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// directive is one directive of an nginx configuration.
type directive struct {
	words []string // the name and the arguments, without quotes
	block []directive
	isBlk bool
}

func (d directive) name() string { return d.words[0] }

// parseConf reads a configuration as nginx does (ngx_conf_read_token).
func parseConf(text string) ([]directive, error) {
	p := confParser{rest: text}
	block, end, err := p.block()
	if err == nil && end != 0 {
		err = fmt.Errorf("unexpected %q", end)
	}
	return block, err
}

type confParser struct{ rest string }

func (p *confParser) block() (block []directive, end byte, err error) {
	var words []string
	for {
		word, mark, err := p.next()
		switch {
		case err != nil:
			return nil, 0, err
		case mark == 'w':
			words = append(words, word)
		case mark == ';' && len(words) > 0:
			block = append(block, directive{words: words})
			words = nil
		case mark == '{' && len(words) > 0:
			inner, end, err := p.block()
			if err != nil {
				return nil, 0, err
			}
			if end != '}' {
				return nil, 0, fmt.Errorf("%q has no end", words)
			}
			block = append(block, directive{words: words, block: inner, isBlk: true})
			words = nil
		case (mark == '}' || mark == 0) && len(words) == 0:
			return block, mark, nil
		default:
			return nil, 0, fmt.Errorf("unexpected %q after %q", mark, words)
		}
	}
}

// next returns the kind of the next token: a word ('w'), one of ";{}", or the end (0).
func (p *confParser) next() (word string, mark byte, err error) {
	for {
		p.rest = strings.TrimLeft(p.rest, " \t\r\n")
		if !strings.HasPrefix(p.rest, "#") {
			break
		}
		_, p.rest, _ = strings.Cut(p.rest, "\n")
	}
	if p.rest == "" {
		return "", 0, nil
	}
	switch c := p.rest[0]; c {
	case ';', '{', '}':
		p.rest = p.rest[1:]
		return "", c, nil
	case '"', '\'':
		var b strings.Builder
		for n := 1; n < len(p.rest); n++ {
			switch {
			case p.rest[n] == c:
				p.rest = p.rest[n+1:]
				if p.rest == "" || !strings.ContainsRune(" \t\r\n;{)", rune(p.rest[0])) {
					return "", 0, fmt.Errorf("unexpected text after quote: %.20q", p.rest)
				}
				return b.String(), 'w', nil
			case p.rest[n] == '\\' && n+1 < len(p.rest) && strings.ContainsRune(`"'\`, rune(p.rest[n+1])):
				n++
				b.WriteByte(p.rest[n])
			default:
				b.WriteByte(p.rest[n])
			}
		}
		return "", 0, fmt.Errorf("quote without end: %.20q", p.rest)
	}
	var b strings.Builder
	n := 0
	for ; n < len(p.rest) && !strings.ContainsRune(" \t\r\n;{", rune(p.rest[n])); n++ {
		if p.rest[n] == '\\' && n+1 < len(p.rest) {
			n++
		}
		b.WriteByte(p.rest[n])
	}
	p.rest = p.rest[n:]
	return b.String(), 'w', nil
}

func TestConfParserReadsAsNginxDoes(t *testing.T) {
	tree, err := parseConf("a b 'c d' \"e\\\"f\"; # ; {\nblock x { inner; }\n")
	require.NoError(t, err)
	assert.Equal(t, []directive{
		{words: []string{"a", "b", "c d", `e"f`}},
		{words: []string{"block", "x"}, isBlk: true, block: []directive{{words: []string{"inner"}}}},
	}, tree)
	for _, broken := range []string{"a", "a {", "a; }", `a "b;`, `a "b"c;`, ";"} {
		_, err := parseConf(broken)
		assert.Error(t, err, "%q", broken)
	}
}

// checkTree checks that the files have each value of the catalog in its place, and otherwise
// exactly the directives of a configuration without services.
func checkTree(t *testing.T, files map[string][]byte, catalog Catalog, settings Settings) {
	t.Helper()
	empty, err := offline(Options{Settings: settings}, nil, testNames())
	require.NoError(t, err)
	for name, content := range files {
		tree, err := parseConf(string(content))
		require.NoError(t, err, "%s:\n%s", name, content)
		without, err := parseConf(string(empty.Files[name]))
		require.NoError(t, err, name)
		switch name {
		case "grpc.conf":
			checkFrontend(t, tree, without, catalog.GRPC, "grpc_pass")
		case "http.conf":
			checkFrontend(t, tree, without, catalog.HTTP, "proxy_pass")
		case "stream.conf":
			checkStream(t, tree, catalog.TCP, catalog.SharedTCP)
		default:
			require.Equal(t, without, tree, name)
		}
	}
}

// keepalive has the keepalive directives of an upstream, by family.
var keepalive = map[string][]string{
	"grpc": {"keepalive", "keepalive_requests"},
	"http": {"keepalive", "keepalive_requests", "keepalive_timeout"},
}

// checkFrontend compares a frontend's file with the catalog.
func checkFrontend(t *testing.T, tree, empty []directive, f Frontend, pass string) {
	t.Helper()
	fixed := empty[:len(empty)-1] // all but the default server
	require.Greater(t, len(tree), len(fixed))
	require.Equal(t, fixed, tree[:len(fixed)])
	tree = tree[len(fixed):]
	require.Len(t, tree, len(f.Upstreams)+len(f.Hosts))
	for n, u := range f.Upstreams {
		checkUpstream(t, tree[n], u, keepalive[u.Protocol.Family()]...)
	}
	head := empty[len(empty)-1].block
	head = head[:len(head)-1] // all but "location /"
	for n, h := range f.Hosts {
		s := tree[len(f.Upstreams)+n]
		require.Equal(t, []string{"server"}, s.words)
		require.Len(t, s.block, len(head)+len(h.Locations))
		for n := range head {
			switch got := s.block[n]; {
			case got.name() == "server_name":
				require.Equal(t, []string{"server_name", h.Name}, got.words)
			case got.name() == "listen" && !h.Default:
				require.Equal(t, head[n].words[:len(got.words)], got.words)
			default:
				require.Equal(t, head[n], got)
			}
		}
		for n, l := range h.Locations {
			checkLocation(t, s.block[len(head)+n], l, pass)
		}
	}
}

func checkLocation(t *testing.T, d directive, l Location, pass string) {
	t.Helper()
	words := []string{"location", l.Path}
	if l.Exact {
		words = []string{"location", "=", l.Path}
	}
	require.Equal(t, words, d.words)
	var want [][]string
	switch {
	case l.Service == "":
		want = [][]string{{"return", "404"}}
	case l.Upstream == "":
		want = [][]string{{"set", "$lb_service", l.Service}, {"set", "$lb_route", l.Route}, {"return", "503"}}
	default:
		refused := "($lb_large_headers)"
		if pass == "grpc_pass" {
			refused = "($lb_grpc_refused)"
		}
		want = [][]string{{"set", "$lb_service", l.Service}, {"set", "$lb_route", l.Route}, {"if", refused}}
		want = append(want, []string{pass, string(l.Protocol) + "://" + l.Upstream})
	}
	var got [][]string
	for _, d := range d.block {
		if d.isBlk {
			require.Equal(t, []directive{{words: []string{"return", "431"}}}, d.block)
		}
		got = append(got, d.words)
	}
	require.Equal(t, want, got)
}

func checkUpstream(t *testing.T, d directive, u Upstream, rest ...string) {
	t.Helper()
	require.Equal(t, []string{"upstream", u.Name}, d.words)
	require.Len(t, d.block, 1+len(u.servers)+len(rest))
	require.Equal(t, []string{"zone", u.Name, fmt.Sprintf("%dk", u.ZoneKiB)}, d.block[0].words)
	for n, s := range u.servers {
		require.Equal(t, []string{"server", s.Address, fmt.Sprintf("weight=%d", s.Weight), "max_fails=0"}, d.block[1+n].words)
	}
	for n, name := range rest {
		require.Equal(t, name, d.block[1+len(u.servers)+n].name())
	}
}

func checkStream(t *testing.T, tree []directive, services []TCPService, shared []SharedPort) {
	t.Helper()
	if len(services) == 0 && len(shared) == 0 {
		require.Empty(t, tree)
		return
	}
	require.Len(t, tree, 1)
	require.Equal(t, []string{"stream"}, tree[0].words)
	blocks := tree[0].block
	for len(blocks) > 0 && !blocks[0].isBlk {
		require.Len(t, blocks[0].words, 2)
		blocks = blocks[1:]
	}
	for n, s := range services {
		checkUpstream(t, blocks[2*n], s.Upstream)
		require.Equal(t, directive{words: []string{"server"}, isBlk: true, block: []directive{
			{words: []string{"listen", s.Listen.String(), "so_keepalive=on"}},
			{words: []string{"proxy_pass", s.Upstream.Name}},
		}}, blocks[2*n+1])
	}
	blocks = blocks[2*len(services):]
	for _, p := range shared {
		variable := fmt.Sprintf("$lb_tcp_%d", p.Port)
		lines := []directive{{words: []string{"hostnames"}}, {words: []string{"default", ""}}}
		for _, s := range p.Services {
			checkUpstream(t, blocks[0], s.Upstream)
			blocks = blocks[1:]
			for _, host := range s.Hosts {
				lines = append(lines, directive{words: []string{host, s.Upstream.Name}})
			}
		}
		require.Equal(t, directive{words: []string{"map", "$ssl_preread_server_name", variable}, isBlk: true, block: lines}, blocks[0])
		require.Equal(t, directive{words: []string{"server"}, isBlk: true, block: []directive{
			{words: []string{"listen", p.Listen.String(), "so_keepalive=on"}},
			{words: []string{"ssl_preread", "on"}},
			{words: []string{"preread_timeout", "10s"}},
			{words: []string{"proxy_pass", variable}},
		}}, blocks[1])
		blocks = blocks[2:]
	}
	require.Empty(t, blocks)
}
