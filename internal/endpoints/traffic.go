package endpoints

// WhyNoTraffic says why an instance of Instances gets no traffic.
func (e Entry) WhyNoTraffic(i Instance) string {
	ejection, _ := e.Ejection(i)
	switch {
	case e.Expired:
		return "Consul has not confirmed the service for too long"
	case e.WhyUnusable(i) != "":
		return e.WhyUnusable(i)
	case i.Status == Maintenance:
		return e.said("in maintenance", i)
	case !i.InRotation():
		return e.said("a check is critical", i)
	case ejection.By != "":
		return "ejected: " + ejection.Reason
	case e.Served() && i.Weight == 0:
		return "its weight is 0, and others can serve"
	case e.State == Quarantined:
		return "the service is quarantined"
	default:
		return "the service has no route"
	}
}

// said adds what an instance's check, or its maintenance, says.
func (e Entry) said(what string, i Instance) string {
	if output := e.CheckOutput(i); output != "" {
		return what + ": " + output
	}
	return what
}
