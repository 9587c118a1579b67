package render

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/endpoints"
)

// tcp returns a TCP service with an instance in the status.
func tcp(name string, port int, status endpoints.Status) endpoints.Service {
	return endpoints.Service{Name: name, Spec: endpoints.Spec{Protocol: endpoints.TCP, Port: port}, OK: true, Instances: []endpoints.Instance{
		{ID: name + "-1", Node: "n", Address: "10.0.0.1", Port: 6379, Weight: 1, Status: status},
	}}
}

// source returns a Source without Consul; says provides the services.
func source(t *testing.T, template string) *Source {
	t.Helper()
	dir := t.TempDir()
	if template != "" {
		require.NoError(t, os.Mkdir(filepath.Join(dir, "http.d"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "http.d", "own.conf.ctmpl"), []byte(template), 0o644))
	}
	s, err := New(Options{Settings: testSettings("1.30.6"), TemplatesDir: dir})
	require.NoError(t, err)
	return s
}

// says makes the source observe services, and returns its configuration.
func (s *Source) says(t *testing.T, services ...endpoints.Service) Configuration {
	t.Helper()
	s.table.Observe(time.Now(), services)
	require.NoError(t, s.render(t.Context()))
	select {
	case c := <-s.updates:
		return c
	default:
		return Configuration{}
	}
}

const inUse = "generation 8: rolled back to 7: bind() to 0.0.0.0:6379 failed (98: Address already in use)"

func TestAPortInUseIsTracedToItsService(t *testing.T) {
	quiet, cache, other := tcp("cache", 6379, endpoints.Critical), tcp("cache", 6379, endpoints.Passing), tcp("other", 6380, endpoints.Passing)
	tests := []struct {
		name          string
		before, after []endpoints.Service
		why           string
		want          []string
	}{
		{"a new service", []endpoints.Service{other}, []endpoints.Service{other, cache}, inUse, []string{"cache"}},
		{"a service whose first instance passes", []endpoints.Service{quiet, other}, []endpoints.Service{cache, other}, inUse, []string{"cache"}},
		{"nginx already listens on the port", []endpoints.Service{cache, other}, []endpoints.Service{func() endpoints.Service {
			more := cache
			more.Instances = append([]endpoints.Instance{{ID: "0", Node: "n", Address: "10.0.0.2", Port: 1, Weight: 1, Status: endpoints.Passing}}, cache.Instances...)
			return more
		}(), other}, inUse, nil},
		{"no service has that port", []endpoints.Service{other}, []endpoints.Service{other, tcp("cache", 6381, endpoints.Passing)}, inUse, nil},
		{"another reason", []endpoints.Service{other}, []endpoints.Service{other, cache}, "generation 8: rolled back to 7: malloc() failed", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := source(t, "")
			s.NginxAccepted(s.says(t, tt.before...).Entries)
			found := s.QuarantineCulprits(t.Context(), s.says(t, tt.after...), tt.why, nil)
			assert.Equal(t, tt.want, found.Services)
			var reasons []string
			for _, e := range s.table.Observe(time.Now(), tt.after) {
				if e.State == endpoints.Quarantined {
					reasons = append(reasons, e.Name)
					assert.Contains(t, e.Reason, ": bind() to 0.0.0.0:6379 failed (98: Address already in use)")
				}
			}
			assert.ElementsMatch(t, tt.want, reasons)
		})
	}
}

func versioned(name, version string) endpoints.Service {
	return endpoints.Service{Name: name, Spec: endpoints.Spec{Protocol: endpoints.GRPC, Routes: []endpoints.Route{{Path: "/" + name}}}, OK: true,
		Instances: []endpoints.Instance{{ID: name, Node: "n", Address: "10.0.0.1", Port: 7777, Weight: 1, Status: endpoints.Passing, Version: version}}}
}

// failsForBad is a template that fails for the version "bad".
const failsForBad = `{{range catalog.Services}}{{range .Instances}}{{if eq .Version "bad"}}{{index "" 1}}{{end}}{{end}}{{end}}`

func TestATemplateThatFailsForSomeServices(t *testing.T) {
	tests := []struct {
		name          string
		before, after []endpoints.Service
		want          string
	}{
		{"one of two, which was good before", []endpoints.Service{versioned("a", "1"), versioned("b", "1")}, []endpoints.Service{versioned("a", "bad"), versioned("b", "2")}, "a=quarantined(true) b=fresh(true)"},
		{"the only one, which was good before", []endpoints.Service{versioned("a", "1")}, []endpoints.Service{versioned("a", "bad")}, "a=quarantined(true)"},
		{"a new one of two", []endpoints.Service{versioned("a", "1")}, []endpoints.Service{versioned("a", "2"), versioned("b", "bad")}, "a=fresh(true) b=quarantined(false)"},
		{"two new ones beside an unchanged one", []endpoints.Service{versioned("a", "1")}, []endpoints.Service{versioned("a", "1"), versioned("b", "bad"), versioned("c", "bad")}, "a=fresh(true) b=quarantined(false) c=quarantined(false)"},
		{"most of them and new: the template may be the cause", nil, []endpoints.Service{versioned("a", "bad"), versioned("b", "bad"), versioned("c", "1")}, "a=fresh(true) b=fresh(true) c=fresh(true)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := source(t, failsForBad)
			s.NginxAccepted(s.says(t, tt.before...).Entries)
			assert.Empty(t, s.says(t, tt.after...).Files)
			got := ""
			for _, e := range s.table.Observe(time.Now(), tt.after) {
				got += fmt.Sprintf(" %s=%s(%v)", e.Name, e.State, e.Served())
			}
			assert.Equal(t, " "+tt.want, got)
		})
	}
	t.Run("an unchanged service is not the cause when a template has changed", func(t *testing.T) {
		s := source(t, "")
		s.NginxAccepted(s.says(t, versioned("a", "bad"), versioned("b", "1")).Entries)
		s.set = maps.Clone(s.set) // as when the directory is read again
		s.set["http.d/own.conf.ctmpl"] = newContents(failsForBad)
		s.says(t, versioned("a", "bad"), versioned("b", "2"))
		assert.Equal(t, "template http.d/own.conf.ctmpl", s.Status().Problems[0].Subject)
		assert.Equal(t, endpoints.Fresh, s.table.Entries()[0].State)
	})
}

