// Package observability has what shows an operator the load balancer: Prometheus's configuration
// and rules, Alertmanager's routes, and Grafana's dashboards. docs/observability.md is the tour.
// The package itself reads them for tests.
package observability

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:generate go run -C dashboards . ../grafana/dashboards

// A Rule of Prometheus is a recording rule or an alert.
type Rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

// Rules reads a file of rules.
func Rules(file string) ([]Rule, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var parsed struct {
		Groups []struct{ Rules []Rule }
	}
	if err := yaml.Unmarshal(text, &parsed); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var all []Rule
	for _, group := range parsed.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no rules", file)
	}
	return all, nil
}

// A Dashboard of Grafana, as far as tests look at it.
type Dashboard struct {
	UID        string
	Title      string
	Panels     []Panel
	Templating struct {
		List []struct{ Name, Type string }
	}
	Links []struct{ Title, Type, URL string }
}

// A Panel of a dashboard. One of the type "row" is a heading without queries.
type Panel struct {
	Type, Title, Description string
	Targets                  []struct{ Expr string }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Options                  struct{ TextMode string }
}

// Dashboards reads the dashboards of a directory, by the names of their files.
func Dashboards(dir string) (map[string]Dashboard, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no dashboards", dir)
	}
	all := map[string]Dashboard{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var d Dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all[filepath.Base(file)] = d
	}
	return all, nil
}

// A Query is an expression of a rule or of a dashboard.
type Query struct{ Where, Expr string }

// Queries reads all queries of a directory like this package's: those of rules, and those of
// dashboards, with their variables in place.
func Queries(dir string) ([]Query, error) {
	var all []Query
	for _, file := range []string{"recording.yml", "alerts.yml"} {
		rules, err := Rules(filepath.Join(dir, "prometheus/rules", file))
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			all = append(all, Query{strings.TrimSpace(r.Record + " " + r.Alert), r.Expr})
		}
	}
	dashboards, err := Dashboards(filepath.Join(dir, "grafana/dashboards"))
	if err != nil {
		return nil, err
	}
	for file, d := range dashboards {
		for _, p := range d.Panels {
			for n, target := range p.Targets {
				all = append(all, Query{fmt.Sprintf("%s, %q, query %d", file, p.Title, n+1), target.Expr})
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("there are no queries")
	}
	return all, nil
}

var (
	literal    = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\{[^}]*\}`)
	comparison = regexp.MustCompile(`\s(==|!=|>=|<=|>|<)\s`)
	unless     = regexp.MustCompile(`\sunless on \([^)]*\)\s`)
	absent     = regexp.MustCompile(`absent\((.*)\)`)
	state      = regexp.MustCompile(`lbctl_service_state\{state="[a-z-]+"\}`)
)

// WithoutThresholds returns the expressions of which an alert's is made, such that each finds
// something whether the alert fires or not: comparisons give 0 or 1 instead of leaving series out.
func WithoutThresholds(expr string) []string {
	expr = absent.ReplaceAllString(expr, "$1")
	expr = state.ReplaceAllString(expr, "lbctl_service_state") // a series only of the state that it is in
	var parts []string
	for _, part := range unless.Split(expr, -1) {
		// What stands in quotes or braces is no comparison of values.
		var kept []string
		masked := literal.ReplaceAllStringFunc(part, func(s string) string {
			kept = append(kept, s)
			return "\x00"
		})
		masked = comparison.ReplaceAllString(masked, " $1 bool ")
		for _, s := range kept {
			masked = strings.Replace(masked, "\x00", s, 1)
		}
		parts = append(parts, masked)
	}
	return parts
}
