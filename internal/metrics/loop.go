package metrics

import (
	"context"
	"time"

	"lbctl/internal/controller"
	"lbctl/internal/measure"
)

// Loop is the control loop.
type Loop interface {
	Status(ctx context.Context) controller.Status
	Counts() controller.Counts
}

// Deliveries is the part of lbctl from which nginx fetches servers.
type Deliveries interface {
	Convergence() measure.Histogram
}

var (
	loopSection = newSection("The control loop")

	buildInfo = loopSection.gauge("lbctl_build_info", "lbctl's version and that of Go; always 1.",
		label{"version", "(version)"}, label{"goversion", "(version)"})
	stateInfo = loopSection.gauge("lbctl_state", "1 for the state that lbctl status shows, 0 for the others.",
		label{"state", oneOf(controller.States())})
	convergence = loopSection.histogram("lbctl_convergence_seconds",
		"How long it took from an answer of Consul until nginx certainly served what follows from it.",
		label{"delivery", "dns|reload"})
	reloads = loopSection.counter("lbctl_reloads_total",
		"Attempts to move nginx to a generation or to have it read its files again.",
		label{"reason", oneOf(controller.ReloadReasons())}, label{"outcome", oneOf(controller.ReloadOutcomes())})
	reloadDuration = loopSection.histogram("lbctl_reload_duration_seconds",
		"How long successful reloads took, from nginx -t until no worker of the former generation accepted connections.")
	coalesced = loopSection.counter("lbctl_changes_coalesced_total",
		"Configurations that were never applied, because a newer one came first.")
	generation      = loopSection.gauge("lbctl_generation", "Number of the generation that nginx serves; 0 if it does not answer.")
	generationSince = loopSection.gauge("lbctl_generation_since_timestamp_seconds",
		"Unix time since when nginx has served it; absent if nginx does not answer.")
	lastSuccess = loopSection.gauge("lbctl_last_success_timestamp_seconds",
		"Unix time when nginx last got a generation or fetched new servers; absent before the first time.")
	lastApply = loopSection.gauge("lbctl_last_apply_successful",
		"0 if the last attempt to apply a configuration or to correct drift failed, otherwise 1.")
	problems   = loopSection.gauge("lbctl_problems", "Number of problems that lbctl status shows.")
	frozen     = loopSection.gauge("lbctl_frozen", "1 while an operator's rollback pins a generation, otherwise 0.")
	pendingFor = loopSection.gauge("lbctl_pending_seconds",
		"How long the oldest change has waited that nginx does not serve yet; 0 if there is none.")
)

var (
	otherSection = newSection("Consul and certificates")

	consulUp = otherSection.gauge("lbctl_consul_up", "1 if Consul answers and has a leader, otherwise 0.")
	contact  = otherSection.gauge("lbctl_consul_last_contact_seconds",
		"How long ago Consul, with a leader, last answered. lbctl asks every two seconds. Absent before the first time.")
	expiry = otherSection.gauge("lbctl_certificate_expiry_timestamp_seconds",
		"Unix time when a certificate expires that nginx shows to clients.",
		label{"name", "(name of its files)"})
)

func collectLoop(to *text, status controller.Status, counts controller.Counts, deliveries Deliveries) {
	now := time.Now()
	for _, state := range controller.States() {
		to.truth(stateInfo, state == status.State, string(state))
	}
	to.durations(convergence, counts.Convergence, "reload")
	if deliveries != nil {
		to.durations(convergence, deliveries.Convergence(), "dns")
	}
	for _, reason := range controller.ReloadReasons() {
		for _, outcome := range controller.ReloadOutcomes() {
			to.set(reloads, float64(counts.Reloads[controller.Reload{Reason: reason, Outcome: outcome}]), string(reason), string(outcome))
		}
	}
	to.durations(reloadDuration, counts.ReloadDuration)
	to.set(coalesced, float64(counts.Coalesced))
	to.set(generation, float64(status.Nginx.Generation))
	to.time(generationSince, status.Nginx.Since)
	to.time(lastSuccess, counts.Succeeded)
	to.truth(lastApply, !counts.Failing)
	to.set(problems, float64(len(status.Problems)))
	to.truth(frozen, status.Frozen != nil)
	waited := time.Duration(0)
	if status.Pending != nil && !status.Pending.Since.IsZero() {
		waited = max(0, now.Sub(status.Pending.Since))
	}
	to.set(pendingFor, waited.Seconds())

	to.truth(consulUp, status.Consul.Up())
	if at := status.Consul.Contact; !at.IsZero() {
		to.set(contact, max(0, now.Sub(at)).Seconds())
	}
	for _, c := range status.Certificates {
		to.time(expiry, c.NotAfter, c.Name)
	}
}
