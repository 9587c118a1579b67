package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/endpoints"
	"lbctl/internal/spelling"
)

const servicesHelp = `List the services that nginx balances, one service's instances, or one instance.
INSTANCE is its ID in Consul, or NODE/ID if two nodes have the same ID.

A service is balanced when it has lb-... metadata or one of the tags grpc_server
and http_server in Consul. Its state is:
  fresh            nginx serves what Consul says
  no route         other services have all routes that it asks for, so nginx sends
                   it no requests
  not in generation N
                   generation N is pinned and does not have the service, so nginx
                   sends it no requests
  maintenance      the policy has maintenance.enabled, so nginx itself answers all
                   requests
  stale            Consul can't be reached or has no leader; nginx serves Consul's
                   last answer
  last-known-good  Consul does not answer for this service; nginx serves Consul's
                   last answer
  panic            too few instances pass their checks, by default none; all that
                   are not in maintenance get traffic
  held             instances vanished from Consul in a suspicious way and stay in
                   rotation; 'lbctl accept' removes them
  quarantined      the service's data is wrong, or nginx or a template refuses it;
                   nginx serves its last good state`

const servicesExample = `  lbctl services
  lbctl services web       # its instances, and why one gets no traffic
  lbctl services web web-1
  lbctl services -o json | jq -r '.[] | select(.state != "fresh") | .name'`

type servicesOptions struct {
	Out      io.Writer
	Terminal Terminal
	Now      func() time.Time
	Client   func() (*admin.Client, error)

	Output   string
	Name     string // "": all
	Instance string // "": all of the service
}

func newServicesCmd(f *factory) *cobra.Command {
	opts := &servicesOptions{Out: f.out, Terminal: f.terminal, Now: f.now}
	cmd := &cobra.Command{
		Use:     "services [NAME [INSTANCE]]",
		Short:   "List the balanced services, or one service's instances",
		Long:    servicesHelp,
		Example: servicesExample,
		Args:    atMost(2, "one service's name and one of its instances"),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	at := daemonFlags(flags, &opts.Output)
	opts.Client = at.client
	cmd.ValidArgsFunction = completeInstances(at)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			opts.Name = args[0]
		}
		if len(args) > 1 {
			opts.Instance = args[1]
		}
		return runServices(cmd.Context(), opts)
	}
	return cmd
}

func runServices(ctx context.Context, opts *servicesOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	if opts.Name != "" {
		service, err := client.Service(ctx, opts.Name)
		if err != nil {
			return err
		}
		if opts.Instance != "" {
			return printInstance(opts, service)
		}
		return printResult(opts.Out, opts.Output, service, func() error { return writeService(opts, service) })
	}
	services, err := client.Services(ctx)
	if err != nil {
		return err
	}
	return printResult(opts.Out, opts.Output, services, func() error { return writeServices(opts, services) })
}

func writeServices(opts *servicesOptions, services []admin.Service) error {
	if len(services) == 0 {
		_, err := fmt.Fprintln(opts.Out, "No service is balanced: none in Consul has lb-... metadata or the tag grpc_server or http_server.")
		return err
	}
	t := &table{header: []string{"SERVICE", "PROTOCOL", "ROUTES", "STATE", "INSTANCES", "SINCE"}, shrinkFirst: 2}
	for _, service := range services {
		t.add(
			cell{service.Name, cyan},
			text(string(service.Protocol)),
			text(routesText(service, 3)),
			stateCell(service),
			instancesCell(service),
			text(stateAge(service, opts.Now())),
		)
	}
	if err := t.write(opts.Out, opts.Terminal); err != nil {
		return err
	}
	return writeProblems(opts, services...)
}

