package integration

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// documented is a metric as docs/metrics.md has it.
type documented struct {
	kind   string
	labels map[string][]string // their values, by name; nil: any
}

// documentedMetrics returns the rows of the tables of docs/metrics.md.
func documentedMetrics(t *testing.T) map[string]documented {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\| (.*?) \\| .+ \\|$")
	label := regexp.MustCompile("^`([a-z_]+)`: (.+)$")
	all := map[string]documented{}
	for _, match := range row.FindAllStringSubmatch(string(text), -1) {
		d := documented{kind: match[2], labels: map[string][]string{}}
		for text := range strings.SplitSeq(match[3], "; ") {
			if text == "" {
				continue
			}
			parts := label.FindStringSubmatch(text)
			require.NotNil(t, parts, "%s: labels %q", match[1], text)
			var values []string
			if strings.HasPrefix(parts[2], "`") {
				values = strings.Split(strings.ReplaceAll(parts[2], "`", ""), ", ")
			}
			d.labels[parts[1]] = values
		}
		all[match[1]] = d
	}
	require.NotEmpty(t, all)
	return all
}

// checkDocumented checks that each metric is documented with its type and labels, and that each
// documented one with the prefix is there.
func checkDocumented(t *testing.T, prefix string, exposed lbtest.Metrics) {
	t.Helper()
	all := documentedMetrics(t)
	for name, family := range exposed {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		d, ok := all[name]
		if !assert.True(t, ok, "docs/metrics.md does not have %s", name) {
			continue
		}
		assert.Equal(t, d.kind, strings.ToLower(family.GetType().String()), name)
		for _, series := range family.Metric {
			assert.Len(t, series.Label, len(d.labels), "%s: labels %v", name, series.Label)
			for _, l := range series.Label {
				values, ok := d.labels[l.GetName()]
				assert.True(t, ok, "%s has the label %s", name, l.GetName())
				if values != nil {
					assert.Contains(t, values, l.GetValue(), "%s: label %s", name, l.GetName())
				}
			}
		}
	}
	for name := range all {
		if strings.HasPrefix(name, prefix) {
			assert.Contains(t, exposed, name, "docs/metrics.md has it")
		}
	}
}

// promtool checks metrics as Prometheus's own tool does. It skips that where the tool is missing.
func promtool(t *testing.T, metrics lbtest.Metrics) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("no promtool on PATH: its check is left out")
		return
	}
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range metrics {
		require.NoError(t, encoder.Encode(family))
	}
	cmd := exec.Command(path, "check", "metrics")
	cmd.Stdin = &text
	out, err := cmd.CombinedOutput()
	assert.NoError(t, err, "promtool check metrics: %s", out)
}

func TestMetrics(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		certificates := t.TempDir()
		certificatestest.NewAuthority(t, "test").Issue(t, 100*24*time.Hour, "localhost").Write(t, certificates, "default")
		tls := net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
		s := alone(t, binary, "--certificates", certificates, "--listener", "grpcs=grpcs://"+tls, "--listener", "https=off")
		first := lbtest.StartBackend(t, "first")
		registration := first.Registration(hello)
		registration.Check.Interval = "1h" // lbctl's probe finds its end, not Consul's check
		require.NoError(t, s.consul.Agent().ServiceRegister(registration))
		s.WaitServing(hello, 1)
		for _, name := range []string{"second", "third"} {
			lbtest.StartBackend(t, name).Register(t, s.consul, hello)
		}
		s.WaitServing(hello, 3)

		last := lbtest.StartBackend(t, "last")
		convergence(t, s, binary, last)

		first.Kill()
		s.WaitMetric(1, "lbctl_instance_ejections_total", "service", hello, "by", "probe")
		s.WaitMetric(1, "lbctl_instances", "service", hello, "state", "ejected")
		s.WaitMetric(3, "lbctl_instances", "service", hello, "state", "in-rotation")

		m, err := s.Metrics()
		require.NoError(t, err)
		checkDocumented(t, "lbctl_", m)
		promtool(t, m)
		for metric, want := range map[string]float64{
			"lbctl_nginx_up": 1, "lbctl_consul_up": 1, "lbctl_frozen": 0, "lbctl_last_apply_successful": 1, "lbctl_nginx_info": 1,
		} {
			got, ok := m.Value(metric)
			assert.True(t, ok && got == want, "%s is %v, want %v", metric, got, want)
		}
		memory, _ := m.Value("lbctl_nginx_memory_bytes")
		assert.Greater(t, memory, 1e6)
		expiry, _ := m.Value("lbctl_certificate_expiry_timestamp_seconds", "name", "default")
		assert.Greater(t, expiry, float64(time.Now().Unix()))

		_, err = s.Lbctl("rollback", "1")
		require.NoError(t, err)
		s.WaitMetric(1, "lbctl_frozen")
		s.WaitMetric(1, "lbctl_state", "state", "frozen")
		_, err = s.Lbctl("resume")
		require.NoError(t, err)
		s.WaitMetric(0, "lbctl_frozen")
		s.WaitMetric(1, "lbctl_reloads_total", "reason", "rollback", "outcome", "success")

		s.leave(t, "first", "second", "third", "last")
		s.Eventually("no series has the service", func() error {
			m, err := s.Metrics()
			if err != nil {
				return err
			}
			for name := range m {
				if left := m.Series(name, "service", hello); len(left) > 0 && !countsRequests(name) {
					return fmt.Errorf("%s has %v", name, left)
				}
			}
			return nil
		})

		s.Nginx().Stop()
		s.WaitMetric(0, "lbctl_nginx_up")
		m, err = s.Metrics()
		require.NoError(t, err)
		for _, gone := range []string{"lbctl_nginx_connections", "lbctl_nginx_memory_bytes"} {
			assert.NotContains(t, m, gone)
		}
	})
}

// leave takes all instances of hello out of Consul, those with these names.
func (s *system) leave(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		require.NoError(t, s.consul.Agent().EnableServiceMaintenance(hello+"-"+name, "leaving"))
	}
	s.WaitServing(hello, 0)
	for _, name := range names {
		require.NoError(t, s.consul.Agent().ServiceDeregister(hello+"-"+name))
	}
}

// convergence adds an instance and checks that the time is counted until nginx serves it.
func convergence(t *testing.T, s *system, binary nginxtest.Binary, b *lbtest.Backend) {
	delivery := "dns"
	if strings.HasPrefix(binary.Version, "1.22.") {
		delivery = "reload"
	}
	counted := func() (number, seconds float64) {
		m, err := s.Metrics()
		require.NoError(t, err)
		all := m.Series("lbctl_convergence_seconds", "delivery", delivery)
		require.Len(t, all, 1, "series of %s", delivery)
		return float64(all[0].Histogram.GetSampleCount()), all[0].Histogram.GetSampleSum()
	}
	number, seconds := counted()
	began := time.Now()
	b.Register(t, s.consul, hello)
	s.Eventually("the change is counted", func() error {
		if n, _ := counted(); n <= number {
			return fmt.Errorf("%v changes by %s, as before", n, delivery)
		}
		return nil
	})
	_, after := counted()
	assert.Greater(t, after, seconds)
	assert.Less(t, after-seconds, time.Since(began).Seconds())
}

// countsRequests reports whether the series of a metric go some minutes after their service.
func countsRequests(metric string) bool {
	return strings.HasPrefix(metric, "lbctl_request") || strings.HasPrefix(metric, "lbctl_response") || strings.HasPrefix(metric, "lbctl_upstream")
}
