package endpoints

import (
	"fmt"
	"slices"
)

// panicReason returns why the service panics, or "" if enough instances are in rotation.
// As with Envoy's panic threshold, a service that panics gets traffic on all instances
// that are not in maintenance: either the few in rotation would break under the load, or
// so many fail that the checks themselves are probably wrong. Held instances count as in
// rotation.
func (e Entry) panicReason(threshold int) string {
	in, of := len(e.Held), len(e.Held)
	maintenance := 0
	for _, i := range e.Instances {
		switch {
		case i.Status == Maintenance:
			maintenance++
			continue
		case e.sendable(i):
			in++
		}
		of++
	}
	if of == 0 || percent(in, of) >= threshold {
		return ""
	}
	why := fmt.Sprintf("only %d of %d instances are in rotation, which is less than %d %%", in, of, threshold)
	switch {
	case in == 0 && of == 1 && maintenance > 0:
		return "its only instance that is not in maintenance does not pass its checks: it gets traffic nevertheless"
	case in == 0 && of == 1:
		why = "its only instance does not pass its checks"
	case in == 0:
		why = fmt.Sprintf("none of %d instances passes its checks", of)
	case in == 1:
		why = fmt.Sprintf("only 1 of %d instances is in rotation, which is less than %d %%", of, threshold)
	}
	what := ": all get traffic"
	if of == 1 {
		what = ": it gets traffic nevertheless"
	}
	if maintenance > 0 {
		what += fmt.Sprintf(", except %d in maintenance", maintenance)
	}
	return why + what
}

// AllInMaintenance reports whether the service has instances, and gets no traffic because all
// of them are in maintenance.
func (e Entry) AllInMaintenance() bool {
	return e.Served() && len(e.Instances) > 0 && len(e.Held) == 0 && !slices.ContainsFunc(e.Instances, func(i Instance) bool {
		return i.Status != Maintenance
	})
}

// percent returns the share of n in of, rounded up, so that only n = 0 gives 0.
func percent(n, of int) int { return (100*n + of - 1) / of }
