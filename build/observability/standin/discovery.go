package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// discovery answers Prometheus's HTTP discovery with what Consul's catalog says, under the labels
// that Prometheus's discovery by Consul gives.
//
//	GET /?server=HOST:PORT[&service=NAME...]
type discovery struct{}

// A targetGroup is an element of the answer.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

func (discovery) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	groups, err := targets(r.FormValue("server"), r.Form["service"])
	if err != nil {
		// Prometheus keeps the targets that it has.
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(groups) //nolint:errcheck // Prometheus is gone
}

// targets lists the instances of the services, or of all.
func targets(server string, services []string) ([]targetGroup, error) {
	client, err := api.NewClient(&api.Config{Address: server})
	if err != nil {
		return nil, err
	}
	if len(services) == 0 {
		all, _, err := client.Catalog().Services(&api.QueryOptions{AllowStale: true})
		if err != nil {
			return nil, fmt.Errorf("ask Consul for its services: %w", err)
		}
		for name := range all {
			services = append(services, name)
		}
		slices.Sort(services)
	}
	groups := []targetGroup{}
	for _, name := range services {
		entries, _, err := client.Health().Service(name, "", false, &api.QueryOptions{AllowStale: true})
		if err != nil {
			return nil, fmt.Errorf("ask Consul for %q: %w", name, err)
		}
		for _, entry := range entries {
			groups = append(groups, group(entry))
		}
	}
	return groups, nil
}

func group(entry *api.ServiceEntry) targetGroup {
	const prefix = "__meta_consul_"
	address := entry.Service.Address
	if address == "" {
		address = entry.Node.Address
	}
	port := strconv.Itoa(entry.Service.Port)
	labels := map[string]string{
		prefix + "address":         entry.Node.Address,
		prefix + "dc":              entry.Node.Datacenter,
		prefix + "health":          entry.Checks.AggregatedStatus(),
		prefix + "node":            entry.Node.Node,
		prefix + "service":         entry.Service.Service,
		prefix + "service_address": entry.Service.Address,
		prefix + "service_id":      entry.Service.ID,
		prefix + "service_port":    port,
		prefix + "tags":            "," + strings.Join(entry.Service.Tags, ",") + ",",
	}
	for key, value := range entry.Node.Meta {
		labels[prefix+"metadata_"+labelName(key)] = value
	}
	for key, value := range entry.Service.Meta {
		labels[prefix+"service_metadata_"+labelName(key)] = value
	}
	return targetGroup{Targets: []string{net.JoinHostPort(address, port)}, Labels: labels}
}

var notInLabelNames = regexp.MustCompile(`[^a-zA-Z0-9_]`)

func labelName(key string) string { return notInLabelNames.ReplaceAllString(key, "_") }
