package endpoints

// CheckOutput is the output of an instance's failing check, for people. The text can come from
// anyone who may register a check.
type CheckOutput struct {
	Node, ID string // of the instance
	Text     string
}

// CheckOutput returns the output of an instance's failing check, "" if there is none.
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
	if len(s.CheckOutputs) == 0 {
		return ""
	}
	o := s.CheckOutputs[0]
	return "the check of " + o.ID + " says: " + o.Text
}
