// Package certificates reads the TLS certificates of an operator's directory and those that
// policies name, checks them, and keeps a copy of the last good one of each, which nginx reads. A
// broken or expired file never replaces a good copy.
package certificates

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// WarnBefore is how long before its expiry a certificate becomes a problem.
const WarnBefore = 14 * 24 * time.Hour

// DefaultName is the name of the certificate for host names that no certificate has, and of the
// authorities for clients of hosts without authorities of their own.
const DefaultName = "default"

// Certificate is a certificate with its key.
type Certificate struct {
	Name string `json:"name" printable:"name"` // of its files, without extension
	// Hosts are the host names that it is valid for, sorted: "example.com", "*.example.com".
	Hosts     []string  `json:"hosts"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	// File is the copy for nginx: the chain and the key in PEM.
	File string `json:"-"`
}

// valid reports whether the certificate is valid at a time.
func (c Certificate) valid(now time.Time) bool {
	return !now.Before(c.NotBefore) && now.Before(c.NotAfter)
}

// Clients says which certificates the clients of a host need.
type Clients struct {
	Host     string // "example.com", "*.example.com"; "" for all hosts without Clients of their own
	Optional bool   // a client may have none
	// Authorities are the certificates of the authorities that the clients' certificates must
	// come from, in PEM. Empty: there is no usable file, so no client can be let in.
	Authorities []byte
}

// FileName is the name of the file in the directory that has the authorities.
func (c Clients) FileName() string {
	return hostName(c.Host) + extensionOfClients(c.Optional)
}

func extensionOfClients(optional bool) string {
	if optional {
		return optionalClientsExtension
	}
	return clientsExtension
}

// HostCertificate says which certificate a host name has.
type HostCertificate struct {
	Host string // "example.com", "*.example.com"
	File string // Certificate.File
}

// Problem is a mistake in the directory, or an expiry.
type Problem struct {
	Name    string // of the certificate or the host; empty: the whole directory
	Message string
}

// Set is what the directory has at a time. The zero Set has nothing.
type Set struct {
	Certificates []Certificate // sorted by name
	Clients      []Clients     // sorted by host
	Problems     []Problem     // sorted by name

	// Hosts has a certificate for each host name, sorted by host: of several the one that is
	// valid for the longest time.
	Hosts []HostCertificate
	// Default is the file for all other host names, and for clients that name none: of the
	// certificate DefaultName, or of the first by name. Empty without a certificate.
	Default string

	// NamedAuthorities and NamedPairs have the files that policies name.
	NamedAuthorities map[string]NamedAuthorities // by path
	NamedPairs       map[PairPaths]NamedPair
	// Hidden: nginx's workers can't read copies, its master can.
	Hidden bool
}

// arrange sorts the set, and chooses a certificate for each host.
func (s *Set) arrange(now time.Time) {
	slices.SortFunc(s.Certificates, func(a, b Certificate) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Clients, func(a, b Clients) int { return strings.Compare(a.Host, b.Host) })
	slices.SortStableFunc(s.Problems, func(a, b Problem) int { return strings.Compare(a.Name, b.Name) })
	best := map[string]Certificate{}
	for _, c := range s.Certificates {
		for _, host := range c.Hosts {
			if other, taken := best[host]; !taken || c.better(other, now) {
				best[host] = c
			}
		}
	}
	s.Hosts = nil
	for host, c := range best {
		s.Hosts = append(s.Hosts, HostCertificate{Host: host, File: c.File})
	}
	slices.SortFunc(s.Hosts, func(a, b HostCertificate) int { return strings.Compare(a.Host, b.Host) })
	s.Default = ""
	for _, c := range s.Certificates {
		if s.Default == "" || c.Name == DefaultName {
			s.Default = c.File
		}
	}
}

// better reports whether a host should have c rather than another certificate.
func (c Certificate) better(other Certificate, now time.Time) bool {
	if valid := c.valid(now); valid != other.valid(now) {
		return valid
	}
	return c.NotAfter.After(other.NotAfter)
}

// ClientsOf returns what clients of a host need, nil if they need no certificate.
func (s Set) ClientsOf(host string) *Clients {
	for _, name := range append(wider(host), "") {
		if n, found := slices.BinarySearchFunc(s.Clients, name, func(c Clients, name string) int { return cmp.Compare(c.Host, name) }); found {
			return &s.Clients[n]
		}
	}
	return nil
}

// wider returns the host itself and the wildcards that match it, the longest first.
func wider(host string) []string {
	hosts := []string{host}
	for rest := strings.TrimPrefix(host, "*."); ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return hosts
		}
		hosts = append(hosts, "*."+parent)
		rest = parent
	}
}

// invalid says why the certificate is not valid at a time.
func (c Certificate) invalid(now time.Time) string { return c.expiry(now, 0, "") }

// expiry describes a certificate that has expired or will within the time, "" for any other. soon
// says the time.
func (c Certificate) expiry(now time.Time, before time.Duration, soon string) string {
	at := c.NotAfter.UTC().Format("2006-01-02 15:04 UTC")
	switch {
	case !now.Before(c.NotAfter):
		return fmt.Sprintf("it expired at %s, want a new one", at)
	case now.Add(before).After(c.NotAfter):
		return fmt.Sprintf("it expires at %s, which is in less than %s", at, soon)
	case now.Before(c.NotBefore):
		return fmt.Sprintf("it is not valid before %s", c.NotBefore.UTC().Format("2006-01-02 15:04 UTC"))
	default:
		return ""
	}
}
