package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lbctl/internal/daemon"
	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/printable"
	"lbctl/internal/render"
)

const checkHelp = `Check templates without Consul and without a daemon: render them for an empty
Consul and for sample services of every kind, and run nginx -t on each result.

The exit code is 3 when a check fails. The check can't find errors that appear only
at a reload, such as a port that another process uses.`

type checkOptions struct {
	Out      io.Writer
	Terminal Terminal

	Output string
	Nginx  daemon.NginxConfig
}

// A checkResult is the result of one check.
type checkResult struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	File  string `json:"file,omitempty"` // the rendered file that nginx refused
	Line  int    `json:"line,omitempty"`
	Text  string `json:"text,omitempty"` // of that line
}

func newCheckCmd(f *factory) *cobra.Command {
	opts := &checkOptions{Out: f.out, Terminal: f.terminal}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check templates against sample services with nginx -t",
		Long:  checkHelp,
		Example: `  lbctl check
  lbctl check --templates ./templates --nginx /usr/sbin/nginx`,
		Args: atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	nginxFlags(flags, &opts.Nginx)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runCheck(cmd.Context(), opts) }
	return cmd
}

func runCheck(ctx context.Context, opts *checkOptions) error {
	return withNginx(opts.Nginx.Binary, func(instance *nginx.Instance, runDir string) error {
		settings, err := opts.Nginx.Settings(filepath.Dir(runDir), runDir, instance.Build())
		if err != nil {
			return err
		}
		shown, err := opts.Nginx.OpenCertificates(filepath.Dir(runDir), settings, true)
		if err != nil {
			return err
		}
		settings.AccessLogDir = runDir // nginx -t makes the file
		settings.LogRequests = opts.Nginx.AccessLog != daemon.AccessLogOff
		settings.InFlight = settings.LogRequests && opts.Nginx.InFlight == daemon.InFlightOn
		settings.Tracing = settings.LogRequests && opts.Nginx.Traces.Mode != daemon.TracingOff
		options := render.Options{Settings: settings, TemplatesDir: opts.Nginx.Templates, Certificates: shown, Logger: discardLogger()}
		var results []checkResult
		failed := 0
		for _, sample := range samples {
			result := checkOne(ctx, instance, options, sample)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !result.OK {
				failed++
			}
			results = append(results, result)
		}
		err = printResult(opts.Out, opts.Output, results, func() error {
			return writeChecks(opts, instance.Build().Version, results)
		})
		if err == nil && failed > 0 {
			return errProblemFound
		}
		return err
	})
}

func checkOne(ctx context.Context, instance *nginx.Instance, options render.Options, sample sample) checkResult {
	result := checkResult{Name: sample.name}
	configuration, err := render.Offline(options, sample.services)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	if err := instance.Test(ctx, configuration.Files); err != nil {
		result.Error = strings.TrimPrefix(err.Error(), nginx.ErrRejected.Error()+": ")
		result.File, result.Line, result.Text = refusedLine(result.Error, configuration.Files)
		return result
	}
	result.OK = true
	return result
}

var refusedPattern = regexp.MustCompile(`in ([^\s:]+):(\d+)`)

// refusedLine finds the line that nginx names in its error message.
func refusedLine(message string, files map[string][]byte) (file string, number int, text string) {
	match := refusedPattern.FindStringSubmatch(message)
	if match == nil || files[match[1]] == nil {
		return "", 0, ""
	}
	number, _ = strconv.Atoi(match[2]) // the pattern takes digits only
	lines := strings.Split(string(files[match[1]]), "\n")
	if number < 1 || number > len(lines) {
		return "", 0, ""
	}
	return match[1], number, strings.TrimSpace(lines[number-1])
}

func writeChecks(opts *checkOptions, version string, results []checkResult) error {
	printable.Fields(&results)
	var out strings.Builder
	for _, result := range results {
		if result.OK {
			fmt.Fprintf(&out, "%s    %s: nginx %s accepts it\n", opts.Terminal.paint(green, "ok"), result.Name, version)
			continue
		}
		fmt.Fprintf(&out, "%s  %s: %s\n", opts.Terminal.paint(red, "FAIL"), result.Name,
			opts.Terminal.wrap(result.Error, 6))
		if result.File != "" {
			fmt.Fprintf(&out, "      %s:%d, from template %s.ctmpl: %s\n", result.File, result.Line, result.File, result.Text)
		}
	}
	_, err := io.WriteString(opts.Out, out.String())
	return err
}

