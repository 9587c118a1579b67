package consul

import (
	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
)

// Unconfirmed is the services whose last answer may be out of date because their query
// fails, each with the reason.
func (f *Follower) Unconfirmed() map[string]string {
	reasons := map[string]string{}
	list, _ := f.queries.failing()
	for _, q := range list {
		if name, ok := serviceOf(q.query); ok {
			reasons[name] = q.reason() + ", this is the last it said"
		}
	}
	return reasons
}

// LogFailing logs which queries have begun to fail, and which succeed again, in one line
// each: when Consul's agent ends, all of them fail at once.
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

// Problems is what is wrong with Consul, and the services whose queries fail. Any
// goroutine may call it.
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

// failingProblems names the services whose queries fail, or Consul when all do.
func (f *Follower) failingProblems() []Problem {
	list, all := f.queries.failing()
	var problems []Problem
	for _, q := range list {
		name, ok := serviceOf(q.query)
		if !all && (q.unrelated || ok && !metadata.ValidName(name)) {
			continue // it is not served in any case
		}
		p := Problem{Message: "a query fails and is tried again: " + q.query + ": " + q.details(), Since: q.since}
		if ok && !all {
			p.Service = name
			p.Message = q.reason() + ", it is not served: " + q.details()
			if _, known := f.table.Remembered(name); known {
				p.Message = string(endpoints.LastKnownGood) + ": " + q.reason() + ", this is the last it said: " + q.details()
			}
		}
		problems = append(problems, p)
		if all {
			break
		}
	}
	return problems
}

// Recall returns what the table remembers of services that Consul lists but has not
// answered for: they are not gone. It adds those whose query doesn't fail, the silent
// ones, to unconfirmed. known is true when there is no reason to wait for any of them:
// each fails, and is remembered.
func (f *Follower) Recall(unheard []string, unconfirmed map[string]string) (remembered []endpoints.Service, silent []string, known bool) {
	known = true
	for _, name := range unheard {
		service, ok := f.table.Remembered(name)
		if ok {
			remembered = append(remembered, service)
		}
		if unconfirmed[name] == "" {
			unconfirmed[name] = "Consul has not answered for it yet, this is the last it said"
			silent = append(silent, name)
			ok = false
		}
		known = known && ok
	}
	return remembered, silent, known
}
