package registration

import "sync/atomic"

// Figures says what a registrar has done, and how it is now.
type Figures struct {
	// Registered: the agent has the entry, as far as the registrar knows, and the instance has not
	// begun to leave.
	Registered bool
	// Draining: the instance has left the rotation, and the server serves on.
	Draining bool
	// AgentAnswers: the agent has carried out the last request.
	AgentAnswers bool
	// Registrations were carried out, the first one and repairs; FailedRegistrations were not.
	Registrations, FailedRegistrations uint64
	// Repairs is how often the agent's entry was gone or changed, so that it was registered again.
	Repairs uint64
	// Deregistrations is how often the entry was removed.
	Deregistrations uint64
}

// figures has the parts of Figures. Its zero value is ready.
type figures struct {
	registered, draining, answers                   atomic.Bool
	registrations, failed, repairs, deregistrations atomic.Uint64
}

// Figures returns what the registrar has done so far. Any goroutine may call it.
func (r *Registrar) Figures() Figures {
	f := &r.figures
	return Figures{
		Registered: f.registered.Load(), Draining: f.draining.Load(), AgentAnswers: f.answers.Load(),
		Registrations: f.registrations.Load(), FailedRegistrations: f.failed.Load(),
		Repairs: f.repairs.Load(), Deregistrations: f.deregistrations.Load(),
	}
}

// tried notes how a registration ended.
func (f *figures) tried(err error) {
	f.answers.Store(err == nil)
	if err != nil {
		f.failed.Add(1)
		return
	}
	f.registrations.Add(1)
	f.registered.Store(true)
}
