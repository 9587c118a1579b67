package cli

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/endpoints"
	"lbctl/internal/routing"
)

// completeURLs completes a URL with those of the routes. More of the path can follow.
func completeURLs(at *daemonAddress) cobra.CompletionFunc {
	list := complete(at, 1, func(ctx context.Context, client *admin.Client, _ []string) ([]cobra.Completion, error) {
		routes, err := client.Routes(ctx)
		return urlsOf(routes.Listeners), err
	})
	return func(cmd *cobra.Command, args []string, given string) ([]cobra.Completion, cobra.ShellCompDirective) {
		found, directive := list(cmd, args, given)
		return found, directive | cobra.ShellCompDirectiveNoSpace
	}
}

// urlsOf returns a URL for each host and path of the routes, without those of wildcard hosts.
func urlsOf(listeners []routing.Listener) []cobra.Completion {
	var urls []cobra.Completion
	known := map[string]bool{}
	protocols := map[endpoints.Protocol]bool{}
	for _, l := range listeners {
		if l.Protocol == endpoints.TCP || l.Redirect != 0 || len(l.Addresses) == 0 {
			continue
		}
		port := ""
		if protocols[l.Protocol] { // a URL without a port is for the first listener
			_, number, err := net.SplitHostPort(l.Addresses[0])
			if err != nil {
				continue
			}
			port = ":" + number
		}
		protocols[l.Protocol] = true
		for _, way := range l.Ways {
			if strings.Contains(way.Host, "*") {
				continue
			}
			url := string(l.Protocol) + "://" + cmp.Or(way.Host, "localhost") + port + cmp.Or(way.Path, "/")
			if !known[url] {
				known[url] = true
				urls = append(urls, cobra.CompletionWithDesc(url, serviceCell(way).text))
			}
		}
	}
	slices.Sort(urls)
	return urls
}
