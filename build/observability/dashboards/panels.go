package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// Grafana's names of units.
const (
	perSecond   = "reqps"
	opsPerSec   = "ops"
	seconds     = "s"
	share       = "percentunit"
	bytesUnit   = "bytes"
	bytesPerSec = "Bps"
	count       = "none"
)

// A query is an expression, and what stands in the legend.
type query struct{ expr, legend string }

func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

func target(ref int, q query) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().
		RefId(string(rune('A' + ref))).
		Datasource(source()).
		Expr(q.expr).
		LegendFormat(q.legend)
}

// graph is a panel of lines over time, which begin at zero.
func graph(title, description, unit string, queries ...query) *timeseries.PanelBuilder {
	panel := timeseries.NewPanelBuilder().
		Title(title).
		Description(description).
		Datasource(source()).
		Unit(unit).
		Min(0).
		Span(8).
		Height(8).
		LineWidth(1.5).
		FillOpacity(8).
		ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().
			DisplayMode(common.LegendDisplayModeList).
			Placement(common.LegendPlacementBottom).
			ShowLegend(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().
			Mode(common.TooltipDisplayModeMulti).
			Sort(common.SortOrderDescending))
	for n, q := range queries {
		panel.WithTarget(target(n, q).Range())
	}
	return panel
}

// stacked is a graph whose lines add up.
func stacked(title, description, unit string, queries ...query) *timeseries.PanelBuilder {
	return graph(title, description, unit, queries...).
		FillOpacity(30).
		Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal))
}

// number is a panel with the last value of one query. From amber and red on, its background has
// that color; 0 for neither. A red one below amber means that less is worse.
func number(title, description, unit, expr string, amber, red float64) *stat.PanelBuilder {
	steps := []dashboard.Threshold{{Color: "green"}}
	switch {
	case amber == 0 && red == 0:
		steps = []dashboard.Threshold{{Color: "text"}}
	case red < amber:
		steps = []dashboard.Threshold{{Color: "red"}, {Value: &red, Color: "orange"}, {Value: &amber, Color: "green"}}
	default:
		if amber != 0 {
			steps = append(steps, dashboard.Threshold{Value: &amber, Color: "orange"})
		}
		steps = append(steps, dashboard.Threshold{Value: &red, Color: "red"})
	}
	return stat.NewPanelBuilder().
		Title(title).
		Description(description).
		Datasource(source()).
		Unit(unit).
		Span(4).
		Height(4).
		GraphMode(common.BigValueGraphModeArea).
		ColorMode(common.BigValueColorModeValue).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		Thresholds(dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)).
		WithTarget(target(0, query{expr: expr}).Range())
}

// words is a panel with the value of a label: of the series that the query finds.
func words(title, description, expr, label string) *stat.PanelBuilder {
	return stat.NewPanelBuilder().
		Title(title).
		Description(description).
		Datasource(source()).
		Span(4).
		Height(4).
		GraphMode(common.BigValueGraphModeNone).
		ColorMode(common.BigValueColorModeNone).
		TextMode(common.BigValueTextModeName).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		WithTarget(target(0, query{expr: expr, legend: label}).Instant())
}

// yesNo is a number of which only 1 is good, or only 0 if bad is 1.
func yesNo(title, description, expr string, good float64, yes, no string) *stat.PanelBuilder {
	one, zero := "green", "red"
	if good == 0 {
		one, zero = "orange", "green"
	}
	return number(title, description, count, expr, 0, 0).
		GraphMode(common.BigValueGraphModeNone).
		Mappings([]dashboard.ValueMapping{{ValueMap: &dashboard.ValueMap{
			Type: dashboard.MappingTypeValueToText,
			Options: map[string]dashboard.ValueMappingResult{
				"1": {Text: &yes, Color: &one},
				"0": {Text: &no, Color: &zero},
			},
		}}})
}

// A column of a table: an expression of one value a row, its heading and its unit.
type column struct{ expr, title, unit string }

// grid is a table with a row for each value of the labels, of which the first has a link.
func grid(title, description, link string, labels map[string]string, columns ...column) *table.PanelBuilder {
	panel := table.NewPanelBuilder().
		Title(title).
		Description(description).
		Datasource(source()).
		Span(24).
		Height(9).
		CellHeight(common.TableCellHeightSm).
		Filterable(true)
	rename := map[string]any{}
	for label, heading := range labels {
		rename[label] = heading
	}
	hidden := map[string]any{"Time": true}
	for n, c := range columns {
		panel.WithTarget(target(n, query{expr: c.expr}).Instant().Format(prometheus.PromQueryFormatTable))
		value := "Value #" + string(rune('A'+n))
		rename[value] = c.title
		panel.OverrideByName(c.title, []dashboard.DynamicConfigValue{{Id: "unit", Value: c.unit}})
	}
	if link != "" {
		panel.OverrideByName("Service", []dashboard.DynamicConfigValue{{Id: "links", Value: []map[string]any{{
			"title": "This service", "url": link,
		}}}})
	}
	panel.WithTransformation(dashboard.DataTransformerConfig{Id: "merge", Options: map[string]any{}})
	panel.WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
		"excludeByName": hidden, "renameByName": rename,
	}})
	return panel
}
