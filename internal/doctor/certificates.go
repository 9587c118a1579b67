package doctor

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"lbctl/internal/certificates"
	"lbctl/internal/daemon"
)

// checkCertificates reads the operator's directory as the daemon does, and looks whether nginx's
// workers may read the copies.
func checkCertificates(_ context.Context, e *examination) []Finding {
	if e.Config.Nginx.Certificates == "" {
		return ok("--certificates is not given: there is no listener with TLS")
	}
	store, err := certificates.Open(certificates.Options{Dir: e.Config.Nginx.Certificates, ReadOnly: true})
	if err != nil {
		return failed(err.Error(), "a directory with certificates")
	}
	now := e.Now()
	set := store.Read(now)
	var findings []Finding
	for _, p := range set.Problems {
		found := p.Message
		if p.Name != "" {
			found = fmt.Sprintf("certificate %s: %s", p.Name, p.Message)
		}
		valid := slices.ContainsFunc(set.Certificates, func(c certificates.Certificate) bool {
			return c.Name == p.Name && now.After(c.NotBefore) && now.Before(c.NotAfter)
		})
		if valid {
			findings = append(findings, warning(found, "a new one in time")...)
		} else {
			findings = append(findings, failed(found, "valid certificates in "+e.Config.Nginx.Certificates)...)
		}
	}
	findings = append(findings, e.unreadable()...)
	if len(findings) > 0 {
		return findings
	}
	return ok("%s for %s, all valid for more than two weeks", plural(len(set.Certificates), "certificate"), plural(len(set.Hosts), "host name"))
}

// unreadable finds the copies of certificates that nginx's workers may not read. They read one
// when a client names its host.
func (e *examination) unreadable() []Finding {
	settings, err := e.Config.Nginx.Settings(e.Config.StateDir, e.Config.RunDir, e.nginx.build)
	if err != nil || settings.User == "" { // they run as the user of lbctl
		return nil
	}
	who, err := user.Lookup(settings.User)
	if err != nil {
		return nil // the check nginx-user says it
	}
	groups, err := who.GroupIds()
	if err != nil {
		return nil
	}
	const how = "start lbctl run again: it sets the modes of its copies; chmod o+x the directories above"
	dir := daemon.CertificatesDir(e.Config.StateDir)
	if closed := closedFor(who, dir); closed != "" {
		return mend(failed(fmt.Sprintf("the user %s of nginx's workers can't read the copies of certificates in %s: %s is closed for it", who.Username, dir, closed),
			"directories that it may pass through"), how)
	}
	copies, _ := filepath.Glob(filepath.Join(dir, "*.pem")) // its pattern is valid
	for _, file := range copies {
		if info, err := os.Stat(file); err == nil && !allowed(who, groups, info, 4) {
			return mend(failed(fmt.Sprintf("the user %s of nginx's workers may not read %s, which has the mode %s", who.Username, file, info.Mode().Perm()),
				"a file that it may read"), how)
		}
	}
	return nil
}

// allowed reports whether a user has a right (4: read, 1: pass) to a file, by its mode.
func allowed(who *user.User, groups []string, info os.FileInfo, right os.FileMode) bool {
	stat, is := info.Sys().(*syscall.Stat_t)
	if !is {
		return true
	}
	mode := info.Mode().Perm()
	if strconv.Itoa(int(stat.Uid)) == who.Uid {
		return mode&(right<<6) != 0
	}
	if slices.Contains(groups, strconv.Itoa(int(stat.Gid))) {
		return mode&(right<<3) != 0
	}
	return mode&right != 0
}
