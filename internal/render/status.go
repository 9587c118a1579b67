package render

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"lbctl/internal/certificates"
	"lbctl/internal/consul"
	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/printable"
)

// Problem is a mistake in the input or a failure, as a sentence for people.
type Problem struct {
	// Subject names who has the problem, such as "service hello_server", "template
	// nginx.conf.ctmpl", "consul" or CredentialsSubject.
	Subject string `json:"subject"`
	Message string `json:"message"`
	// Since is when it was first seen.
	Since time.Time `json:"since"`
	// Sources says who says the values of a service's policy that it is about: keys of the
	// operator's documents, or policy.SourceMetadata.
	Sources []string `json:"sources,omitempty"`
}

// of is what a Problem is about, without its time.
type of struct{ subject, message string }

func (p Problem) of() of { return of{p.Subject, p.Message} }

// CredentialsSubject is the Subject of files with credentials for Consul that can't be used.
// The former credentials are used, so the configuration is as good as without the problem.
const CredentialsSubject = "credentials"

// CertificatesSubject is the Subject, or the first word of the Subject, of certificates for
// nginx's clients that can't be used or will expire. The former ones are used where they can be.
const CertificatesSubject = "certificate"

// PolicySubject begins the Subject of a document of the operator's in Consul's KV store that is
// not about one service. The last good version of the document counts.
const PolicySubject = "policy"

// PolicyProblems returns what problems say of the operator's document with a key, "lb/service/cart":
// the values that have no effect, and why the document can't be read. What is the same for
// several services is there once, with their number.
func PolicyProblems(problems []Problem, key string) (messages []string) {
	others := map[string]int{}
	first := map[string]string{}
	for _, p := range problems {
		if !slices.Contains(p.Sources, key) {
			continue
		}
		message := strings.TrimPrefix(p.Message, key+": ")
		if _, known := first[message]; known {
			others[message]++
			continue
		}
		first[message] = p.Subject
		messages = append(messages, message)
	}
	for n, message := range messages {
		if others[message] > 0 {
			messages[n] += fmt.Sprintf(" (%s and %d more)", first[message], others[message])
		}
	}
	return messages
}

// PolicyKept returns why the newest version of a document of the operator's that is not about one
// service does not count: "it is refused: ...; its last good version is kept". It is "" if it
// counts.
func PolicyKept(problems []Problem, key string) string {
	for _, p := range problems {
		if p.Subject == policySubject(key) {
			return strings.TrimPrefix(p.Message, key+": ")
		}
	}
	return ""
}

func policySubject(key string) string { return PolicySubject + " " + strconv.Quote(key) }

// ServiceSubject returns the Subject for a service. It quotes an invalid name.
func ServiceSubject(name string) string {
	if metadata.ValidName(name) {
		return "service " + name
	}
	return "service " + strconv.Quote(printable.Shorten(name))
}

// problemsOf converts package consul's problems, with their subjects.
func problemsOf(list []consul.Problem) []Problem {
	problems := make([]Problem, len(list))
	for n, p := range list {
		problems[n] = Problem{Subject: "consul", Message: p.Message, Since: p.Since}
		if p.Key != "" {
			problems[n].Sources = []string{p.Key}
		}
		switch {
		case p.Key != "" && p.Service == "":
			problems[n].Subject = policySubject(p.Key)
		case p.Service != "":
			problems[n].Subject = ServiceSubject(p.Service)
		case p.Credentials:
			problems[n].Subject = CredentialsSubject
		}
	}
	return problems
}

// Status is the state of Consul, the problems, and the services.
type Status struct {
	Consul consul.Status `json:"consul"`
	// Problems has the problems of Consul, the services and the templates.
	Problems []Problem `json:"problems,omitempty"`
	// Certificates are those that nginx shows to its clients, sorted by name.
	Certificates []certificates.Certificate `json:"certificates,omitempty"`
	// Entries has the services as they are to be served, sorted by name.
	Entries []endpoints.Entry `json:"entries,omitempty"`
	// AccessIndex is Consul's index of the newest answer about access: the keys in it count.
	AccessIndex uint64 `json:"access_index"`
}

// ledger is a list of problems that records when each was first seen. The zero value is
// empty.
type ledger struct{ problems []Problem }

// set replaces the list, and returns the problems that were not in it.
func (l *ledger) set(now time.Time, problems []Problem) (added []Problem) {
	seen := make(map[of]time.Time, len(l.problems))
	for _, p := range l.problems {
		seen[p.of()] = p.Since
	}
	var dated []Problem
	listed := make(map[of]bool, len(problems))
	for _, p := range problems {
		if listed[p.of()] {
			continue
		}
		listed[p.of()] = true
		since, old := seen[p.of()]
		if !old {
			since = now
		}
		p.Since = since
		dated = append(dated, p)
		if !old {
			added = append(added, p)
		}
	}
	l.problems = dated
	return added
}
