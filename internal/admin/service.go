package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
)

// ServicesOf returns the services of the endpoint table as the API shows them, while pinned is
// pinned. The table's own order stays: sorted by name.
func ServicesOf(entries []endpoints.Entry, pinned controller.Pinned) []Service {
	services := make([]Service, 0, len(entries))
	for _, entry := range entries {
		services = append(services, serviceOf(entry, pinned))
	}
	return services
}

// serviceOf turns an entry of the endpoint table into the API's Service, while pinned is
// pinned.
func serviceOf(entry endpoints.Entry, pinned controller.Pinned) Service {
	service := unpinned(entry)
	if !entry.Served() || !pinned.Lacks(entry.Service) {
		return service
	}
	service.LackingGeneration, service.InRotation = pinned.Generation, 0
	service.Reason = fmt.Sprintf("generation %d is pinned and does not have the service: 'lbctl resume' follows Consul again", pinned.Generation)
	for n := range service.Instances {
		i := &service.Instances[n]
		if i.InRotation || i.Held {
			i.InRotation, i.Reason = false, fmt.Sprintf("the pinned generation %d does not have the service", pinned.Generation)
		}
	}
	return service
}

// unpinned returns the Service of an entry that nginx has.
func unpinned(entry endpoints.Entry) Service {
	service := Service{
		Name:       entry.Name,
		Protocol:   entry.Protocol,
		Routes:     append([]endpoints.Route{}, entry.Routes...),
		Port:       entry.Port,
		Default:    entry.Default,
		State:      entry.State,
		Reason:     entry.Reason,
		Since:      entry.Since,
		Registered: len(entry.Instances),
		Problems:   append([]string{}, entry.Problems...),
		Instances:  []Instance{},
	}
	if entry.Served() {
		service.Maintenance = entry.Policy.Closure(entry.Protocol.Family())
	}
	if output := entry.FailingCheck(); output != "" && entry.State == endpoints.Panic {
		service.Reason += "; " + output
	}
	type key struct{ node, id string }
	traffic := map[key]bool{}
	for _, instance := range entry.Usable() {
		traffic[key{instance.Node, instance.ID}] = entry.Served()
	}
	for _, instance := range entry.Instances {
		shown := Instance{Instance: instance, InRotation: traffic[key{instance.Node, instance.ID}]}
		out, _ := entry.Ejection(instance)
		if out.By != "" && !out.Kept {
			shown.Ejected, shown.EjectedSince, shown.EjectedUntil = true, out.Since, out.Until
		}
		if shown.InRotation {
			shown.Reason = trafficReason(entry, instance, out)
		} else {
			shown.Reason = entry.WhyNoTraffic(instance)
		}
		service.Instances = append(service.Instances, shown)
	}
	for _, instance := range entry.Held {
		service.Instances = append(service.Instances, Instance{
			Instance:   instance,
			InRotation: traffic[key{instance.Node, instance.ID}],
			Held:       true,
			Reason:     cmp.Or(entry.WhyUnusable(instance), entry.Reason),
		})
	}
	for _, instance := range service.Instances {
		if instance.InRotation {
			service.InRotation++
		}
	}
	slices.SortStableFunc(service.Instances, func(a, b Instance) int {
		if c := strings.Compare(a.Node, b.Node); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return service
}

// trafficReason says why an instance gets traffic though a check, a probe or its calls fail, or
// why it gets less than its weight. It is "" for all others.
func trafficReason(entry endpoints.Entry, instance endpoints.Instance, out endpoints.Ejection) string {
	ramp, ramping := entry.Ramp(instance)
	switch {
	case !instance.InRotation():
		return "gets traffic though a check is critical, because " + fewOthers(entry, "pass") + after("; the check says: ", entry.CheckOutput(instance))
	case out.By != "":
		return "stays in rotation, because " + fewOthers(entry, "are left") + ": " + out.Reason
	case instance.Weight == 0:
		return "its weight is 0, but no other instance can serve"
	case ramping:
		return fmt.Sprintf("it has just returned, with %.0f %% of its weight", 100*ramp.Share)
	default:
		return ""
	}
}

// fewOthers says that too few others pass or are left; or that there is no other, apart from
// instances in maintenance.
func fewOthers(entry endpoints.Entry, do string) string {
	instances := len(entry.Held)
	for _, i := range entry.Instances {
		if i.Status != endpoints.Maintenance {
			instances++
		}
	}
	if instances == 1 {
		return "no other instance can serve"
	}
	return "too few others " + do
}

// after is text behind a separator, "" if there is no text.
func after(separator, text string) string {
	if text == "" {
		return ""
	}
	return separator + text
}
