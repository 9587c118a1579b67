package observability

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The real Alertmanager notifies of the cause, and not of what follows from it. Each case has alerts
// that fire together, with the labels that Prometheus gives them.
func TestInhibitions(t *testing.T) {
	type labels = map[string]string
	alert := func(name, node, service string) labels {
		l := labels{"alertname": name}
		for label, value := range (labels{"node": node, "service": service}) {
			if value != "" {
				l[label] = value
			}
		}
		return l
	}
	certificate := func(alertname, node, name string) labels {
		return labels{"alertname": alertname, "node": node, "name": name}
	}
	url := startAlertmanager(t)
	for name, c := range map[string]struct {
		told    []labels // of these, somebody is notified
		follows []labels // of these, nobody is
	}{
		"nginx is down": {
			told: []labels{alert("NginxDown", "a", ""), alert("InstancesEjected", "b", "cart"), alert("ConsulUnreachable", "a", ""), alert("ErrorBudgetBurnsFast", "", "news")},
			follows: []labels{
				alert("BalancerDegraded", "a", ""), alert("ApplyFailed", "a", ""), alert("AccessLogLost", "a", ""),
				alert("ServiceInPanic", "a", "cart"), alert("ServiceQuarantined", "a", "shop"), alert("InstancesEjected", "a", "cart"),
			},
		},
		"lbctl is down": {
			told:    []labels{alert("LbctlDown", "c", ""), alert("NginxDown", "d", ""), alert("RegistrarDown", "c", "")},
			follows: []labels{alert("NginxDown", "c", ""), alert("ProblemsRemain", "c", ""), certificate("CertificateExpires", "c", "x"), alert("ServiceHeld", "c", "cart2")},
		},
		"nginx's master is gone": {
			told: []labels{
				alert("NginxMasterGone", "i", ""), alert("BalancerDegraded", "j", ""), alert("ServiceInPanic", "i", "cart4"),
				alert("OldWorkersPileUp", "i", ""), alert("ConsulUnreachable", "i", ""),
			},
			follows: []labels{alert("BalancerDegraded", "i", ""), alert("ChangePending", "i", ""), alert("ApplyFailed", "i", ""), alert("ProblemsRemain", "i", "")},
		},
		"no lbctl is there": {
			told:    []labels{{"alertname": "LbctlMissing", "job": "lbctl"}, alert("RegistrarDown", "k", "")},
			follows: []labels{alert("LbctlRestarts", "k", ""), alert("InstancesFlap", "l", "cart5"), alert("ErrorBudgetBurns", "", "cart5")},
		},
		"Consul is away": {
			told:    []labels{alert("ConsulUnreachable", "e", ""), alert("ServiceInPanic", "e", "cart3")},
			follows: []labels{alert("BalancerDegraded", "e", ""), alert("DiscoveryStale", "e", "cart3"), alert("RegistrarWithoutConsul", "f", "")},
		},
		"a service has no instance": {
			told:    []labels{alert("ServiceWithoutInstances", "g", "user"), alert("InstancesFlap", "g", "other"), alert("ErrorBudgetBurnsFast", "", "other")},
			follows: []labels{alert("InstancesFlap", "g", "user"), alert("InstancesEjected", "g", "user"), alert("ErrorBudgetBurnsFast", "", "user"), alert("ErrorBudgetBurns", "", "user"), alert("ServiceSlow", "", "user")},
		},
		"errors burn fast": {
			told:    []labels{alert("ErrorBudgetBurnsFast", "", "fast"), alert("ErrorBudgetBurns", "", "slowly")},
			follows: []labels{alert("ErrorBudgetBurns", "", "fast")},
		},
		"a certificate ends soon": {
			told:    []labels{certificate("CertificateExpiresSoon", "h", "one"), certificate("CertificateExpires", "h", "two")},
			follows: []labels{certificate("CertificateExpires", "h", "one")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var alerts []map[string]any
			want := map[string]bool{} // whether an alert is inhibited
			for inhibited, list := range map[bool][]labels{false: c.told, true: c.follows} {
				for _, l := range list {
					l["case"] = name
					alerts = append(alerts, map[string]any{"labels": l})
					want[fmt.Sprint(l)] = inhibited
				}
			}
			post(t, url, alerts)
			defer func() { // they would inhibit those of other cases
				for _, a := range alerts {
					a["endsAt"] = time.Now()
				}
				post(t, url, alerts)
			}()

			var got map[string]bool
			deadline := time.Now().Add(30 * time.Second)
			for !maps.Equal(want, got) && time.Now().Before(deadline) {
				time.Sleep(50 * time.Millisecond) // until Alertmanager has looked at all of them
				got = inhibited(t, url, name)
			}
			assert.Equal(t, want, got)
		})
	}
}

// post tells Alertmanager of alerts, as Prometheus does.
func post(t *testing.T, url string, alerts []map[string]any) {
	t.Helper()
	body, err := json.Marshal(alerts)
	require.NoError(t, err)
	resp, err := http.Post(url+"/api/v2/alerts", "application/json", bytes.NewReader(body))
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// inhibited tells of each alert of a case whether Alertmanager inhibits it, once it has decided.
func inhibited(t *testing.T, url, name string) map[string]bool {
	t.Helper()
	resp, err := http.Get(url + "/api/v2/alerts")
	require.NoError(t, err)
	defer resp.Body.Close()
	var alerts []struct {
		Labels map[string]string
		Status struct {
			State       string
			InhibitedBy []string
		}
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&alerts))
	all := map[string]bool{}
	for _, a := range alerts {
		if a.Labels["case"] == name && a.Status.State != "unprocessed" {
			all[fmt.Sprint(a.Labels)] = len(a.Status.InhibitedBy) > 0
		}
	}
	return all
}

// startAlertmanager runs the real one with our configuration, and returns its address.
func startAlertmanager(t *testing.T) string {
	t.Helper()
	path := program(t, "prometheus-alertmanager")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "--config.file=alertmanager/alertmanager.yml", "--storage.path="+t.TempDir(),
		"--web.listen-address="+address, "--cluster.listen-address=")
	cmd.Stdout, cmd.Stderr = &output, &output
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		cmd.Wait() //nolint:errcheck // it was killed
		if t.Failed() {
			t.Logf("Alertmanager says:\n%s", &output)
		}
	})
	url := "http://" + address
	require.Eventually(t, func() bool {
		resp, err := http.Get(url + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 30*time.Second, 50*time.Millisecond, "Alertmanager answers")
	return url
}
