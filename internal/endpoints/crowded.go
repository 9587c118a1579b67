package endpoints

// SetCrowded says which services have too many instances for a DNS answer. The table keeps
// that over restarts, since a service stays crowded until it has clearly fewer instances.
func (t *Table) SetCrowded(services map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, r := range t.records {
		if r.crowded != services[name] {
			r.crowded = services[name]
			notify(t.unsaved)
		}
	}
}

// Crowded returns the services that SetCrowded named last.
func (t *Table) Crowded() map[string]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	crowded := map[string]bool{}
	for name, r := range t.records {
		if r.crowded {
			crowded[name] = true
		}
	}
	return crowded
}
