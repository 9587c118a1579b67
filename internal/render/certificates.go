package render

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"lbctl/internal/certificates"
	"lbctl/internal/disk"
)

// readCertificates reads the directory with certificates, if its file system answers.
func (s *Source) readCertificates(ctx context.Context) (certificates.Set, error) {
	set, err := s.pairs.Read(ctx, func() (certificates.Set, error) { return s.opts.Certificates.Read(time.Now()), nil })
	if errors.Is(err, disk.ErrStalled) {
		err = fmt.Errorf("read the directory with certificates: %w", err)
	}
	return set, err
}

// watchCertificates reads the certificates regularly, and passes them on when nginx needs another
// configuration. For a renewed certificate it needs none: the file has the same name.
func (s *Source) watchCertificates(ctx context.Context) error {
	return poll(ctx, s, "certificates", certificatesInterval, s.readCertificates, func(set certificates.Set) error {
		s.renew(set)
		return nil
	})
}

// renew passes certificates to the loop, if they have changed.
func (s *Source) renew(set certificates.Set) {
	if s.noteCertificates(set) {
		latest(s.renewed, set)
	}
}

// noteCertificates keeps certificates and their problems for Status. It reports whether the
// certificates have changed.
func (s *Source) noteCertificates(set certificates.Set) (changed bool) {
	var problems []Problem
	for _, p := range set.Problems {
		subject := CertificatesSubject + "s"
		if p.Name != "" {
			subject = CertificatesSubject + " " + p.Name
		}
		problems = append(problems, Problem{Subject: subject, Message: p.Message})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logNew("certificates", s.tls.set(time.Now(), problems))
	was := s.noted
	s.noted = set
	if reflect.DeepEqual(was, set) {
		return false
	}
	before := make(map[string]certificates.Certificate, len(was.Certificates))
	for _, c := range was.Certificates {
		before[c.Name] = c
	}
	for _, c := range set.Certificates {
		if !reflect.DeepEqual(before[c.Name], c) {
			s.logger.Info("certificate is used", "name", c.Name, "hosts", c.Hosts, "expires", c.NotAfter)
		}
	}
	return true
}
