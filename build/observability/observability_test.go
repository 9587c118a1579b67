package observability

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func rules(t *testing.T, file string) []Rule {
	t.Helper()
	all, err := Rules(file)
	require.NoError(t, err)
	return all
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, into), file)
}

// program is the path of a program of Prometheus's or Alertmanager's packages.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("LB_TEST_REQUIRE") == "1" {
			t.Fatalf("LB_TEST_REQUIRE=1, but %s is missing: %v", name, err)
		}
		t.Skipf("no %s: build/need.sh amtool and promtool install it", name)
	}
	return path
}

// run runs such a program, which must succeed.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	path := program(t, name)
	out, err := exec.Command(path, args...).CombinedOutput()
	require.NoError(t, err, "%s %s\n%s", name, strings.Join(args, " "), out)
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, files, pattern)
	return files
}

func TestRulesAreValid(t *testing.T) {
	t.Parallel()
	run(t, "promtool", append([]string{"check", "rules", "--lint-fatal"}, glob(t, "prometheus/rules/*.yml")...)...)
}

// A recording rule takes other ones from its own group, which are of the same moment.
func TestRecordingRulesAreOfOneMoment(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct{ Record, Expr string }
		}
	}
	readYAML(t, "prometheus/rules/recording.yml", &file)
	recorded := regexp.MustCompile(`\bservice\w*:\w+:\w+`)
	for _, group := range file.Groups {
		known := map[string]bool{}
		for _, r := range group.Rules {
			for _, name := range recorded.FindAllString(r.Expr, -1) {
				assert.True(t, known[name], "%s takes %s, which its group does not record before it", r.Record, name)
			}
			known[r.Record] = true
		}
	}
}

// Each alert fires when it should, and only then.
func TestAlertsFire(t *testing.T) {
	for _, file := range glob(t, "prometheus/tests/*.yml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			run(t, "promtool", "test", "rules", file)
		})
	}
}

// The tests that promtool runs have each alert firing, and not firing.
func TestEveryAlertIsTestedBothWays(t *testing.T) {
	type expectation struct {
		Alertname string
		Expr      string
		Alerts    []any `yaml:"exp_alerts"`
		Samples   []any `yaml:"exp_samples"`
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	named := regexp.MustCompile(`^ALERTS\{.*alertname="(\w+)"`)
	for _, file := range glob(t, "prometheus/tests/*.yml") {
		var parsed struct {
			Tests []struct {
				Rules   []expectation `yaml:"alert_rule_test"`
				Queries []expectation `yaml:"promql_expr_test"`
			}
		}
		readYAML(t, file, &parsed)
		for _, test := range parsed.Tests {
			for _, e := range slices.Concat(test.Rules, test.Queries) {
				name := e.Alertname
				if found := named.FindStringSubmatch(e.Expr); found != nil {
					name = found[1]
				}
				if len(e.Alerts)+len(e.Samples) > 0 {
					fires[name] = true
				} else {
					silent[name] = true
				}
			}
		}
	}
	// Its one firing test has the alerts of both budgets in one expression.
	fires["ErrorBudgetBurns"] = true
	for _, r := range rules(t, "prometheus/rules/alerts.yml") {
		assert.True(t, fires[r.Alert], "no test in prometheus/tests lets %s fire", r.Alert)
		assert.True(t, silent[r.Alert], "no test in prometheus/tests expects that %s does not fire", r.Alert)
	}
}

// Each alert says what it is about, and docs/alerts.md what to do. Nothing else is there.
func TestEveryAlertIsDocumented(t *testing.T) {
	manual, err := os.ReadFile("../../docs/alerts.md")
	require.NoError(t, err)
	sections := map[string]string{}
	for _, section := range strings.Split(string(manual), "\n### ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		sections[title] = text
	}
	names := map[string]bool{}
	for _, r := range rules(t, "prometheus/rules/alerts.yml") {
		names[r.Alert] = true
		assert.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], "severity of %s", r.Alert)
		assert.NotEmpty(t, r.Annotations["summary"], "summary of %s", r.Alert)
		assert.NotEmpty(t, r.Annotations["description"], "description of %s", r.Alert)
		assert.Equal(t, `{{ or $externalLabels.runbooks "docs/alerts.md" }}#`+strings.ToLower(r.Alert), r.Annotations["runbook_url"], "runbook_url of %s", r.Alert)
		text := sections[r.Alert]
		for _, part := range []string{"**Means**", "**Look**", "**Do**"} {
			assert.Contains(t, text, part, "section %s of docs/alerts.md", r.Alert)
		}
	}
	for title := range sections {
		assert.True(t, names[title], "docs/alerts.md describes %q, which is no alert", title)
	}
}

