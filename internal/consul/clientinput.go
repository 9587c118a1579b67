package consul

import (
	"strings"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul/api"

	"lbctl/internal/consulclient"
)

// clientInput converts consul/api's configuration to consul-template's. It leaves out the token
// file, since c has the token in it.
func clientInput(c *api.Config) *dependency.CreateConsulClientInput {
	input := &dependency.CreateConsulClientInput{
		Address:    c.Address,
		Namespace:  c.Namespace,
		Token:      c.Token,
		SSLEnabled: c.Scheme == "https" || strings.HasPrefix(c.Address, "https://"),
		SSLVerify:  !c.TLSConfig.InsecureSkipVerify,
		SSLCert:    c.TLSConfig.CertFile,
		SSLKey:     c.TLSConfig.KeyFile,
		SSLCACert:  c.TLSConfig.CAFile,
		SSLCAPath:  c.TLSConfig.CAPath,
		ServerName: c.TLSConfig.Address,

		TransportDialTimeout:         consulclient.DialTimeout,
		TransportDialKeepAlive:       consulclient.KeepAlive,
		TransportTLSHandshakeTimeout: consulclient.DialTimeout,
		TransportIdleConnTimeout:     consulclient.IdleTimeout,
		TransportMaxIdleConns:        consulclient.MaxIdle,
		TransportMaxIdleConnsPerHost: consulclient.MaxIdle,
	}
	if c.HttpAuth != nil {
		input.AuthEnabled = true
		input.AuthUsername = c.HttpAuth.Username
		input.AuthPassword = c.HttpAuth.Password
	}
	return input
}