// A sample is a catalog to check templates with.
type sample struct {
	name     string
	services []endpoints.Service
}

var samples = []sample{
	{name: "an empty Consul"},
	{name: "one gRPC service", services: []endpoints.Service{{
		Name: "hello_server", OK: true,
		Spec:      endpoints.Spec{Protocol: endpoints.GRPC, Default: true},
		Instances: []endpoints.Instance{instance(1, endpoints.Passing), instance(2, endpoints.Warning)},
	}}},
	{name: "services without a healthy instance", services: []endpoints.Service{
		{Name: "down_grpc", OK: true,
			Spec:      endpoints.Spec{Protocol: endpoints.GRPC, Default: true},
			Instances: []endpoints.Instance{instance(1, endpoints.Maintenance)}}, // panic would send traffic to critical ones
		{Name: "down_http", OK: true,
			Spec:      endpoints.Spec{Protocol: endpoints.HTTP, Default: true, Routes: []endpoints.Route{{Host: "down.example.com", Path: "/api"}}},
			Instances: []endpoints.Instance{instance(2, endpoints.Maintenance)}},
		{Name: "down_tcp", OK: true,
			Spec:      endpoints.Spec{Protocol: endpoints.TCP, Port: 16379},
			Instances: []endpoints.Instance{instance(3, endpoints.Maintenance)}},
	}},
	{name: "services of every kind", services: []endpoints.Service{
		{Name: "default_grpc", OK: true,
			Spec:      endpoints.Spec{Protocol: endpoints.GRPC, Default: true},
			Instances: []endpoints.Instance{instance(1, endpoints.Passing)}},
		{Name: "default_http", OK: true,
			Spec:      endpoints.Spec{Protocol: endpoints.HTTP, Default: true},
			Instances: []endpoints.Instance{instance(2, endpoints.Passing)}},
		{Name: "grpc_by_method", OK: true,
			Spec:      endpoints.Spec{Protocol: endpoints.GRPC, Routes: []endpoints.Route{{Path: "/shop.Cart"}, {Host: "grpc.example.com", Path: "/shop.Cart/Add"}}},
			Instances: []endpoints.Instance{instance(3, endpoints.Passing), instance(4, endpoints.Passing)}},
		{Name: "grpcs_by_host", OK: true,
			Spec:      endpoints.Spec{Protocol: endpoints.GRPCS, Routes: []endpoints.Route{{Host: "secure.example.com"}}},
			Instances: []endpoints.Instance{instance(5, endpoints.Passing)}},
		{Name: "http_by_path", OK: true,
			Spec:      endpoints.Spec{Protocol: endpoints.HTTP, Routes: []endpoints.Route{{Host: "example.com", Path: "/api"}, {Host: "example.com", Path: "/api/v2"}, {Path: "/static"}}},
			Instances: []endpoints.Instance{instance(6, endpoints.Passing), instance(7, endpoints.Critical)}},
		{Name: "https_wildcard", OK: true,
			Spec:      endpoints.Spec{Protocol: endpoints.HTTPS, Routes: []endpoints.Route{{Host: "*.example.org"}}},
			Instances: []endpoints.Instance{instance(8, endpoints.Passing)}},
		{Name: "tcp", OK: true,
			Spec: endpoints.Spec{Protocol: endpoints.TCP, Port: 16379},
			Instances: []endpoints.Instance{
				instance(9, endpoints.Passing),
				{ID: "tcp-v6", Node: "node-10", Address: "fd00::10", Port: 6379, Weight: 10, Status: endpoints.Passing, Version: "v2"},
			}},
	}},
}

// instance returns the nth sample instance. Its address is reserved for
// documentation (RFC 5737).
func instance(n int, status endpoints.Status) endpoints.Instance {
	return endpoints.Instance{
		ID:      fmt.Sprintf("sample-%d", n),
		Node:    fmt.Sprintf("node-%02d", n),
		Address: fmt.Sprintf("192.0.2.%d", n),
		Port:    7777,
		Weight:  1,
		Status:  status,
	}
}
