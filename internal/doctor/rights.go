package doctor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/consulclient"
	"lbctl/internal/kv"
)

// expiresSoon is how long before its end a token is worth a warning.
const expiresSoon = 24 * time.Hour

func checkToken(ctx context.Context, e *examination) []Finding {
	if f := e.leaderless(); f != nil {
		return f
	}
	token, _, err := e.Consul.API().ACL().TokenReadSelf(askConsul(ctx))
	switch {
	case isACLOff(err):
		return ok("Consul's ACLs are off: everybody who reaches it may do everything")
	case e.Consul.Config().Token == "": // Consul does not tell about it
		e.consul.anonymous = true
		return ok("requests without a token; the check consul-rights says whether that is enough")
	case err != nil && consulclient.IsRefusal(err):
		return failed(e.Consul.Explain(err), "a token that Consul knows")
	case err != nil:
		return skipped("%s", e.Consul.Explain(err))
	}
	named := fmt.Sprintf("token with the accessor %s", token.AccessorID)
	if token.Description != "" {
		named += fmt.Sprintf(" (%s)", token.Description)
	}
	if end := token.ExpirationTime; end != nil && end.Sub(e.Now()) < expiresSoon && e.Consul.Config().TokenFile == "" {
		return warning(fmt.Sprintf("the %s ends at %s", named, end.Local().Format(time.DateTime)),
			"a token that lasts longer, or a file that is replaced in time (CONSUL_HTTP_TOKEN_FILE)")
	}
	return ok("%s", named)
}

func isACLOff(err error) bool {
	var answer api.StatusError
	return errors.As(err, &answer) && answer.Code == http.StatusUnauthorized && strings.Contains(answer.Body, "ACL support disabled")
}

// rules is the policy of a token, in Consul's language, with which the checks are content.
func rules(access, prefix string) string {
	text := `service_prefix "" { policy = "read" }  node_prefix "" { policy = "read" }`
	keys := []string{kv.PolicyPrefix(prefix), kv.AccessPrefix(prefix)}
	if access == "write" {
		keys = append(keys, historyPrefix(prefix))
	}
	for _, key := range keys {
		text += fmt.Sprintf("  key_prefix %q { policy = %q }", key, access)
	}
	return text
}

func checkRights(ctx context.Context, e *examination) []Finding {
	if f := e.leaderless(); f != nil {
		return f
	}
	client := e.Consul.API()
	var lacking []string
	services, meta, err := client.Catalog().Services(askConsul(ctx))
	if err != nil {
		return failed(e.Consul.Explain(err), rules("read", e.Config.KVPrefix))
	}
	e.consul.services, e.consul.filtered = services, meta.ResultsFilteredByACLs
	// Who has any right sees the service "consul" and a node at least.
	if meta.ResultsFilteredByACLs || e.consul.anonymous && len(services) == 0 {
		e.consul.filtered = true
		lacking = append(lacking, fmt.Sprintf("service:read for all services (it sees %d)", len(services)))
	}
	nodes, meta, err := client.Catalog().Nodes(askConsul(ctx))
	switch {
	case err != nil:
		return failed(e.Consul.Explain(err), rules("read", e.Config.KVPrefix))
	case meta.ResultsFilteredByACLs || e.consul.anonymous && len(nodes) == 0:
		lacking = append(lacking, fmt.Sprintf("node:read for all nodes (it sees %d)", len(nodes)))
	}
	for _, prefix := range []string{kv.PolicyPrefix(e.Config.KVPrefix), kv.AccessPrefix(e.Config.KVPrefix)} {
		// A list leaves out what the token may not read; a single key is refused.
		if _, _, err := client.KV().Get(prefix+"default", askConsul(ctx)); err != nil && consulclient.IsRefusal(err) {
			lacking = append(lacking, fmt.Sprintf("key:read below %q", prefix))
		} else if _, _, err := client.KV().Keys(prefix, "", askConsul(ctx)); err != nil && consulclient.IsRefusal(err) {
			lacking = append(lacking, fmt.Sprintf("key:list below %q", prefix))
		}
	}
	if len(lacking) > 0 {
		if e.consul.anonymous {
			return mend(failed("requests without a token lack "+strings.Join(lacking, ", "), rules("read", e.Config.KVPrefix)),
				"make a token with the wanted rules with 'consul acl token create', and give it in CONSUL_HTTP_TOKEN_FILE")
		}
		return failed("the token lacks "+strings.Join(lacking, ", "), rules("read", e.Config.KVPrefix))
	}
	return ok("the token may read %s, %s, and the keys of policy and access", plural(len(services), "service"), plural(len(nodes), "node"))
}

func checkOperator(ctx context.Context, e *examination) []Finding {
	if f := e.leaderless(); f != nil {
		return f
	}
	var lacking []string
	for _, prefix := range []string{kv.PolicyPrefix(e.Config.KVPrefix), kv.AccessPrefix(e.Config.KVPrefix), historyPrefix(e.Config.KVPrefix)} {
		// Consul looks at the rights first. No key has this index, so nothing is written.
		pair := &api.KVPair{Key: prefix + "default", ModifyIndex: math.MaxInt64}
		_, _, err := e.Operator.API().KV().CAS(pair, new(api.WriteOptions).WithContext(ctx))
		switch {
		case err == nil:
		case consulclient.IsRefusal(err):
			lacking = append(lacking, fmt.Sprintf("key:write below %q", prefix))
		default:
			return skipped("%s", e.Operator.Explain(err))
		}
	}
	switch {
	case len(lacking) == 0:
		return ok("the token of this command may write policy and access")
	case e.Operator.Config().Token == e.Consul.Config().Token:
		// The daemon must not write; an operator has a token of his own.
		return skipped("this command has the daemon's token, which lacks %s, and does not need it", strings.Join(lacking, ", "))
	default:
		return warning("the token of this command lacks "+strings.Join(lacking, ", "), rules("write", e.Config.KVPrefix))
	}
}

// historyPrefix is where the changes of policy and access are written down.
func historyPrefix(prefix string) string { return prefix + "-history/" }
