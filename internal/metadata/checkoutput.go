package metadata

import (
	"strings"

	"github.com/hashicorp/consul/api"
)

// maxOutput is the maximum number of characters that are kept of a check's output.
const maxOutput = 160

// checkOutput returns the output of an instance's first critical check, as one short line; ""
// if there is none. A check for maintenance doesn't count.
func checkOutput(checks api.HealthChecks) string {
	for _, check := range checks {
		maintenance := check.CheckID == api.NodeMaint || strings.HasPrefix(check.CheckID, api.ServiceMaintPrefix)
		if check.Status != api.HealthCritical || maintenance {
			continue
		}
		text := []rune(strings.Join(strings.Fields(check.Output[:min(len(check.Output), 8*maxOutput)]), " "))
		if len(text) > maxOutput {
			return string(text[:maxOutput-3]) + "..."
		}
		if len(text) > 0 {
			return string(text)
		}
	}
	return ""
}
