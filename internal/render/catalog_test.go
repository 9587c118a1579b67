package render

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
)

// served returns one line for each host of a frontend: "host: location service, ...".
func served(f Frontend) []string {
	var lines []string
	for _, h := range f.Hosts {
		var words []string
		for _, l := range h.Locations {
			path := l.Path
			if l.Exact {
				path = "=" + path
			}
			service := l.Service
			if service == "" {
				service = "nobody"
			}
			words = append(words, path+" "+service)
		}
		lines = append(lines, h.Name+": "+strings.Join(words, ", "))
	}
	return lines
}

func TestRouting(t *testing.T) {
	// A row's services are "name protocol host path".
	for _, c := range []struct {
		name     string
		services []string
		want     []string
	}{
		{"nothing", nil, []string{"_: / nobody"}},
		{"a default", []string{"a http - -"}, []string{"_: / a"}},
		{
			"the longest path first, each with what is below",
			[]string{"a http - -", "b http - /x", "c http - /x/y", "d http - /long"},
			[]string{"_: =/long d, /long/ d, =/x/y c, /x/y/ c, =/x b, /x/ b, / a"},
		},
		{
			"a host has what is left of the routes for any host",
			[]string{"a http - -", "b http - /x", "c http h.test /y"},
			[]string{"_: =/x b, /x/ b, / a", "h.test: =/x b, /x/ b, =/y c, /y/ c, / a"},
		},
		{
			"a host's own path hides what is at and below it",
			[]string{"a http - /x/deep", "b http - /xylophone", "c http h.test /x"},
			[]string{
				"_: =/xylophone b, /xylophone/ b, =/x/deep a, /x/deep/ a, / nobody",
				"h.test: =/xylophone b, /xylophone/ b, =/x c, /x/ c, / nobody",
			},
		},
		{
			"a host for all paths hides everything",
			[]string{"a http - -", "b http - /x", "c http h.test -"},
			[]string{"_: =/x b, /x/ b, / a", "h.test: / c"},
		},
		{
			"wildcards come between, the longest first",
			[]string{"a http *.test /a", "b http *.sub.test /b", "c http h.sub.test /c", "d http - -"},
			[]string{
				"_: / d",
				"*.sub.test: =/a a, /a/ a, =/b b, /b/ b, / d",
				"*.test: =/a a, /a/ a, / d",
				"h.sub.test: =/a a, /a/ a, =/b b, /b/ b, =/c c, /c/ c, / d",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, served(catalogOf(t, testSettings("1.30.6"), services(c.services...)).HTTP))
		})
	}
}

// services makes a service with one instance from each "name protocol host path [port]";
// "-" means none.
func services(lines ...string) []endpoints.Service {
	var all []endpoints.Service
	for n, line := range lines {
		words := strings.Fields(line)
		s := endpoints.Service{Name: words[0], Spec: endpoints.Spec{Protocol: endpoints.Protocol(words[1])}, OK: true, Instances: []endpoints.Instance{
			{ID: words[0], Node: "n", Address: fmt.Sprintf("10.0.0.%d", n+1), Port: 80, Weight: 1, Status: endpoints.Passing},
		}}
		r := endpoints.Route{Host: strings.Trim(words[2], "-"), Path: strings.Trim(words[3], "-")}
		switch {
		case len(words) > 4:
			fmt.Sscan(words[4], &s.Port)
		case r == endpoints.Route{}:
			s.Default = true
		default:
			s.Routes = []endpoints.Route{r}
		}
		all = append(all, s)
	}
	return all
}

func TestCallsOfGRPCNeedOneLocationEach(t *testing.T) {
	c := catalogOf(t, testSettings("1.30.6"), services("a grpc - /pkg.A", "b grpcs - /pkg.A/Method"))
	assert.Equal(t, []string{"_: =/pkg.A/Method b, /pkg.A/ a, / nobody"}, served(c.GRPC))
	assert.Equal(t, []string{"_: / nobody"}, served(c.HTTP), "families are separate")
}

// An endpoints.Table returns no conflicts. If it did, the catalog must find them before
// nginx does.
func TestAConflictIsAProblem(t *testing.T) {
	var entries []endpoints.Entry
	for _, s := range services("a http - /x", "b https - /x", "c tcp - - 7000", "d tcp - - 7000", "e http - -", "f http - -") {
		entries = append(entries, endpoints.Entry{Service: s})
	}
	c, laidOut := newCatalog(entries, testSettings("1.30.6"), testNames().addresses, nil, nil)
	problems := laidOut.problems
	assert.Equal(t, []string{"_: =/x a, /x/ a, / e"}, served(c.HTTP))
	require.Len(t, c.TCP, 1)
	assert.Equal(t, Listen{"0.0.0.0:7000"}, c.TCP[0].Listen)
	assert.Equal(t, []Problem{
		{Subject: "service b", Message: `http route "*/x" belongs to service "a"`},
		{Subject: "service d", Message: `TCP port 7000 belongs to service "c"`},
		{Subject: "service f", Message: `http route "*" belongs to service "e"`},
	}, problems)
}

func TestUpstreams(t *testing.T) {
	s := services("web http - /a", "WEB http - /b", "web-2 http - /c", "HTTP-Web http - /d")
	s[0].Instances = append(s[0].Instances,
		endpoints.Instance{ID: "again", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 5, Status: endpoints.Passing},
		endpoints.Instance{ID: "six", Node: "n", Address: "fd00::1", Port: 80, Weight: 5, Status: endpoints.Warning},
		endpoints.Instance{ID: "out", Node: "n", Address: "10.0.0.9", Port: 80, Weight: 5, Status: endpoints.Critical})
	c := catalogOf(t, testSettings("1.30.6"), s)
	names := map[string]bool{}
	for _, u := range c.HTTP.Upstreams {
		assert.False(t, names[strings.ToLower(u.Name)], "%q is another upstream's name in nginx", u.Name)
		names[strings.ToLower(u.Name)] = true
		if u.Service == "web" {
			require.Len(t, u.servers, 2)
			assert.Equal(t, "10.0.0.1:80", u.servers[0].Address)
			assert.Equal(t, Server{Address: "[fd00::1]:80", Weight: 5}, u.servers[1])
		}
	}
	assert.Len(t, names, 4)
}
