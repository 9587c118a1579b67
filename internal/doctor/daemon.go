package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"lbctl/internal/controller"
	"lbctl/internal/render"
	"lbctl/internal/spelling"
)

func checkDaemon(_ context.Context, e *examination) []Finding {
	d := e.Daemon
	switch {
	case d.answers() && d.Foreign != "":
		return mend(warning(fmt.Sprintf("lbctl run answers, but its settings can't be read (%s): the checks are of the flags and variables of this command", d.Foreign), "its own settings"),
			"run 'lbctl doctor' as root on the daemon's machine, or with the daemon's flags and variables")
	case d.answers():
		return ok("lbctl run is %s", processName(d.PID))
	case d.PID != 0:
		return failed(fmt.Sprintf("lbctl run is %s, but its API does not answer: %v", processName(d.PID), d.Err), "an answer at its socket")
	default:
		return mend(warning(d.Err.Error(), "a running 'lbctl run'"),
			"start it, or say where it is with --state-dir, --run-dir or --addr; the checks are of what it would meet")
	}
}

func checkStatus(_ context.Context, e *examination) []Finding {
	if !e.Daemon.answers() {
		return skipped("no daemon answers")
	}
	s := e.Daemon.Status
	switch s.State {
	case controller.Degraded, controller.Down:
		return failed(fmt.Sprintf("the state is %s: %s", s.State, s.Summary), "the state serving")
	case controller.Starting, controller.Frozen:
		return warning(fmt.Sprintf("the state is %s: %s", s.State, s.Summary), "the state serving")
	}
	var findings []Finding
	for _, p := range s.Problems {
		others := []string{"service ", "policy ", render.CertificatesSubject} // other checks have them
		if !slices.ContainsFunc(others, func(prefix string) bool { return strings.HasPrefix(p.Subject, prefix) }) {
			findings = append(findings, warning(p.Subject+": "+p.Message, "a daemon without problems")...)
		}
	}
	if len(findings) > 0 {
		return findings
	}
	return ok("%s", s.Summary)
}

func checkVersions(_ context.Context, e *examination) []Finding {
	if !e.Daemon.answers() {
		return skipped("no daemon answers")
	}
	if other := e.Daemon.Status.Version; other != e.Version {
		return warning(fmt.Sprintf("this lbctl is version %s, and the daemon is %s", e.Version, other), "the same version")
	}
	return ok("this lbctl and the daemon are version %s", e.Version)
}

// checkVariables finds misspelled variables, which lbctl ignores.
func checkVariables(_ context.Context, e *examination) []Finding {
	var findings []Finding
	given := 0
	for _, line := range e.Environ {
		name, _, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, "LBCTL_") {
			continue
		}
		given++
		if slices.Contains(e.Known, name) {
			continue
		}
		f := warning(fmt.Sprintf("lbctl does not know the variable %s", name), "variables that 'lbctl run --help' lists")
		if nearest := spelling.Nearest(name, e.Known); nearest != "" {
			f[0].Wanted = nearest
		}
		findings = append(findings, f...)
	}
	if len(findings) > 0 {
		return findings
	}
	return ok("%s of lbctl, all known", plural(given, "variable"))
}