// An alert that inhibits or is inhibited exists.
func TestInhibitionsNameAlerts(t *testing.T) {
	var config struct {
		Rules []struct {
			Source []string `yaml:"source_matchers"`
			Target []string `yaml:"target_matchers"`
		} `yaml:"inhibit_rules"`
	}
	readYAML(t, "alertmanager/alertmanager.yml", &config)
	require.NotEmpty(t, config.Rules)
	alerts := rules(t, "prometheus/rules/alerts.yml")
	matcher := regexp.MustCompile(`^alertname=~?"(.+)"$`)
	for _, r := range config.Rules {
		for _, text := range slices.Concat(r.Source, r.Target) {
			found := matcher.FindStringSubmatch(text)
			require.NotNil(t, found, text)
			for _, name := range strings.Split(found[1], "|") {
				exact := regexp.MustCompile("^(?:" + name + ")$")
				assert.True(t, slices.ContainsFunc(alerts, func(a Rule) bool { return exact.MatchString(a.Alert) }), "alertmanager.yml names %q, which is no alert", name)
			}
		}
	}
}

// The labels that an inhibition compares are labels of the alert that inhibits, as the tests that
// promtool runs expect it. Alertmanager would compare a label that is missing with nothing, and inhibit nothing.
func TestInhibitionsCompareLabelsOfTheirSource(t *testing.T) {
	labels := map[string]string{}
	for _, file := range glob(t, "prometheus/tests/*.yml") {
		var parsed struct {
			Tests []struct {
				Queries []struct {
					Samples []struct{ Labels string } `yaml:"exp_samples"`
				} `yaml:"promql_expr_test"`
				Rules []struct {
					Alertname string
					Alerts    []struct {
						Labels map[string]string `yaml:"exp_labels"`
					} `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		readYAML(t, file, &parsed)
		for _, test := range parsed.Tests {
			for _, q := range test.Queries {
				for _, sample := range q.Samples {
					if found := regexp.MustCompile(`alertname="(\w+)"`).FindStringSubmatch(sample.Labels); found != nil {
						labels[found[1]] = sample.Labels
					}
				}
			}
			for _, r := range test.Rules {
				for _, alert := range r.Alerts {
					for name := range alert.Labels {
						labels[r.Alertname] += name + "="
					}
				}
			}
		}
	}
	var config struct {
		Rules []struct {
			Source []string `yaml:"source_matchers"`
			Equal  []string
		} `yaml:"inhibit_rules"`
	}
	readYAML(t, "alertmanager/alertmanager.yml", &config)
	for _, r := range config.Rules {
		_, names, _ := strings.Cut(strings.Trim(r.Source[0], `"`), `"`)
		for _, name := range strings.Split(names, "|") {
			for _, label := range r.Equal {
				assert.Regexp(t, `\b`+label+`=`, labels[name], "an inhibition by %s compares the label", name)
			}
		}
	}
}

func TestAlertmanagersConfiguration(t *testing.T) {
	t.Parallel()
	run(t, "amtool", "check-config", "alertmanager/alertmanager.yml")
}

// startScript runs a start.sh, with other paths in it, in an environment, and returns what it prints.
func startScript(t *testing.T, file string, paths map[string]string, env ...string) string {
	t.Helper()
	script, err := os.ReadFile(file)
	require.NoError(t, err)
	text := string(script)
	for from, to := range paths {
		require.Contains(t, text, from)
		text = strings.ReplaceAll(text, from, to)
	}
	cmd := exec.Command("sh", "-c", text)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// A URL with characters that mean something to a shell or to sed.
const strangeURL = `https://hooks.example.com/a|b?c=1&d=\1#e`

// start.sh puts a URL with any characters into the configuration.
func TestWebhookOfAlertmanagerIsSettable(t *testing.T) {
	config, err := filepath.Abs("alertmanager/alertmanager.yml")
	require.NoError(t, err)
	made := filepath.Join(t.TempDir(), "made.yml")
	paths := map[string]string{
		"/etc/alertmanager/alertmanager.yml":               config,
		"/tmp/alertmanager.yml":                            made,
		"exec /bin/alertmanager --config.file=\"$config\"": "echo \"$config\" #",
	}
	assert.Equal(t, config, startScript(t, "alertmanager/start.sh", paths, "ALERT_WEBHOOK_URL="))

	require.Equal(t, made, startScript(t, "alertmanager/start.sh", paths, "ALERT_WEBHOOK_URL="+strangeURL))
	var parsed struct {
		Receivers []struct {
			Webhooks []struct{ URL string } `yaml:"webhook_configs"`
		}
	}
	readYAML(t, made, &parsed)
	assert.Equal(t, strangeURL, parsed.Receivers[0].Webhooks[0].URL)
	run(t, "amtool", "check-config", made)
}

// The links of the dashboards lead to where LOGS_URL and the like say, and by default to the ports
// of the compose file.
func TestLinksOfDashboardsAreSettable(t *testing.T) {
	boards, err := filepath.Abs("grafana/dashboards")
	require.NoError(t, err)
	made := filepath.Join(t.TempDir(), "made")
	paths := map[string]string{"/etc/grafana/dashboards": boards, "/tmp/dashboards": made, `exec /run.sh "$@"`: `echo "$LB_DASHBOARDS"`}
	const script = "grafana/start.sh"
	assert.Equal(t, boards, startScript(t, script, paths, "PROMETHEUS_URL=", "LOGS_URL=", "TRACES_URL="))

	require.Equal(t, made, startScript(t, script, paths, "PROMETHEUS_URL=", "LOGS_URL=http://logs.example.com:1", "TRACES_URL="+strings.ReplaceAll(strangeURL, `\`, "")))
	for _, file := range glob(t, made+"/*.json") {
		var board struct {
			Templating struct{ List []struct{ Name, Query any } }
		}
		readYAML(t, file, &board)
		places := map[any]any{}
		for _, v := range board.Templating.List {
			places[v.Name] = v.Query
		}
		assert.Equal(t, "http://localhost:9090", places["prometheus"], file)
		assert.Equal(t, "http://logs.example.com:1", places["logs"], file)
		assert.Equal(t, "https://hooks.example.com/a|b?c=1&d=1#e", places["traces"], file)
	}
}

func dashboards(t *testing.T) map[string]Dashboard {
	t.Helper()
	all, err := Dashboards("grafana/dashboards")
	require.NoError(t, err)
	return all
}

func TestDashboardsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for file, d := range dashboards(t) {
		assert.NotEmpty(t, d.UID, file)
		assert.False(t, seen[d.UID], "%s: uid %q is another one's too", file, d.UID)
		seen[d.UID] = true
		variables := map[string]bool{"__rate_interval": true, "__url_time_range": true, "__value": true}
		for _, v := range d.Templating.List {
			variables[v.Name] = true
		}
		used := regexp.MustCompile(`\$\{?(\w+)`)
		for _, p := range d.Panels {
			if p.Type == "row" {
				continue
			}
			assert.NotEmpty(t, p.Description, "%s: description of %q", file, p.Title)
			assert.NotEmpty(t, p.Targets, "%s: queries of %q", file, p.Title)
			if p.Type != "table" && p.Options.TextMode != "name" {
				assert.NotEmpty(t, p.FieldConfig.Defaults.Unit, "%s: unit of %q", file, p.Title)
			}
			for _, target := range p.Targets {
				for _, name := range used.FindAllStringSubmatch(target.Expr, -1) {
					assert.True(t, variables[name[1]], "%s: %q uses $%s, which is no variable", file, p.Title, name[1])
				}
			}
		}
		for _, link := range d.Links {
			for _, name := range used.FindAllStringSubmatch(link.URL, -1) {
				assert.True(t, variables[name[1]], "%s: link %q uses $%s, which is no variable", file, link.Title, name[1])
			}
		}
	}
}

// The committed dashboards are what the program in dashboards/ writes.
func TestDashboardsAreGenerated(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "-C", "dashboards", ".", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("LB_TEST_REQUIRE") == "1" {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Skipf("the generator does not run here: %v\n%s", err, out)
	}
	for _, file := range glob(t, filepath.Join(dir, "*.json")) {
		made, err := os.ReadFile(file)
		require.NoError(t, err)
		committed, err := os.ReadFile(filepath.Join("grafana/dashboards", filepath.Base(file)))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(made, committed), "%s is out of date: go generate ./build/observability", filepath.Base(file))
	}
	assert.Len(t, glob(t, filepath.Join(dir, "*.json")), len(dashboards(t)))
}

// Rules and dashboards use only metrics that docs/metrics.md documents, with their labels, and
// those that Prometheus, Alertmanager and the recording rules make.
func TestQueriesUseDocumentedMetrics(t *testing.T) {
	documented := documentedMetrics(t)
	recorded := map[string]bool{}
	for _, r := range rules(t, "prometheus/rules/recording.yml") {
		recorded[r.Record] = true
	}
	queries, err := Queries(".")
	require.NoError(t, err)
	foreign := regexp.MustCompile(`^(up|ALERTS|scrape_duration_seconds|(process|go|prometheus|alertmanager)_\w+)$`)
	ofTargets := []string{"job", "instance", "node", "consul_service", "le"}
	for _, query := range queries {
		where, found := query.Where, selectors(query.Expr)
		assert.NotEmpty(t, found, where)
		for _, s := range found {
			if recorded[s.metric] || foreign.MatchString(s.metric) {
				continue
			}
			labels, ok := documented[s.metric]
			if !ok {
				labels, ok = documented[strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(s.metric, "_bucket"), "_count"), "_sum")]
			}
			if !assert.True(t, ok, "%s uses %s, which is not in docs/metrics.md", where, s.metric) {
				continue
			}
			for _, label := range s.labels {
				assert.True(t, slices.Contains(labels, label) || slices.Contains(ofTargets, label), "%s: docs/metrics.md says nothing of the label %q of %s", where, label, s.metric)
			}
		}
	}
}

// documentedMetrics are the metrics of docs/metrics.md, with their labels.
func documentedMetrics(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	metrics := map[string][]string{}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\|[^|]*\\|([^|]*)\\|")
	label := regexp.MustCompile("(?:^|; )\\s*`(\\w+)`")
	for _, found := range row.FindAllStringSubmatch(string(text), -1) {
		var labels []string
		for _, l := range label.FindAllStringSubmatch(strings.TrimSpace(found[2]), -1) {
			labels = append(labels, l[1])
		}
		metrics[found[1]] = labels
	}
	require.NotEmpty(t, metrics)
	return metrics
}

// A selector of a query: a metric, and the labels that it compares.
type selector struct {
	metric string
	labels []string
}

var (
	quoted    = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	grouping  = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	duration  = regexp.MustCompile(`\[[^\]]*\]`)
	selecting = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\}|\()?`)
	compared  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
)

// selectors finds the selectors of a query, as far as our queries go: it knows no more of the
// language than they use.
func selectors(expr string) []selector {
	expr = quoted.ReplaceAllString(expr, `""`)
	expr = grouping.ReplaceAllString(expr, " ")
	expr = duration.ReplaceAllString(expr, " ")
	var all []selector
	for _, found := range selecting.FindAllStringSubmatch(expr, -1) {
		if found[2] == "(" || slices.Contains([]string{"and", "or", "unless", "bool"}, found[1]) {
			continue
		}
		s := selector{metric: found[1]}
		for _, label := range compared.FindAllStringSubmatch(found[2], -1) {
			s.labels = append(s.labels, label[1])
		}
		all = append(all, s)
	}
	return all
}

func TestSelectors(t *testing.T) {
	got := selectors(`(sum by (service) (rate(a_total{code="5xx", b=~"x|y"}[5m])) or 0 * s:a:rate5m) / on () group_left () (sum(c) > 0) unless on (instance) d == 1`)
	assert.Equal(t, []selector{
		{metric: "a_total", labels: []string{"code", "b"}},
		{metric: "s:a:rate5m"},
		{metric: "c"},
		{metric: "d"},
	}, got)
}

func TestWithoutThresholds(t *testing.T) {
	assert.Equal(t, []string{`up{job="a >= b", x!="y"} == bool 0`}, WithoutThresholds(`up{job="a >= b", x!="y"} == 0`))
	assert.Equal(t, []string{`up{job="lbctl"}`}, WithoutThresholds(`absent(up{job="lbctl"})`))
	assert.Equal(t, []string{"a == bool 0", "b == bool 1"}, WithoutThresholds("a == 0 unless on (instance) b == 1"))
	assert.Equal(t, []string{"a > bool 2 * b and a > bool 8"}, WithoutThresholds("a > 2 * b and a > 8"))
}

// The commands and flags of lbctl that docs/alerts.md recommends are in the manual.
func TestAlertsRecommendCommandsThatExist(t *testing.T) {
	alerts, err := os.ReadFile("../../docs/alerts.md")
	require.NoError(t, err)
	manual, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	commands := regexp.MustCompile("`lbctl ([a-z]+)([^`]*)`").FindAllStringSubmatch(string(alerts), -1)
	require.NotEmpty(t, commands)
	flag := regexp.MustCompile(`--[a-z-]+`)
	for _, command := range commands {
		row := regexp.MustCompile("(?m)^\\| \\[`" + command[1] + "[ `]")
		assert.True(t, row.Match(manual), "docs/alerts.md recommends lbctl %s, which docs/cli.md does not have", command[1])
		for _, name := range flag.FindAllString(command[2], -1) {
			assert.True(t, bytes.Contains(manual, []byte("`"+name)), "docs/alerts.md recommends lbctl %s%s, and docs/cli.md has no %s", command[1], command[2], name)
		}
	}
}

// Provisioning names what is there.
func TestGrafanasProvisioning(t *testing.T) {
	var sources struct {
		Datasources []struct{ Name, UID, Type, URL string }
	}
	readYAML(t, "grafana/provisioning/datasources/datasources.yaml", &sources)
	var compose struct{ Services map[string]any }
	readYAML(t, "../../docker-compose.observability.yaml", &compose)
	for _, s := range sources.Datasources {
		host := strings.Split(strings.TrimPrefix(s.URL, "http://"), ":")[0]
		assert.Contains(t, compose.Services, host, "data source %s", s.Name)
	}
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, "grafana/provisioning/dashboards/dashboards.yaml", &providers)
	require.Len(t, providers.Providers, 1)
	assert.Equal(t, "$LB_DASHBOARDS", providers.Providers[0].Options.Path, "what start.sh sets")
}
