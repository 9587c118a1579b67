//go:build bench

package bench

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// scalePlot draws, as SVG, how figures grow with the number of services. Each mode has
// one line.
func scalePlot(t *testing.T, points []*point) []byte {
	t.Helper()
	figures := []struct {
		name  string
		value func(*point) float64
	}{
		{"first configuration, s", func(p *point) float64 { return p.first.Seconds() }},
		{"change to served, median, s", func(p *point) float64 { return median(p.changes).Seconds() }},
		{"lbctl, % of a core", func(p *point) float64 { return 100 * p.cpu.lbctl.Seconds() / p.span.Seconds() }},
		{"memory of lbctl, MiB", func(p *point) float64 { return p.lbctlMiB }},
		{"memory of nginx, MiB", func(p *point) float64 { return p.nginxMiB }},
		{"memory of the agent, MiB", func(p *point) float64 { return p.agentMiB }},
	}
	const columns = 3
	var panels [][]*plot.Plot
	for i, figure := range figures {
		panel := plot.New()
		panel.Title.Text = figure.name
		panel.X.Label.Text = "services"
		panel.X.Scale = plot.LogScale{}
		panel.X.Tick.Marker = plot.LogTicks{Prec: -1}
		panel.Y.Min = 0
		panel.Legend.Top, panel.Legend.Left = true, true
		panel.Add(plotter.NewGrid())
		var lines []any
		for _, m := range modes {
			var line plotter.XYs
			for _, p := range points {
				if p.mode == m.name {
					line = append(line, plotter.XY{X: float64(p.size), Y: figure.value(p)})
				}
			}
			lines = append(lines, m.name, line)
		}
		require.NoError(t, plotutil.AddLinePoints(panel, lines...))
		if i%columns == 0 {
			panels = append(panels, nil)
		}
		panels[i/columns] = append(panels[i/columns], panel)
	}

	const pad = vg.Centimeter / 2
	canvas := vgsvg.New(27*vg.Centimeter, 15*vg.Centimeter)
	tiles := draw.Tiles{Rows: len(panels), Cols: columns, PadX: 2 * pad, PadY: pad,
		PadTop: pad, PadBottom: pad, PadLeft: pad, PadRight: 2 * pad}
	for i, row := range plot.Align(panels, tiles, draw.New(canvas)) {
		for k, tile := range row {
			panels[i][k].Draw(tile)
		}
	}
	var svg bytes.Buffer
	_, err := canvas.WriteTo(&svg)
	require.NoError(t, err)
	return svg.Bytes()
}
