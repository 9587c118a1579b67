package render

import "lbctl/internal/endpoints"

// doubts are the services whose last answer may be out of date, because their
// query fails, each with the reason.
func (s *Source) doubts() map[string]string {
	doubts := map[string]string{}
	list, _ := s.watches.failing()
	for _, f := range list {
		if name, ok := serviceOf(f.query); ok {
			doubts[name] = f.reason() + ", this is the last it said"
		}
	}
	return doubts
}

// logDoubts tells which queries have begun to fail, and which succeed again, in
// one line each: when Consul's agent ends, all of them do at once.
func (s *Source) logDoubts() {
	list, _ := s.watches.failing()
	now := make(map[string]bool, len(list))
	var begun []failing
	for _, f := range list {
		now[f.query] = true
		if !s.failing[f.query] {
			begun = append(begun, f)
		}
	}
	var ended []string
	for query := range s.failing {
		if !now[query] {
			ended = append(ended, query)
		}
	}
	s.failing = now
	if len(begun) > 0 {
		s.logger.Warn("queries fail and are tried again", "count", len(begun), "first", begun[0].query, "error", begun[0].details())
	}
	if len(ended) > 0 {
		s.logger.Info("queries no longer fail", "count", len(ended), "first", ended[0])
	}
}

// doubtProblems names the services whose queries fail, or Consul when all do.
func (s *Source) doubtProblems() []Problem {
	list, all := s.watches.failing()
	var problems []Problem
	for _, f := range list {
		p := Problem{Subject: "consul", Message: "a query fails and is tried again: " + f.query + ": " + f.details(), Since: f.since}
		if name, ok := serviceOf(f.query); ok && !all {
			p.Subject = serviceSubject(name)
			p.Message = f.reason() + ", it is not served: " + f.details()
			if _, known := s.table.Remembered(name); known {
				p.Message = string(endpoints.LastKnownGood) + ": " + f.reason() + ", this is the last it said: " + f.details()
			}
		}
		problems = append(problems, p)
		if all {
			break
		}
	}
	return problems
}

// recall finds what the table remembers of the services that Consul lists but has
// said nothing about: they are not gone, only unknown. It adds to doubts those
// that don't fail, which are silent. They are known when none needs to be waited
// for.
func (s *Source) recall(unheard []string, doubts map[string]string) (remembered []endpoints.Service, silent []string, known bool) {
	known = true
	for _, name := range unheard {
		service, ok := s.table.Remembered(name)
		if ok {
			remembered = append(remembered, service)
		}
		if doubts[name] == "" {
			doubts[name] = "Consul has not answered for it yet, this is the last it said"
			silent = append(silent, name)
			ok = false
		}
		known = known && ok
	}
	return remembered, silent, known
}
