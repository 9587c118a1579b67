package metadata

import (
	"strings"

	"github.com/hashicorp/consul/api"
)

// maxOutput is the longest text of a check that is kept, in characters.
const maxOutput = 160

// checkOutput is what the first critical check of an instance says, as one line and
// shortened; "" if none is critical or none says anything. Maintenance is no such check.
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
