package cli

import (
	"github.com/spf13/cobra"

	"lbctl/internal/daemon"
	"lbctl/internal/render"
)

// healthFlags defines the flags about requests for the health of services, which lbctl answers.
func healthFlags(flags *flags, n *daemon.NginxConfig) {
	define(flags, &n.HealthPath, "health-path", "LBCTL_HEALTH_PATH", "PATH",
		"where HTTP clients get the health of all services. auto: at "+render.DefaultHealthPath+", if no service gets the request; a path: also if the default service would get it; none: nowhere",
		daemon.HealthAuto, parseHealthPath)
	flags.completeWith("health-path", cobra.FixedCompletions(
		[]string{daemon.HealthAuto, render.DefaultHealthPath, daemon.HealthNone}, cobra.ShellCompDirectiveNoFileComp))
	choose(flags, &n.GRPCHealth, "grpc-health", "LBCTL_GRPC_HEALTH", "auto|on|off",
		"answer calls of gRPC's health service. auto: those that no service gets; on: also those that the default service would get",
		daemon.HealthAuto, daemon.HealthAuto, daemon.HealthOn, daemon.HealthOff)
	define(flags, (*networkList)(&n.HealthNetworks), "health-networks", "LBCTL_HEALTH_NETWORKS", "NETWORK,...",
		"networks that may ask for the health of services, over HTTP and gRPC (default all)", nil, parseNetworks)
}

func parseHealthPath(given string) (string, error) {
	if given == daemon.HealthAuto || given == daemon.HealthNone {
		return given, nil
	}
	return given, render.CheckHealthPath(given)
}
