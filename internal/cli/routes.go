package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/endpoints"
	"lbctl/internal/routing"
)

const routesHelp = `List which requests lead to which service, by listener. The routes of a listener are
in the order in which they are tried: a request takes the first one that it matches.

A route is HOST/PATH: "*" is any host, and "HOST=/PATH" is that path alone. A method
stands before it, and headers that a request must have stand behind it.`

type routesOptions struct {
	Out      io.Writer
	Terminal Terminal
	Client   func() (*admin.Client, error)

	Output string
}

func newRoutesCmd(f *factory) *cobra.Command {
	opts := &routesOptions{Out: f.out, Terminal: f.terminal}
	cmd := &cobra.Command{
		Use:   "routes",
		Short: "List which requests lead to which service",
		Long:  routesHelp,
		Example: `  lbctl routes
  lbctl routes -o json | jq -r '.listeners[].routes[] | select(.service == "cart")'`,
		Args: atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	opts.Client = daemonFlags(flags, &opts.Output).client
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runRoutes(cmd.Context(), opts) }
	return cmd
}

func runRoutes(ctx context.Context, opts *routesOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	routes, err := client.Routes(ctx)
	if err != nil {
		return err
	}
	return printResult(opts.Out, opts.Output, routes, func() error { return writeRoutes(opts, routes) })
}

func writeRoutes(opts *routesOptions, routes admin.Routes) error {
	t := &table{header: []string{"LISTENER", "ROUTE", "SERVICE"}, shrinkFirst: 1}
	for _, l := range routes.Listeners {
		name := listenerText(l.Name, l.Addresses)
		switch {
		case l.Redirect != 0:
			t.add(text(name), text("all"), text(fmt.Sprintf("redirected to HTTPS on port %d", l.Redirect)))
		case len(l.Ways) == 0:
			t.add(text(name), text(""), text(""))
		}
		for n, way := range l.Ways {
			if n > 0 {
				name = ""
			}
			t.add(cell{text: name}, text(wayText(l, way)), serviceCell(way))
		}
	}
	if err := t.write(opts.Out, opts.Terminal); err != nil || routes.Note == "" {
		return err
	}
	_, err := fmt.Fprintf(opts.Out, "\n%s\n", opts.Terminal.wrap(routes.Note, 0))
	return err
}

// listenerText is "grpc :5000": the name, and the ports of the addresses, or the addresses
// themselves if they are not those of the whole machine.
func listenerText(name string, addresses []string) string {
	var shown []string
	for _, address := range addresses {
		for _, all := range []string{"0.0.0.0:", "[::]:"} {
			if port, ok := strings.CutPrefix(address, all); ok {
				address = ":" + port
			}
		}
		if len(shown) == 0 || shown[len(shown)-1] != address {
			shown = append(shown, address)
		}
	}
	return strings.Join(append([]string{name}, shown...), " ")
}

// healthText is what is shown in the place of a service, for the requests that lbctl itself answers.
const healthText = "the health of the services"

// serviceCell is the cell of the service of a way.
func serviceCell(way routing.Way) cell {
	if way.Health {
		return text("lbctl: " + healthText)
	}
	return cell{way.Service, cyan}
}

func wayText(l routing.Listener, way routing.Way) string {
	switch {
	case l.Protocol == endpoints.TCP:
		return "all connections"
	case way.Route == (endpoints.Route{}):
		return "* (default)"
	default:
		return way.Route.String()
	}
}
