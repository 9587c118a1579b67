package cli

import (
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAccessCompletion(t *testing.T) {
	consul, do := inConsul(t)
	for _, name := range []string{"cart", "web"} {
		require.NoError(t, consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: name}))
	}
	require.Eventually(t, func() bool {
		services, _, err := consul.Client().Catalog().Services(nil)
		return err == nil && services["cart"] != nil && services["web"] != nil
	}, patience, often)
	for _, line := range []string{
		"deny 203.0.113.0/24 198.51.100.7 --for 1h -m scan",
		"allow 203.0.113.9",
		"deny 192.0.2.1 --service cart",
		"key create shop --services cart,web -m front-end",
		"key create alice --basic",
	} {
		require.Equal(t, 0, do(line).code, line)
	}
	_, err := consul.Client().KV().Put(&api.KVPair{Key: "lb-access/key/bad", Value: []byte(`{}`)}, nil)
	require.NoError(t, err)
	const noFiles, services = ":36", ":4"
	for line, want := range map[string]string{
		"allow ":                          "198.51.100.7\tdenied for every service, until 10:16:30, by ME: scan\n203.0.113.0/24\tdenied for every service, until 10:16:30, by ME: scan\n" + noFiles,
		"allow 198.51.100.7 ":             "203.0.113.0/24\tdenied for every service, until 10:16:30, by ME: scan\n" + noFiles,
		"allow 2":                         "203.0.113.0/24\tdenied for every service, until 10:16:30, by ME: scan\n" + noFiles,
		"allow --service cart ":           "192.0.2.1\tdenied for cart, by ME\n" + noFiles,
		"deny ":                           ":4",
		"access check ":                   ":4",
		"deny --service ":                 "cart\nconsul\nweb\n" + services,
		"deny --service cart,":            "cart,consul\ncart,web\n" + services,
		"access list --service w":         "cart\nconsul\nweb\n" + services, // the shell chooses
		"key create x --services consul,": "consul,cart\nconsul,web\n" + services,
		"key create ":                     ":4",
		"key revoke ":                     "alice\tfor every service\nbad\tcan't be read\nshop\tfor cart, web: front-end\n" + noFiles,
		"key revoke shop ":                noFiles,
	} {
		got := command(t.Context(), Terminal{}, nil, append([]string{"__complete"}, strings.Split(line, " ")...)...)
		assert.Equal(t, want+"\n", byWhom.ReplaceAllString(got.out, "ME"), line)
	}
}
