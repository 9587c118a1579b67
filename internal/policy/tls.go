package policy

import "regexp"

// TLS is how nginx speaks TLS with the instances of a service with the protocol grpcs or https.
type TLS struct {
	Verify         Switch
	ServerName     string // for SNI and Verify
	CA             string // file with the authorities for Verify
	Certificate    string // file with nginx's own certificate, and those of its authorities
	CertificateKey string // file with the key of Certificate
}

// Verified reports whether nginx verifies the certificates of instances.
func (t TLS) Verified() bool { return t.Verify == On && t.ServerName != "" && t.CA != "" }

// HasCertificate reports whether nginx shows a certificate to instances.
func (t TLS) HasCertificate() bool { return t.Certificate != "" && t.CertificateKey != "" }

var (
	serverName   = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)
	absoluteFile = regexp.MustCompile(`^/[ -#%-~]{1,999}$`)
)

func files() kind[string] {
	return texts[string](`the absolute path of a file in PEM, of printable ASCII without "$"`, absoluteFile.MatchString)
}

var tlsFields = []Field{
	field("tls.verify", func(p *Policy) *Switch { return &p.TLS.Verify }, switches(), "on",
		"Whether the instances must have a certificate for tls.server-name, from an authority in tls.ca. It is off by default, because Consul has addresses of instances, and certificates are for names. It holds for the protocols grpcs and https, like all fields of tls.",
		defaults(string(Off))),
	field("tls.server-name", func(p *Policy) *string { return &p.TLS.ServerName },
		texts[string](`a host name like "cart.internal" in lower case`, func(text string) bool { return len(text) <= 253 && serverName.MatchString(text) && text != BuiltIn }), "cart.internal",
		"The name that nginx asks instances for (SNI), and that tls.verify expects in their certificates. Without it nginx names none."),
	field("tls.ca", func(p *Policy) *string { return &p.TLS.CA }, files(), "/etc/lbctl/ca.pem",
		"The file with the authorities for tls.verify, on the balancer's machine.", operatorOnly),
	field("tls.certificate", func(p *Policy) *string { return &p.TLS.Certificate }, files(), "/etc/lbctl/client.pem",
		"The file with the certificate that nginx shows to instances, and those of its intermediate authorities.", operatorOnly),
	field("tls.certificate-key", func(p *Policy) *string { return &p.TLS.CertificateKey }, files(), "/etc/lbctl/client.key",
		"The file with the key of tls.certificate.", operatorOnly),
}
