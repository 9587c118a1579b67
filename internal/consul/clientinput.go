package consul

import (
	"strings"
	"time"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul/api"
)

// clientInput is consul/api's configuration in consul-template's words.
func clientInput(c *api.Config) *dependency.CreateConsulClientInput {
	input := &dependency.CreateConsulClientInput{
		Address:    c.Address,
		Namespace:  c.Namespace,
		Token:      c.Token,
		TokenFile:  c.TokenFile,
		SSLEnabled: c.Scheme == "https" || strings.HasPrefix(c.Address, "https://"),
		SSLVerify:  !c.TLSConfig.InsecureSkipVerify,
		SSLCert:    c.TLSConfig.CertFile,
		SSLKey:     c.TLSConfig.KeyFile,
		SSLCACert:  c.TLSConfig.CAFile,
		SSLCAPath:  c.TLSConfig.CAPath,
		ServerName: c.TLSConfig.Address,

		TransportDialTimeout:         5 * time.Second,
		TransportDialKeepAlive:       15 * time.Second,
		TransportTLSHandshakeTimeout: 5 * time.Second,
		TransportIdleConnTimeout:     90 * time.Second,
		// There is a connection for every query, and each is idle for a moment
		// between two.
		TransportMaxIdleConns:        4096,
		TransportMaxIdleConnsPerHost: 4096,
	}
	if c.HttpAuth != nil {
		input.AuthEnabled = true
		input.AuthUsername = c.HttpAuth.Username
		input.AuthPassword = c.HttpAuth.Password
	}
	return input
}
