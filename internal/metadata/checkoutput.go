package metadata

import (
	"strings"

	"github.com/hashicorp/consul/api"
)

// maxOutput is the maximum number of characters that are kept of a check's output.
const maxOutput = 160

// noReason ends Consul's own text for a maintenance without a reason.
const noReason = "no reason was provided. This is a default message."

// checkOutput returns the output of an instance's first critical check, or the reason of its
// maintenance, as one short line; "" if there is none.
func checkOutput(checks api.HealthChecks, maintained bool) string {
	for _, check := range checks {
		maintenance := check.CheckID == api.NodeMaint || strings.HasPrefix(check.CheckID, api.ServiceMaintPrefix)
		if check.Status != api.HealthCritical || maintenance != maintained {
			continue
		}
		output := check.Output
		if maintenance {
			output = check.Notes
		}
		if text := short(output); text != "" && !(maintenance && strings.HasSuffix(output, noReason)) {
			return text
		}
	}
	return ""
}

// short returns the first maxOutput characters of a text, as one line.
func short(output string) string {
	text := []rune(strings.Join(strings.Fields(output[:min(len(output), 8*maxOutput)]), " "))
	if len(text) > maxOutput {
		return string(text[:maxOutput-3]) + "..."
	}
	return string(text)
}