// writeProblems prints below the table why services are not fresh, and the problems
// of their data.
func writeProblems(opts *servicesOptions, services ...admin.Service) error {
	var lines []string
	for _, service := range services {
		if service.Reason != "" {
			lines = append(lines, service.Name+": "+service.Reason)
		}
		if service.Maintenance != nil {
			lines = append(lines, service.Name+": "+service.Maintenance.String())
		}
		for _, problem := range service.Problems {
			if strings.Contains(service.Reason, problem) {
				continue
			}
			lines = append(lines, service.Name+": "+problem)
		}
	}
	for i, line := range lines {
		lines[i] = opts.Terminal.wrap(line, 0)
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(opts.Out, "\n%s\n", strings.Join(lines, "\n"))
	return err
}

// printInstance prints one instance of a service.
func printInstance(opts *servicesOptions, service admin.Service) error {
	instance, err := findInstance(service, opts.Instance)
	if err != nil {
		return err
	}
	return printResult(opts.Out, opts.Output, instance, func() error {
		return writeInstances(opts, []admin.Instance{instance}, service.Maintenance.All())
	})
}

// findInstance returns the instance with an ID, or with NODE/ID.
func findInstance(service admin.Service, name string) (admin.Instance, error) {
	var found []admin.Instance
	var names []string
	for _, instance := range service.Instances {
		if name == instance.ID || name == instance.Node+"/"+instance.ID {
			found = append(found, instance)
		}
		names = append(names, instance.ID)
	}
	switch nearest := spelling.Nearest(name, names); {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return admin.Instance{}, fmt.Errorf("service %q has instance %q on %s; want NODE/ID, such as %q",
			service.Name, name, plural(len(found), "node"), found[0].Node+"/"+found[0].ID)
	case nearest != "":
		return admin.Instance{}, fmt.Errorf("service %q has no instance %q; did you mean %q?", service.Name, name, nearest)
	case len(names) == 0:
		return admin.Instance{}, fmt.Errorf("service %q has no instance", service.Name)
	default:
		return admin.Instance{}, fmt.Errorf("service %q has no instance %q; 'lbctl services %s' lists them", service.Name, name, service.Name)
	}
}

func writeService(opts *servicesOptions, service admin.Service) error {
	summary := "not served"
	switch {
	case unrouted(service):
		summary = string(service.Protocol) + ", not served"
	case service.Protocol != "":
		summary = fmt.Sprintf("%s, %s", service.Protocol, routesText(service, 0))
	}
	state := stateCell(service)
	shown := opts.Terminal.paint(state.style, state.text)
	if stateAge(service, opts.Now()) != "" {
		shown += " " + since(service.Since, opts.Now())
	}
	fmt.Fprintf(opts.Out, "%s: %s; %s in rotation; %s\n\n",
		opts.Terminal.paint(cyan, service.Name), summary, instancesCell(service).text, shown)
	if err := writeInstances(opts, service.Instances, service.Maintenance.All()); err != nil {
		return err
	}
	if service.State == endpoints.Held && service.LackingGeneration == 0 {
		service.Reason = "" // the table gives it for each instance
	}
	return writeProblems(opts, service)
}

// writeInstances prints a table of instances. If their service is closed, because of
// maintenance.enabled, they get no traffic although they are in rotation.
func writeInstances(opts *servicesOptions, instances []admin.Instance, closed bool) error {
	t := &table{header: []string{"INSTANCE", "NODE", "ADDRESS", "STATUS", "WEIGHT", "VERSION", "TRAFFIC"}, prose: true}
	for _, instance := range instances {
		t.add(
			text(instance.ID),
			text(instance.Node),
			text(instance.HostPort()),
			cell{string(instance.Status), statusStyle(instance.Status)},
			text(fmt.Sprint(instance.Weight)),
			text(instance.Version),
			trafficCell(instance, closed, opts.Now()),
		)
	}
	return t.write(opts.Out, opts.Terminal)
}

func trafficCell(instance admin.Instance, closed bool, now time.Time) cell {
	switch {
	case closed && instance.InRotation:
		return cell{"no: the service is in maintenance", yellow}
	case instance.Held && instance.InRotation:
		return cell{"held: " + instance.Reason, yellow}
	case instance.InRotation && instance.Reason != "":
		return cell{"yes: " + instance.Reason, yellow}
	case instance.InRotation:
		return cell{"yes", green}
	case instance.Ejected && !instance.EjectedUntil.IsZero():
		return cell{fmt.Sprintf("no: %s (%s; back at %s)", instance.Reason, since(instance.EjectedSince, now), clock(instance.EjectedUntil, now)), red}
	case instance.Ejected:
		return cell{fmt.Sprintf("no: %s (%s)", instance.Reason, since(instance.EjectedSince, now)), red}
	default:
		return cell{"no: " + instance.Reason, red}
	}
}

// routesText lists at most most routes (0: all).
func routesText(service admin.Service, most int) string {
	var routes []string
	for _, route := range service.Routes {
		routes = append(routes, route.String())
	}
	if most > 0 && len(routes) > most {
		routes = append(routes[:most], fmt.Sprintf("+%d", len(service.Routes)-most))
	}
	if service.Port != 0 {
		routes = append(routes, fmt.Sprintf("port %d", service.Port))
	}
	if service.Default {
		routes = append(routes, "default")
	}
	switch {
	case len(routes) == 0 && service.State == endpoints.Quarantined:
		return "not served" // no other service has its routes
	case len(routes) == 0:
		return "no route"
	}
	return strings.Join(routes, ", ")
}

// instancesCell is "3/4": 3 of 4 registered instances are in rotation. Held instances
// are not registered, so they are counted separately: "2/2 +1 held".
func instancesCell(service admin.Service) cell {
	held := 0
	for _, instance := range service.Instances {
		if instance.Held && instance.InRotation {
			held++
		}
	}
	c := cell{text: fmt.Sprintf("%d/%d", service.InRotation-held, service.Registered)}
	if held > 0 {
		c.text += fmt.Sprintf(" +%d held", held)
	}
	if service.InRotation == 0 {
		c.style = red
	} else if held > 0 || service.InRotation < service.Registered {
		c.style = yellow
	}
	return c
}

// unrouted reports whether a service has no route because other services have all routes that it
// asks for. nginx then sends it no traffic, even if its data is valid.
func unrouted(service admin.Service) bool {
	return service.Protocol != "" && len(service.Routes) == 0 && service.Port == 0 && !service.Default
}

// stateCell returns the state of a service. A service that gets no traffic, because it has no
// route, because the pinned generation does not have it or because its policy says that it is in
// maintenance, is not shown as fresh: that would be misleading.
func stateCell(service admin.Service) cell {
	switch {
	case service.LackingGeneration != 0:
		return cell{fmt.Sprintf("not in generation %d", service.LackingGeneration), red}
	case service.State == endpoints.Fresh && unrouted(service):
		return cell{"no route", red}
	case service.State == endpoints.Fresh && service.Maintenance.All():
		return cell{"maintenance", yellow}
	}
	return cell{string(service.State), serviceStyle(service.State)}
}

// stateAge returns how long the service has been in the state of stateCell; "" if that is
// unknown.
func stateAge(service admin.Service, now time.Time) string {
	if service.LackingGeneration != 0 || service.State == endpoints.Fresh && (unrouted(service) || service.Maintenance.All()) {
		return "" // Since is of State
	}
	return age(now.Sub(service.Since)) + " ago"
}

func serviceStyle(state endpoints.State) style {
	switch state {
	case endpoints.Fresh:
		return green
	case endpoints.Panic, endpoints.Quarantined:
		return red
	default:
		return yellow
	}
}

func statusStyle(status endpoints.Status) style {
	if slices.Contains([]endpoints.Status{endpoints.Critical, endpoints.Maintenance}, status) {
		return red
	}
	if status == endpoints.Warning {
		return yellow
	}
	return green
}
