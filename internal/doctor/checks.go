package doctor

// Checks are all checks, in the order in which they run: some need what earlier ones have found
// out. docs/doctor.md lists them.
var Checks = []Check{
	{"daemon", "lbctl run is running, and answers", "look at its log; 'lbctl status' says more", false, checkDaemon},
	{"status", "what the daemon says of itself", "'lbctl status' shows all problems, 'lbctl history' what happened", false, checkStatus},
	{"version", "this lbctl and the daemon have the same version", "restart lbctl run with the new program, or use the same image", false, checkVersions},
	{"variables", "the variables LBCTL_... are known", "correct the name", false, checkVariables},

	{"consul-address", "Consul's agent answers at CONSUL_HTTP_ADDR", "start an agent on this machine, or set CONSUL_HTTP_ADDR", false, checkAddress},
	{"consul-leader", "Consul has a leader, and all servers are alive", "start the missing servers: 'consul operator raft list-peers', and their logs", false, checkLeader},
	{"consul-clock", "the clocks of this machine and of Consul's agent agree", "let both machines follow a time server (chrony, systemd-timesyncd)", false, checkClock},
	{"consul-token", "Consul knows the token, and it lasts", "make a token with 'consul acl token create', and give it in CONSUL_HTTP_TOKEN_FILE", false, checkToken},
	{"consul-rights", "the token may read services, nodes, policy and access", "give the token a policy with the wanted rules: 'consul acl policy update'", false, checkRights},
	{"operator-rights", "the token of this command may write policy and access", "give operators a token with the wanted rules", false, checkOperator},
	{"consul-limits", "the agent allows a connection for each service", "set limits { http_max_conns_per_client = 4096 } in the agent's configuration, and 'consul reload'", false, checkAgentLimits},

	{"nginx-binary", "nginx can be run", "install nginx, or set --nginx", true, checkBinary},
	{"nginx-version", "nginx has the features that lbctl uses", "install a newer nginx: nginx.org has packages", true, checkVersion},
	{"nginx-modules", "nginx has the modules that lbctl uses", "install a full nginx, and its package with the stream module", true, checkModules},
	{"nginx-running", "nginx runs, and serves a generation", "look at error.log in the run directory", true, checkRunning},
	{"nginx-old-workers", "workers from before a reload end", "have long streams end by themselves now and then", true, checkOldWorkers},
	{"nginx-limits", "nginx may have enough open files and connections", "raise LimitNOFILE in its systemd unit, or ulimits of its container, and leave out --open-files", true, checkLimits},
	{"nginx-user", "nginx's workers reach their files", "chmod o+x the directory, or choose another --run-dir or --nginx-user", true, checkUser},

	{"ports", "no other process has the ports of nginx and lbctl", "stop the other process, or choose other addresses", true, checkPorts},
	{"certificates", "the certificates of --certificates are valid, and nginx's workers may read their copies", "put a new certificate with its key into the directory: lbctl uses it within seconds", true, checkCertificates},
	{"dns", "lbctl answers nginx's questions about servers, and nginx asks", "look at the log of lbctl, and whether templates of your own name another resolver", true, checkDNS},
	{"directories", "the state and run directories are writable, with space", "choose a directory that belongs to lbctl's user", true, checkDirectories},
	{"access-log", "nginx can write its access log, which the circuit breaker needs", "choose a directory that belongs to lbctl's user, on a tmpfs", true, checkAccessLog},
	{"health", "clients get the health of the services from lbctl", "'lbctl explain URL' says who gets the request; templates of your own must use the partial `health`", true, checkHealth},
	{"generations", "the generations on disk are in order", "'lbctl history' shows what happened to them", true, checkGenerations},

	{"services", "services are served as Consul says", "correct the metadata that the service registers", false, checkServices},
	{"reachable", "this machine reaches the instances that pass their checks", "open the firewall to these addresses, have the server listen on all addresses, or register the address that others reach", false, checkReachable},
	{"policies", "each policy can be read, is for a service in Consul, and has values that all have an effect; nginx accepts the policy `default`", "'lbctl policy edit NAME', 'lbctl policy delete NAME', or register the service", false, checkPolicies},
}
