package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// runPrometheus runs Debian's Prometheus with a configuration in which it finds by HTTP what
// Prometheus's own build finds in Consul. It returns Prometheus's exit code.
func runPrometheus(args []string) int {
	code, err := supervisePrometheus(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
	}
	return code
}

func supervisePrometheus(args []string) (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1, fmt.Errorf("listen for Prometheus's questions about Consul: %w", err)
	}
	server := &http.Server{Handler: discovery{}, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) //nolint:errcheck // it ends with the process
	catalog := "http://" + listener.Addr().String() + "/"

	dir, err := os.MkdirTemp("", "prometheus-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	from, to := "/etc/prometheus/prometheus.yml", filepath.Join(dir, "prometheus.yml")
	translate := func() error {
		config, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if config, err = byHTTP(config, filepath.Dir(from), catalog); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		return os.WriteFile(to, config, 0o600)
	}
	ours := []string{"--config.file=" + to}
	for _, a := range args {
		if name, ok := strings.CutPrefix(a, "--config.file="); ok {
			from = name
		} else {
			ours = append(ours, a)
		}
	}
	if err := translate(); err != nil {
		return 1, err
	}

	cmd := exec.Command("prometheus", ours...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	go func() {
		for s := range signals {
			if s == syscall.SIGHUP {
				if err := translate(); err != nil {
					fmt.Fprintln(os.Stderr, "standin: the configuration stays as it was:", err)
					continue
				}
			}
			cmd.Process.Signal(s) //nolint:errcheck // it may have ended
		}
	}()
	if err := cmd.Wait(); err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			return max(exit.ExitCode(), 1), nil
		}
		return 1, err
	}
	return 0, nil
}

// byHTTP replaces each of consul_sd_configs in a configuration by one of http_sd_configs that asks
// catalog. Names of files are relative to dir.
func byHTTP(config []byte, dir, catalog string) ([]byte, error) {
	var doc map[string]any
	if err := yaml.Unmarshal(config, &doc); err != nil {
		return nil, err
	}
	files, _ := doc["rule_files"].([]any)
	for n, file := range files {
		if name, ok := file.(string); ok && !filepath.IsAbs(name) {
			files[n] = filepath.Join(dir, name)
		}
	}
	scrapes, _ := doc["scrape_configs"].([]any)
	for _, scrape := range scrapes {
		job, _ := scrape.(map[string]any)
		consuls, _ := job["consul_sd_configs"].([]any)
		if len(consuls) == 0 {
			continue
		}
		asked, _ := job["http_sd_configs"].([]any)
		for _, c := range consuls {
			consul, _ := c.(map[string]any)
			query := url.Values{}
			for key, value := range consul {
				switch key {
				case "server":
					query.Set("server", fmt.Sprint(value))
				case "services":
					names, _ := value.([]any)
					for _, name := range names {
						query.Add("service", fmt.Sprint(name))
					}
				case "refresh_interval":
				default:
					return nil, fmt.Errorf("job %v: the stand-in for Prometheus knows server, services and refresh_interval of consul_sd_configs, not %s", job["job_name"], key)
				}
			}
			by := map[string]any{"url": catalog + "?" + query.Encode()}
			if interval, ok := consul["refresh_interval"]; ok {
				by["refresh_interval"] = interval
			}
			asked = append(asked, by)
		}
		delete(job, "consul_sd_configs")
		job["http_sd_configs"] = asked
	}
	return yaml.Marshal(doc)
}
