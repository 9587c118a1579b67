package consul

import (
	"fmt"

	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
)

// Unconfirmed returns the services whose last answer may be out of date because their query
// fails, each with the reason.
func (f *Follower) Unconfirmed() map[string]string {
	reasons := map[string]string{}
	list, _ := f.queries.failing()
	for _, q := range list {
		if name, ok := serviceOf(q.query); ok {
			reasons[name] = q.reason() + ", so Consul's last answer counts"
		}
	}
	return reasons
}

// LogFailing logs the queries that have begun to fail in one line, and those that succeed
// again in another: when Consul's agent ends, all queries fail at once.
func (f *Follower) LogFailing() {
	list, _ := f.queries.failing()
	now := make(map[string]bool, len(list))
	var begun []failing
	for _, q := range list {
		now[q.query] = true
		if !f.failing[q.query] {
			begun = append(begun, q)
		}
	}
	var ended []string
	for query := range f.failing {
		if !now[query] {
			ended = append(ended, query)
		}
	}
	f.failing = now
	if len(begun) > 0 {
		f.logger.Warn("queries fail and are tried again", "count", len(begun), "first", begun[0].query, "error", begun[0].details())
	}
	if len(ended) > 0 {
		f.logger.Info("queries no longer fail", "count", len(ended), "first", ended[0])
	}
}

// Problems returns the problems with Consul and with failing queries. Any goroutine may
// call it.
func (f *Follower) Problems() []Problem {
	status, filtered := f.monitor.current()
	var problems []Problem
	if status.LastError != "" && !status.Since.IsZero() {
		problems = append(problems, Problem{Message: status.LastError, Since: status.Since})
	} else {
		problems = f.failingProblems()
	}
	problems = append(problems, f.credentials.problems()...)
	if !filtered.IsZero() {
		problems = append(problems, Problem{
			Message: "Consul filters its answers by ACLs, so what is missing in them may be there: the token is too weak, it needs service:read and node:read",
			Since:   filtered,
		})
	}
	return problems
}

// failingProblems returns a problem for each failing query, or a single one if all fail.
func (f *Follower) failingProblems() []Problem {
	list, all := f.queries.failing()
	var problems []Problem
	for _, q := range list {
		name, ok := serviceOf(q.query)
		if !all && (q.unrelated || ok && !metadata.ValidName(name)) {
			continue // the service is not served anyway
		}
		p := Problem{Message: "a query fails and is tried again: " + q.query + ": " + q.details(), Since: q.since}
		if prefix, ok := prefixOf(q.query); ok && !all {
			p.Message = fmt.Sprintf("the keys below %q: %s, so its last answer counts: %s", prefix, whatFails(q.err), q.details())
		}
		if ok && !all {
			p.Service = name
			p.Message = q.reason() + ", and it is not served: " + q.details()
			if _, known := f.table.Remembered(name); known {
				p.Message = string(endpoints.LastKnownGood) + ": " + q.reason() + " (" + q.details() + "), so Consul's last answer counts"
			}
		}
		problems = append(problems, p)
		if all {
			break
		}
	}
	return problems
}

// Recall returns the table's state of the services that Consul lists but has not answered
// for yet. pending has those whose query has not failed; Recall adds them to unconfirmed.
// known is true if waiting is pointless: the query of each service fails, and the table
// remembers the service.
func (f *Follower) Recall(unanswered []string, unconfirmed map[string]string) (remembered []endpoints.Service, pending []string, known bool) {
	known = true
	for _, name := range unanswered {
		service, ok := f.table.Remembered(name)
		if ok {
			service.Policy = f.policies.of(service)
			remembered = append(remembered, service)
		}
		if unconfirmed[name] == "" {
			unconfirmed[name] = "Consul has not answered for it yet, so Consul's last answer counts"
			pending = append(pending, name)
			ok = false
		}
		known = known && ok
	}
	return remembered, pending, known
}
