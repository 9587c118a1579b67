package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// runGrafana shows the provisioned dashboards on port 3000.
func runGrafana(ctx context.Context) error {
	prometheus, err := prometheusSource("/etc/grafana/provisioning/datasources")
	if err != nil {
		return err
	}
	return serve(ctx, ":3000", grafana(prometheus, "/etc/grafana/provisioning/dashboards"))
}

// grafana serves the dashboards that the files of a directory name, and passes their queries on to
// Prometheus.
func grafana(prometheus *url.URL, provisioning string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/health", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]string{"database": "ok", "version": "stand-in"})
	})
	mux.HandleFunc("GET /api/dashboards", func(w http.ResponseWriter, _ *http.Request) {
		found, err := dashboards(provisioning)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, found)
	})
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, "/prometheus")
		r.SetURL(prometheus)
	}}
	// Questions only: Prometheus's API has more.
	for _, path := range []string{"query", "query_range", "label/{label}/values"} {
		mux.Handle("GET /prometheus/api/v1/"+path, proxy)
	}
	mux.HandleFunc("GET /{$}", page("grafana.html"))
	board := func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		if !isDashboard(provisioning, r.PathValue("uid")) {
			status = http.StatusNotFound // the page says so too
		}
		writePage(w, status, "grafana.html")
	}
	mux.HandleFunc("GET /d/{uid}", board)
	mux.HandleFunc("GET /d/{uid}/{title...}", board) // links may have the title, which says nothing
	return mux
}

// isDashboard reports whether a provisioned dashboard has this uid.
func isDashboard(provisioning, uid string) bool {
	found, _ := dashboards(provisioning) // the page shows an error
	return slices.ContainsFunc(found, func(text json.RawMessage) bool {
		var board struct{ UID string }
		return json.Unmarshal(text, &board) == nil && board.UID == uid
	})
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(value) //nolint:errcheck // the client is gone
}

// prometheusSource is the address of the Prometheus that a file of the directory provisions.
func prometheusSource(dir string) (*url.URL, error) {
	var sources struct {
		Datasources []struct{ Type, URL string }
	}
	for _, file := range yamlFiles(dir) {
		if err := readYAML(file, &sources); err != nil {
			return nil, err
		}
		for _, source := range sources.Datasources {
			if source.Type == "prometheus" {
				return url.Parse(source.URL)
			}
		}
	}
	return nil, fmt.Errorf("no file in %s names a data source of type prometheus", dir)
}

// dashboards reads the dashboards of all directories that a file of the directory names.
func dashboards(dir string) ([]json.RawMessage, error) {
	found := []json.RawMessage{}
	for _, file := range yamlFiles(dir) {
		var providers struct {
			Providers []struct{ Options struct{ Path string } }
		}
		if err := readYAML(file, &providers); err != nil {
			return nil, err
		}
		for _, provider := range providers.Providers {
			files, err := filepath.Glob(filepath.Join(os.ExpandEnv(provider.Options.Path), "*.json"))
			if err != nil {
				return nil, err
			}
			for _, name := range files {
				text, err := os.ReadFile(name)
				if err != nil {
					return nil, err
				}
				if !json.Valid(text) {
					return nil, fmt.Errorf("%s is not JSON", name)
				}
				found = append(found, text)
			}
		}
	}
	return found, nil
}

func yamlFiles(dir string) []string {
	files, _ := filepath.Glob(filepath.Join(dir, "*.y*ml"))
	slices.Sort(files)
	return files
}

func readYAML(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