func TestATemplateThatIsWrongFromTheStartQuarantinesNoService(t *testing.T) {
	s := source(t, "{{range catalog.Services}}{{.Name}}; {{end}}")
	var crowd []endpoints.Service
	const services = 24 // one search finds less than half of them
	for n := range services {
		crowd = append(crowd, versioned(fmt.Sprint("s", n), "1"))
	}
	refuses := func(_ context.Context, files map[string][]byte) (string, error) {
		if len(files["http.d/own.conf"]) > 0 {
			return "nginx -t: no place", nil
		}
		return "", nil
	}
	for rounds := 0; len(s.QuarantineCulprits(t.Context(), s.says(t, crowd...), "nginx -t: no place", refuses).Services) > 0; rounds++ {
		require.Less(t, rounds, services, "lbctl blames a service each time")
	}
	out := 0
	for _, e := range s.table.Observe(time.Now(), crowd) {
		if e.Refused {
			out++
		}
	}
	assert.LessOrEqual(t, out, services/2)
}

func TestTheNextConfigurationLeavesOutRefusedServices(t *testing.T) {
	s := source(t, "{{range catalog.Services}}{{.Name}} {{range .Instances}}{{.Version}}{{end}};\n{{end}}")
	s.NginxAccepted(s.says(t, versioned("a", "1"), versioned("b", "1")).Entries)
	after := []endpoints.Service{versioned("a", "2"), versioned("b", "2"), versioned("c", "2")}
	c := s.says(t, after...)
	asked := 0
	refuses := func(_ context.Context, files map[string][]byte) (string, error) {
		asked++
		for n, line := range strings.Split(string(files["http.d/own.conf"]), "\n") {
			if line == "a 2;" || line == "c 2;" {
				return fmt.Sprintf("nginx -t: unknown directive %q in http.d/own.conf:%d", line[:1], n+1), nil
			}
		}
		return "", nil
	}
	found := s.QuarantineCulprits(t.Context(), c, `nginx -t: unknown directive "a" in http.d/own.conf:1`, refuses)
	assert.Equal(t, Culprits{Services: []string{"a", "c"}}, found)
	assert.LessOrEqual(t, asked, 8)

	c = s.says(t, after...)
	assert.Equal(t, "a 1;\nb 2;\n", string(c.Files["http.d/own.conf"]), "the old a, the new b, and no c")
	require.Len(t, c.Entries, 3)
	assert.Equal(t, "service a", c.Problems[0].Subject)

	t.Run("no service is blamed if nginx -t can't run", func(t *testing.T) {
		c := s.says(t, versioned("a", "2"), versioned("b", "3"), versioned("c", "2"))
		found := s.QuarantineCulprits(t.Context(), c, "nginx -t: no place", func(context.Context, map[string][]byte) (string, error) {
			return "", errors.New("disk full")
		})
		assert.Empty(t, found.Services)
	})
}

func TestCulpritsAreSearchedOutsideOfTheLoop(t *testing.T) {
	consul := consultest.Start(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "own.conf.ctmpl"), []byte("{{range catalog.Services}}{{.Name}};\n{{end}}"), 0o644))
	r := run(t, consul, func(o *Options) { o.TemplatesDir = dir })
	add := func(name string, port int) {
		register(t, consul, name, name+"-1", port, nil, map[string]string{"lb-protocol": "grpc", "lb-path": "/" + name})
	}
	add("good", 7001)
	r.NginxAccepted(r.awaitServer("127.0.0.1:7001").Entries)
	add("bad", 7002)
	c := r.awaitServer("127.0.0.1:7002")

	n := 0
	refuses := func(_ context.Context, files map[string][]byte) (string, error) {
		// Meanwhile Consul and the templates may change.
		n++
		add(fmt.Sprint("new-", n), 7100+n)
		r.awaitServer(fmt.Sprint("127.0.0.1:", 7100+n))
		if strings.Contains(string(files["own.conf"]), "bad;") {
			return "nginx -t: no place", nil
		}
		return "", nil
	}
	assert.Equal(t, []string{"bad"}, r.QuarantineCulprits(t.Context(), c, "nginx -t: no place", refuses).Services)
	assert.Equal(t, 2, n, "one test without all suspects, one without the only one")
	r.await("without the bad service", func(c Configuration) bool {
		own := string(c.Files["own.conf"])
		return strings.Contains(own, "good;") && strings.Contains(own, "new-2;") && !strings.Contains(own, "bad;")
	})
	assert.Contains(t, r.awaitProblem("service bad", "quarantined").Message, "nginx -t: no place")
}
