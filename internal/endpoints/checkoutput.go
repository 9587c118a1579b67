package endpoints

// CheckOutput is what the failing check of an instance says, for people. Whoever runs the
// check chooses the text.
type CheckOutput struct {
	Node, ID string // of the instance
	Text     string
}

// CheckOutput returns what the failing check of an instance says, "" if it says nothing or
// no check fails.
func (s Service) CheckOutput(i Instance) string {
	for _, o := range s.CheckOutputs {
		if o.Node == i.Node && o.ID == i.ID {
			return o.Text
		}
	}
	return ""
}

// FailingCheck returns what the first failing check of the service's instances says,
// behind the instance's ID; "" if none says anything.
func (s Service) FailingCheck() string {
	if len(s.CheckOutputs) == 0 {
		return ""
	}
	o := s.CheckOutputs[0]
	return "the check of " + o.ID + " says: " + o.Text
}
