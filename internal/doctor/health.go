package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	"lbctl/internal/daemon"
	"lbctl/internal/render"
)

// Limits for the answer about health.
const (
	healthPatience = 8 * time.Second
	maxHealth      = 16 << 20
)

const wantHealth = "the health of the services, from lbctl"

// checkHealth asks nginx for the health of the services, as a client does.
func checkHealth(ctx context.Context, e *examination) []Finding {
	nginx := e.Config.Nginx
	at := plainHTTP(nginx)
	switch {
	case nginx.HealthPath == daemon.HealthNone || nginx.HealthPath == "":
		return ok("HTTP clients get it nowhere: --health-path is %s", daemon.HealthNone)
	case !e.Daemon.answers():
		return skipped("no daemon runs")
	case at == "":
		return skipped("no listener takes plain HTTP")
	}
	path, auto := nginx.HealthPath, nginx.HealthPath == daemon.HealthAuto
	if auto {
		path = render.DefaultHealthPath
	}
	url := "http://" + at + path
	status, services, problem, err := askHealth(ctx, url)
	switch {
	case err != nil:
		return failed(fmt.Sprintf("GET %s: %v", url, err), wantHealth)
	case services != nil:
		return ok("clients get the health of %s at %s", plural(len(services), "service"), url)
	case status == http.StatusForbidden:
		return ok("this machine may not ask for it at %s: --health-networks, or a denied network", url)
	case status == http.StatusNotFound && problem != "":
		return ok("clients get nothing at %s: %s", url, problem)
	case problem != "":
		return mend(failed(fmt.Sprintf("GET %s: %s", url, problem), wantHealth),
			fmt.Sprintf("look at the log of lbctl, and whether nginx's workers may use %s", filepath.Join(e.Config.RunDir, render.HealthSocket)))
	case auto && status != http.StatusNotFound:
		return ok("a service answers %s itself", url)
	}
	return warning(fmt.Sprintf("GET %s gives %d, and not from lbctl", url, status), wantHealth)
}

// plainHTTP returns the address of a listener for HTTP at which this machine can ask; "" if there is
// none.
func plainHTTP(n daemon.NginxConfig) string {
	for _, l := range n.AllListeners() {
		if l.Protocol.TLS() || l.Protocol.Family() != "http" || l.ProxyProtocol || l.Redirect != 0 || len(l.Listen) == 0 {
			continue
		}
		host, port, err := net.SplitHostPort(l.Listen[0])
		if err != nil {
			continue
		}
		if address, err := netip.ParseAddr(cmp.Or(host, "0.0.0.0")); err == nil && address.IsUnspecified() {
			host = "127.0.0.1"
			if address.Is6() {
				host = "::1"
			}
		}
		return net.JoinHostPort(host, port)
	}
	return ""
}

// askHealth returns what is answered: the services, or the error of lbctl or nginx. Without both it
// is the answer of something else.
func askHealth(ctx context.Context, url string) (status int, services map[string]json.RawMessage, problem string, err error) {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, "", err
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // without a proxy of the environment
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxHealth))
	if err != nil {
		return 0, nil, "", err
	}
	var members map[string]json.RawMessage
	if response.Header.Get("Content-Type") != "application/json" || json.Unmarshal(text, &members) != nil {
		return response.StatusCode, nil, "", nil
	}
	if json.Unmarshal(members["error"], &problem) == nil && problem != "" {
		return response.StatusCode, nil, problem, nil
	}
	for _, member := range members {
		var service struct{ Serving *bool }
		if json.Unmarshal(member, &service) != nil || service.Serving == nil {
			return response.StatusCode, nil, "", nil
		}
	}
	return response.StatusCode, members, "", nil
}
