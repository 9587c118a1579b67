package admin

import (
	"slices"
	"strings"

	"lbctl/internal/endpoints"
)

// serviceOf is the API's view of an entry of the endpoint table.
func serviceOf(entry endpoints.Entry) Service {
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
	for _, instance := range entry.Instances {
		in := entry.Served() && instance.InRotation()
		service.Instances = append(service.Instances, Instance{
			Instance:   instance,
			InRotation: in,
			Reason:     whyIdle(entry, instance),
		})
	}
	for _, instance := range entry.Held {
		service.Instances = append(service.Instances, Instance{
			Instance:   instance,
			InRotation: entry.Served(),
			Held:       true,
			Reason:     entry.Reason,
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

// whyIdle says why an instance gets no traffic, "" when it gets some.
func whyIdle(entry endpoints.Entry, instance endpoints.Instance) string {
	switch {
	case instance.Status == endpoints.Maintenance:
		return "in maintenance"
	case !instance.InRotation():
		return "a check is critical"
	case !entry.Served():
		return "nothing is routed to the service"
	default:
		return ""
	}
}
