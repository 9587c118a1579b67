package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// failed matches the series of lbctl_requests_total that are errors, beside code="5xx".
const failed = `grpc_status=~"UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"`

// board begins a dashboard with what all of them share: the data source, links to the others,
// and to logs and traces.
func board(uid, title, description string) *dashboard.DashboardBuilder {
	return places(dashboard.NewDashboardBuilder(title).
		Uid(uid).
		Description(description).
		Tags([]string{"lbctl"}).
		Readonly().
		Refresh("10s").
		Time("now-30m", "now").
		Timezone("browser").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Annotation(alerts()).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").
			Label("Prometheus").
			Type("prometheus").
			Current(option("Prometheus", "prometheus"))).
		Link(dashboard.NewDashboardLinkBuilder("Dashboards").
			Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{"lbctl"}).
			AsDropdown(true).
			KeepTime(true)).
		Link(external("Alerts", "${prometheus}/alerts", "Which alerts fire")).
		Link(external("Logs", "${logs}/select/vmui/?#/?query=%2A&g0.range_input=30m&g0.relative_time=last_30_minutes", "The requests and the containers' logs")).
		Link(external("Traces", "${traces}/search", "The traces of requests")))
}

// places adds hidden variables: where a browser reaches what is not Grafana. Put other values into
// a dashboard's settings, or into its URL as var-logs=...
func places(b *dashboard.DashboardBuilder) *dashboard.DashboardBuilder {
	return b.
		WithVariable(place("prometheus", "http://localhost:9090")).
		WithVariable(place("logs", "http://localhost:9428")).
		WithVariable(place("traces", "http://localhost:16686"))
}

func place(name, url string) *dashboard.TextBoxVariableBuilder {
	return dashboard.NewTextBoxVariableBuilder(name).
		Hide(dashboard.VariableHideHideVariable).
		DefaultValue(dashboard.StringOrMap{String: &url}).
		Current(option(url, url))
}

func option(text, value string) dashboard.VariableOption {
	return dashboard.VariableOption{
		Text:  dashboard.StringOrArrayOfString{String: &text},
		Value: dashboard.StringOrArrayOfString{String: &value},
	}
}

func external(title, url, tooltip string) *dashboard.DashboardLinkBuilder {
	return dashboard.NewDashboardLinkBuilder(title).
		Type(dashboard.DashboardLinkTypeLink).
		Url(url).
		Tooltip(tooltip).
		Icon("external link").
		TargetBlank(true)
}

// alerts marks in all graphs when an alert fired.
func alerts() *dashboard.AnnotationQueryBuilder {
	return dashboard.NewAnnotationQueryBuilder().
		Name("Alerts").
		Datasource(source()).
		Enable(true).
		IconColor("red").
		Expr(`ALERTS{alertstate="firing"}`)
}

// choice is a variable with the values of a label.
func choice(name, label, metric string) *dashboard.QueryVariableBuilder {
	q := "label_values(" + metric + ", " + name + ")"
	return dashboard.NewQueryVariableBuilder(name).
		Label(label).
		Query(dashboard.StringOrMap{String: &q}).
		Datasource(source()).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc)
}

// several makes a choice one of all values or some.
func several(v *dashboard.QueryVariableBuilder) *dashboard.QueryVariableBuilder {
	return v.Multi(true).IncludeAll(true).AllValue(".*").Current(dashboard.VariableOption{
		Text:  dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
		Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
	})
}
