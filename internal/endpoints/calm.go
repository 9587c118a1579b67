package endpoints

// calm is what a service's entry was last made of, and the entry. With thousands
// of services nearly all of them are as they were at any moment, and fresh.
type calm struct {
	service Service
	entry   Entry // before claims are settled
}

// isCalm reports whether the entry would be the same again: nothing is known
// against the service, neither then nor now, and Consul says the same.
func (t *Table) isCalm(r *record, s Service, o *observation) bool {
	c := r.calm
	if c == nil || o == nil || c.entry.State != Fresh || r.state != Fresh || c.entry.Expired || t.trust != (Trust{}) || t.doubts[s.Name] != "" ||
		len(r.held) > 0 || len(r.failing) > 0 || r.refused != nil || len(c.entry.Ejections) > 0 || len(c.entry.Returns) > 0 {
		return false
	}
	if t.opts.SlowStart > 0 && (r.traffic != nil) != (t.opts.CheapWeights != nil && t.opts.CheapWeights(s.Name)) {
		return false // who gets traffic has to be followed from now on, or no longer
	}
	return unchanged(c.service, s)
}

// unchanged reports whether a service is as it was, going by what it was made of.
func unchanged(was, s Service) bool {
	return same(was.Instances, s.Instances) && same(was.Problems, s.Problems) && was.OK == s.OK && was.Spec.Equal(s.Spec)
}

// same reports whether two slices are one and the same.
func same[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }
