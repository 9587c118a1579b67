package controller

import (
	"slices"

	"lbctl/internal/endpoints"
	"lbctl/internal/history"
)

// departures returns the instances that get traffic before and not after, and why: the first ones
// of history.MaxLeft. Both lists are sorted by name.
func departures(before, after []endpoints.Entry) (left []history.Departure) {
	for n := range before {
		old := &before[n]
		if !old.Served() {
			continue
		}
		for len(after) > 0 && after[0].Name < old.Name {
			after = after[1:]
		}
		var now *endpoints.Entry
		if len(after) > 0 && after[0].Name == old.Name {
			now = &after[0]
		}
		left = append(left, departuresOf(old, now)...)
		if len(left) > history.MaxLeft {
			return left[:history.MaxLeft]
		}
	}
	return left
}

// departuresOf is departures for one service; now is nil if it is gone.
func departuresOf(old, now *endpoints.Entry) (left []history.Departure) {
	was, is := fullWeights(old), []endpoints.Instance(nil)
	if now != nil && now.Served() {
		is = fullWeights(now)
	}
	if len(was) == len(is) && (len(was) == 0 || &was[0] == &is[0]) {
		return nil // as with most services
	}
	type key struct{ node, id string }
	stay := make(map[key]bool, len(is))
	for _, i := range is {
		stay[key{i.Node, i.ID}] = true
	}
	for _, i := range was {
		if stay[key{i.Node, i.ID}] {
			continue
		}
		left = append(left, history.Departure{Service: old.Name, ID: i.ID, Node: i.Node, Reason: whyLeft(now, i)})
	}
	return left
}

func whyLeft(now *endpoints.Entry, left endpoints.Instance) string {
	if now == nil {
		return "its service is no longer in Consul, or asks no longer to be balanced"
	}
	n := slices.IndexFunc(now.Instances, func(i endpoints.Instance) bool { return i.Node == left.Node && i.ID == left.ID })
	if n < 0 {
		return "no longer in Consul"
	}
	return now.WhyNoTraffic(now.Instances[n])
}
