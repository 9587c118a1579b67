// Package doctor examines what lbctl depends on: Consul and the token's rights, nginx and its
// limits, the machine's ports and directories, and what of the catalog goes wrong. It changes
// nothing. Each finding says how to mend it.
//
//	report := doctor.Examine(ctx, doctor.Subject{Config: config, Consul: client, ...})
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"lbctl/internal/admin"
	"lbctl/internal/consulclient"
	"lbctl/internal/controller"
	"lbctl/internal/daemon"
	"lbctl/internal/kv"
)

// A Subject is what is examined. With a running daemon its settings and credentials are those
// of the daemon, else those with which one would start.
type Subject struct {
	// Config has the settings of 'lbctl run'. StateDir is required.
	Config daemon.Config
	// Version is that of the lbctl that examines.
	Version string
	// Environ has the variables of 'lbctl run', as lines NAME=value, and Known the names of
	// lbctl's own variables.
	Environ, Known []string
	// Consul has the credentials of 'lbctl run'. Without it ConsulErr says why there is none.
	Consul    *consulclient.Client
	ConsulErr error
	// Operator has the credentials of the commands that write policy and access; default
	// those of Consul.
	Operator *consulclient.Client
	// Daemon is the running daemon; the zero value if there is none.
	Daemon Daemon
	// Now is the clock; default time.Now.
	Now func() time.Time
	// OldWorkers is how long an old worker of nginx may take to end; default an hour.
	OldWorkers time.Duration
}

// A Daemon is what a running 'lbctl run' says of itself.
type Daemon struct {
	// PID is its process, 0 if it is not known.
	PID int
	// Status and Services are its answers; nil if it does not answer.
	Status   *controller.Status
	Services []admin.Service
	// Err says why it does not answer.
	Err error
	// Foreign says why the settings of Subject are not the daemon's own; "" if they are.
	Foreign string
}

// elsewhere reports whether a daemon answers that is not a process of this machine.
func (d Daemon) elsewhere() bool { return d.answers() && d.PID == 0 }

// answers reports whether there is a daemon that answers.
func (d Daemon) answers() bool { return d.Status != nil }

// A State is the result of a check.
type State string

// The states, the worst first.
const (
	Failed  State = "failed"  // it does not work, or will not
	Warning State = "warning" // it works worse than it could, or will soon fail
	OK      State = "ok"
	Skipped State = "skipped" // it could not be examined; Found says why
)

// A Finding is what a check found.
type Finding struct {
	Check  string `json:"check"` // the name of the check
	State  State  `json:"state"`
	Found  string `json:"found"`
	Wanted string `json:"wanted,omitempty"` // if the state is failed or warning
	Mend   string `json:"mend,omitempty"`   // what to do, then too
}

// A Report is the result of all checks.
type Report struct {
	State    State     `json:"state"` // the worst of the findings: ok, warning or failed
	Findings []Finding `json:"findings"`
}

// Count returns the number of findings with a state.
func (r Report) Count(state State) (n int) {
	for _, f := range r.Findings {
		if f.State == state {
			n++
		}
	}
	return n
}

// A Check examines one subject.
type Check struct {
	Name  string // "consul-address"
	About string // what it examines
	Mend  string // what usually mends it
	// local: it examines the daemon's machine.
	local bool
	run   func(context.Context, *examination) []Finding
}

// checkTimeout limits each check.
const checkTimeout = 10 * time.Second

// Examine runs all checks, one after another. It returns what it has when ctx is done.
func Examine(ctx context.Context, subject Subject) Report {
	if subject.Now == nil {
		subject.Now = time.Now
	}
	if subject.OldWorkers == 0 {
		subject.OldWorkers = time.Hour
	}
	if subject.Operator == nil {
		subject.Operator = subject.Consul
	}
	subject.Config.KVPrefix = cmp.Or(subject.Config.KVPrefix, kv.DefaultPrefix)
	subject.Config.RunDir = daemon.RunDir(subject.Config.StateDir, subject.Config.RunDir)
	e := &examination{Subject: subject}
	report := Report{State: OK, Findings: []Finding{}}
	for _, check := range Checks {
		if ctx.Err() != nil {
			break
		}
		for _, f := range e.run(ctx, check) {
			f.Check = check.Name
			if f.State == Failed || f.State == Warning {
				if f.Mend == "" {
					f.Mend = check.Mend
				}
				if report.State != Failed {
					report.State = f.State
				}
			}
			report.Findings = append(report.Findings, f)
		}
	}
	return report
}

// run runs a check, if it can say something about the daemon's machine.
func (e *examination) run(ctx context.Context, check Check) []Finding {
	if check.local && e.Daemon.elsewhere() {
		return skipped("the daemon is on another machine, or in a container: run 'lbctl doctor' there")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return check.run(ctx, e)
}

// An examination is a subject with what the checks have found out about it, for one another.
type examination struct {
	Subject
	consul  consulFacts
	nginx   nginxFacts
	sockets socketFacts
}

func ok(format string, args ...any) []Finding {
	return []Finding{{State: OK, Found: fmt.Sprintf(format, args...)}}
}

func skipped(format string, args ...any) []Finding {
	return []Finding{{State: Skipped, Found: fmt.Sprintf(format, args...)}}
}

func failed(found, wanted string) []Finding {
	return []Finding{{State: Failed, Found: found, Wanted: wanted}}
}

func warning(found, wanted string) []Finding {
	return []Finding{{State: Warning, Found: found, Wanted: wanted}}
}

// mend gives findings a way to mend them that is better than that of their check.
func mend(findings []Finding, how string) []Finding {
	for i := range findings {
		findings[i].Mend = how
	}
	return findings
}

// plural returns "1 instance", "3 instances".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// some joins the first few of many names.
func some(names []string) string {
	const most = 5
	text := ""
	for i, name := range names {
		switch {
		case i == most:
			return text + fmt.Sprintf(" and %d more", len(names)-most)
		case i > 0:
			text += ", "
		}
		text += name
	}
	return text
}
