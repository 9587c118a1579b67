package consulclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"
)

// Explain returns the meaning of a request's error: Consul refuses the token, one side refuses a
// certificate, Consul answers with another error, or it doesn't answer.
func (c *Client) Explain(err error) string {
	var answer api.StatusError
	if errors.As(err, &answer) {
		body := strings.Join(strings.Fields(answer.Body), " ")
		switch {
		case answer.Code == http.StatusForbidden, answer.Code == http.StatusUnauthorized:
			return fmt.Sprintf("Consul at %s refuses %s: %s", c.address, c.credential(), body)
		case strings.Contains(body, "HTTP request to an HTTPS server"):
			return fmt.Sprintf("Consul at %s wants TLS, want an address like https://HOST:PORT, or CONSUL_HTTP_SSL=true", c.address)
		}
		return fmt.Sprintf("Consul at %s answers %d: %s", c.address, answer.Code, body)
	}
	if SpeaksNoTLS(err) {
		return fmt.Sprintf("Consul at %s speaks no TLS, want an address like http://HOST:PORT, and no CONSUL_HTTP_SSL", c.address)
	}
	if reason, ok := c.explainTLS(err); ok {
		return fmt.Sprintf("no TLS connection with Consul at %s: %s", c.address, reason)
	}
	return fmt.Sprintf("Consul at %s does not answer: %v", c.address, withoutURL(err))
}

// withoutURL returns an error without the URL of the request, which says nothing to people.
func withoutURL(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err
	}
	return err
}

// IsRefusal reports whether an error is a refusal of the token or of a certificate.
func IsRefusal(err error) bool {
	var answer api.StatusError
	if errors.As(err, &answer) {
		return answer.Code == http.StatusForbidden || answer.Code == http.StatusUnauthorized
	}
	return isTLS(err)
}

// credential names the refused credential.
func (c *Client) credential() string {
	config := c.Config()
	switch {
	case config.TokenFile != "":
		return fmt.Sprintf("the token in %q", config.TokenFile)
	case config.Token != "":
		return "the token"
	case config.HttpAuth != nil:
		return "the user and password"
	}
	return "requests without a token"
}

// explainTLS returns why there is no TLS connection; false if the error is not about TLS.
func (c *Client) explainTLS(err error) (string, bool) {
	alert, refused := remoteAlert(err)
	cert := c.config.TLSConfig.CertFile
	switch {
	case refused && cert != "":
		return fmt.Sprintf("Consul refuses the certificate in %q: %v", cert, alert), true
	case refused:
		return fmt.Sprintf("Consul wants a client certificate, set CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY: %v", alert), true
	case isTLS(err):
		return withoutURL(err).Error(), true
	}
	return "", false
}

// remoteAlert returns the alert with which the other side refuses a TLS connection. crypto/tls
// marks it only by the name of the failed operation.
func remoteAlert(err error) (error, bool) {
	var failed *net.OpError
	if errors.As(err, &failed) && failed.Op == "remote error" {
		return failed.Err, true
	}
	return nil, false
}

func isTLS(err error) bool {
	var (
		header    tls.RecordHeaderError
		unknown   x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		host      x509.HostnameError
		verifying *tls.CertificateVerificationError
	)
	_, refused := remoteAlert(err)
	return refused || errors.As(err, &header) || errors.As(err, &unknown) ||
		errors.As(err, &invalid) || errors.As(err, &host) || errors.As(err, &verifying) || SpeaksNoTLS(err)
}

// SpeaksNoTLS reports whether a request failed because Consul answers without TLS.
func SpeaksNoTLS(err error) bool {
	return err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}
