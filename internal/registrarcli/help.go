package registrarcli

import (
	"fmt"
	"strings"

	"lbctl/internal/registration"
)

const rootHelp = `registrar keeps a server registered with the Consul agent next to it, and takes
it out of service without losing a request.

Usage:
  registrar [flags]                          register a server that runs on its own
  registrar exec [flags] -- command [arg...] run the server, register it while it is up

Every flag has an environment variable, named beside it; the flag wins. APP_NAME
and APP_PORT must be given, all else may be left out; defaults are in [brackets].

  APP_NAME=hello_server APP_PORT=7777 TAGS=grpc_server registrar exec -- grpc_server

`

const execHelp = `registrar exec runs a server as its child and registers it while it is up.

Usage:
  registrar exec [flags] -- command [arg...]

The command is started, registered when it answers its health check, and
deregistered at once when it ends. SIGTERM takes it out in order: out of the
rotation, drain, SIGTERM to the command, deregistration. SIGHUP, SIGQUIT,
SIGUSR1, SIGUSR2 and SIGWINCH go on to the command. Processes that the command
started in its process group end with it, also when the registrar is killed.

  registrar exec --name hello_server --port 7777 --tags grpc_server -- grpc_server -listen=:7777

`

const helpEnd = `Token, TLS and namespace for Consul come from its own variables: CONSUL_HTTP_TOKEN,
CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_SSL, CONSUL_CACERT, CONSUL_CLIENT_CERT,
CONSUL_CLIENT_KEY, CONSUL_NAMESPACE.

SIGTERM or SIGINT: leave the rotation, serve on for the drain, deregister, end. A
second one cuts the drain short, a third one kills a command that does not end.
SIGHUP: read token and certificates again, which also happens when they change.

Exit codes: 0 left as asked; 1 could not register, or the id is another
registrar's; 2 mistakes in flags or variables. With exec: the command's own,
128+n when signal n ended it, 127 there is no such command, 126 it can't be
executed.
`

// help returns the text of --help: purpose, usage, and the settings under their headings.
func help(exec bool) string {
	var b strings.Builder
	if exec {
		b.WriteString(execHelp)
	} else {
		b.WriteString(rootHelp)
	}
	group := ""
	for _, s := range registration.Settings() {
		if s.Group != group {
			if group != "" {
				b.WriteString("\n")
			}
			group = s.Group
			fmt.Fprintf(&b, "%s:\n", group)
		}
		usage := s.Usage
		if s.Default != "" {
			usage += " [" + strings.Trim(s.Default, "()") + "]"
		}
		fmt.Fprintf(&b, "  %-28s %s\n        %s\n", "--"+s.Flag+" "+s.Value, s.Env, usage)
	}
	b.WriteString("\n")
	b.WriteString(helpEnd)
	return b.String()
}
