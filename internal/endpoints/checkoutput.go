package endpoints

// CheckOutput is the output of an instance's failing check, or the reason of its maintenance,
// for people. The text can come from anyone who may register a check.
type CheckOutput struct {
	Node, ID string // of the instance
	Text     string
	// Maintenance: Text is the reason of the maintenance.
	Maintenance bool
}

// CheckOutput returns the output of an instance's failing check, or the reason of its
// maintenance; "" if there is none.
func (s Service) CheckOutput(i Instance) string {
	for _, o := range s.CheckOutputs {
		if o.Node == i.Node && o.ID == i.ID {
			return o.Text
		}
	}
	return ""
}

// FailingCheck returns the first output of a failing check of the service's instances, behind
// the instance's ID; "" if there is none.
func (s Service) FailingCheck() string {
	for _, o := range s.CheckOutputs {
		if !o.Maintenance {
			return "the check of " + o.ID + " says: " + o.Text
		}
	}
	return ""
}
