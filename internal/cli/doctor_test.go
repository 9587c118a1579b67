package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/doctor"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	lbtest.RemoveBinary()
	os.Exit(code)
}

func TestDoctorText(t *testing.T) {
	report := doctor.Report{State: doctor.Failed, Findings: []doctor.Finding{
		{Check: "daemon", State: doctor.OK, Found: "lbctl run is process 4711 (lbctl)"},
		{Check: "services", State: doctor.Warning, Found: "service \x1b[2Jx: lb-protocol \"smtp\"", Wanted: "valid metadata", Mend: "correct the metadata that the service registers"},
		{Check: "ports", State: doctor.Failed, Found: "--grpc-listen :5000: process 12 (haproxy) listens on 0.0.0.0:5000", Wanted: "that the port is free for nginx", Mend: "stop the other process, or choose other addresses"},
		{Check: "dns", State: doctor.Skipped, Found: "no daemon runs"},
	}}
	for _, test := range []struct {
		golden   string
		all      bool
		terminal Terminal
	}{
		{golden: "doctor"}, {golden: "doctor-all", all: true}, {golden: "doctor-narrow", terminal: narrow}, {golden: "doctor-colour", terminal: coloured},
	} {
		var out bytes.Buffer
		require.NoError(t, writeReport(&doctorOptions{Out: &out, All: test.all, Terminal: test.terminal}, report))
		line := "lbctl doctor"
		if test.all {
			line += " --all"
		}
		golden(t, test.golden, line, result{out: out.String(), code: exitProblem})
	}
}

// doctorOf runs the real program with an environment, and returns its report and exit code.
func doctorOf(t *testing.T, environ []string, args ...string) (doctor.Report, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, lbtest.Binary(t), append([]string{"doctor", "-o", "json"}, args...)...)
	cmd.Env = environ
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code tells
	var report doctor.Report
	require.NoError(t, json.Unmarshal(out.Bytes(), &report), errs.String())
	return report, cmd.ProcessState.ExitCode()
}

func stateOf(t *testing.T, report doctor.Report, check string) doctor.State {
	t.Helper()
	for _, f := range report.Findings {
		if f.Check == check {
			return f.State
		}
	}
	require.Fail(t, "no such finding", check)
	return ""
}

// TestDoctor examines a running daemon with an environment that says nothing of it: all comes
// from the daemon's process.
func TestDoctor(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	all := nginxtest.Binaries(t)
	token := consul.NewToken(`service_prefix "" { policy = "read" } node_prefix "" { policy = "read" } key_prefix "lb" { policy = "read" }`)
	balancer := lbtest.Start(t, lbtest.Options{Consul: consul.Addr, Token: token, Nginx: all[len(all)-1], Args: []string{"--open-files", "8192"}})
	balancer.Eventually("nginx serves", func() error { _, err := balancer.Lbctl("status", "--wait", "1s"); return err })
	bare := []string{"PATH=/nowhere", "CONSUL_HTTP_ADDR=127.0.0.1:1", "CONSUL_HTTP_TOKEN=none"}
	report, code := doctorOf(t, bare, "--state-dir", balancer.StateDir)
	assert.Equal(t, exitOK, code)
	for _, f := range report.Findings {
		assert.NotEqual(t, doctor.Failed, f.State, "%+v", f)
	}
	for _, check := range []string{"daemon", "consul-address", "consul-token", "consul-rights", "nginx-binary", "nginx-running", "nginx-limits", "ports", "variables", "version"} {
		assert.Equal(t, doctor.OK, stateOf(t, report, check), check)
	}
	assert.Equal(t, doctor.Skipped, stateOf(t, report, "operator-rights"), "the command's own Consul does not answer")

	report, _ = doctorOf(t, bare, "--run-dir", filepath.Join(balancer.StateDir, "run"))
	for _, check := range []string{"daemon", "nginx-running", "directories", "generations"} {
		assert.Equal(t, doctor.OK, stateOf(t, report, check), "the directory of sockets alone finds the daemon too: %s", check)
	}

	operator := []string{"CONSUL_HTTP_ADDR=" + consul.Addr, "CONSUL_HTTP_TOKEN=" + consul.NewToken(`key_prefix "lb" { policy = "write" }`)}
	report, _ = doctorOf(t, operator, "--state-dir", balancer.StateDir)
	assert.Equal(t, doctor.OK, stateOf(t, report, "operator-rights"))
	report, _ = doctorOf(t, []string{"CONSUL_HTTP_ADDR=" + consul.Addr}, "--state-dir", balancer.StateDir)
	assert.Equal(t, doctor.Warning, stateOf(t, report, "operator-rights"))

	// Without the daemon, the flags and variables of the command count.
	balancer.KillLbctl()
	report, code = doctorOf(t, append(bare, "LBCTL_WORKRES=2"), "--state-dir", balancer.StateDir, "--nginx", all[0].Path, "--grpc-listen", balancer.GRPC, "--http-listen", balancer.HTTP, "--dns-listen", balancer.DNS(), "--admin", "none")
	assert.Equal(t, exitProblem, code)
	assert.Equal(t, doctor.Warning, stateOf(t, report, "daemon"))
	assert.Equal(t, doctor.Warning, stateOf(t, report, "variables"))
	assert.Equal(t, doctor.Failed, stateOf(t, report, "consul-address"))
	assert.Equal(t, doctor.OK, stateOf(t, report, "ports"), "nginx still has them")
}
