package render

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"lbctl/internal/certificates"
	"lbctl/internal/disk"
)

// readCertificates reads the directory with certificates and the files that the policies of the
// table's services name, if their file systems answer.
func (s *Source) readCertificates(ctx context.Context) (certificates.Set, error) {
	wanted := namedFiles(s.table.Entries())
	set, err := s.pairs.Read(ctx, func() (certificates.Set, error) { return s.opts.Certificates.Read(time.Now(), wanted...), nil })
	if errors.Is(err, disk.ErrStalled) {
		err = fmt.Errorf("read certificates: %w", err)
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

// readNewlyNamed reads the certificates, if a service's policy names files that were not read yet.
func (s *Source) readNewlyNamed(ctx context.Context) {
	wanted := namedFiles(s.table.Entries())
	if s.opts.Certificates == nil || !slices.ContainsFunc(wanted, func(n certificates.Named) bool { return !s.certificates.Knows(n) }) {
		return
	}
	set, err := s.readCertificates(ctx)
	if err != nil {
		return // watchCertificates says so
	}
	s.noteCertificates(set)
	s.certificates = set
}

// useRenewed takes certificates into use. Services that nginx refused because of their files are
// tried again when these are good.
func (s *Source) useRenewed(set certificates.Set) {
	if set.Mends(s.certificates) {
		s.table.RetryRefused()
	}
	s.certificates = set
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
	for paths, p := range set.NamedPairs {
		if before, known := was.NamedPairs[paths]; known && before.Sum != p.Sum {
			s.logger.Info("certificate of a policy is used", "file", paths.Certificate, "expires", p.NotAfter)
		}
	}
	for path, a := range set.NamedAuthorities {
		if before, known := was.NamedAuthorities[path]; known && !bytes.Equal(before.PEM, a.PEM) {
			s.logger.Info("authorities of a policy are used", "file", path)
		}
	}
	return true
}
