package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"

	"lbctl/internal/resolver"
)

// dnsTimeout is how long lbctl may take to answer a question.
const dnsTimeout = 2 * time.Second

// fetchPatience is how long after it began to serve a generation nginx may take to ask.
const fetchPatience = 30 * time.Second

func checkDNS(ctx context.Context, e *examination) []Finding {
	switch {
	case !e.Daemon.answers():
		return skipped("no daemon runs; the check ports says whether it can listen at %s", e.Config.Nginx.DNSListen)
	case !e.asksDNS():
		return skipped("nginx does not ask for servers: %s", e.Daemon.Status.Endpoints.Reason)
	}
	at := e.Config.Nginx.DNSListen
	for _, network := range []string{"udp", "tcp"} {
		if err := askResolver(ctx, network, at); err != nil {
			return failed(fmt.Sprintf("lbctl does not answer at %s, %s: %v", at, network, err), "an answer, as nginx wants it")
		}
	}
	endpoints, nginx := e.Daemon.Status.Endpoints, e.Daemon.Status.Nginx
	if n := len(endpoints.Unfetched); n > 0 && n == endpoints.Upstreams && nginx.Generation > 0 && e.Now().Sub(nginx.Since) > fetchPatience {
		return failed(fmt.Sprintf("lbctl answers at %s, and nginx has asked for none of %s", at, plural(n, "upstream")),
			"that nginx asks at this address")
	}
	return ok("lbctl answers at %s by UDP and TCP; nginx asks for %s", at, plural(endpoints.Upstreams, "upstream"))
}

// askResolver asks for the address of a server. Its name contains the address, and lbctl
// remembers nothing of such a question, so it does not take the doctor for a worker of nginx.
func askResolver(ctx context.Context, network, at string) error {
	const address = "127.0.0.1"
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn("7f000001-1.i."+resolver.Domain), dns.TypeA)
	client := &dns.Client{Net: network, Timeout: dnsTimeout}
	answer, _, err := client.ExchangeContext(ctx, question, at)
	if err != nil {
		return err
	}
	for _, record := range answer.Answer {
		if a, isA := record.(*dns.A); isA && a.A.String() == address {
			return nil
		}
	}
	return fmt.Errorf("it answers %s, want %s: another program may listen there", strings.ToLower(dns.RcodeToString[answer.Rcode]), address)
}
