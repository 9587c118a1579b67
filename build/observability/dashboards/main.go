// Dashboards writes Grafana's dashboards of this repository as JSON, into a directory:
//
//	go run -C build/observability/dashboards . ../grafana/dashboards
//
// `go generate ./build/observability` does that. The files are committed, and a test compares them
// with what this program writes. It is a module of its own, because lbctl needs none of its
// dependencies.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dashboards DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "dashboards:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	for name, builder := range map[string]*dashboard.DashboardBuilder{
		"services.json":     services(),
		"service.json":      service(),
		"tcp.json":          tcp(),
		"control-loop.json": controlLoop(),
	} {
		built, err := builder.Build()
		if err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(built); err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
