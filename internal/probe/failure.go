package probe

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"time"
)

// networkFall multiplies the necessary failures if the network is the reason.
const networkFall = 3

// lateness is how long after its deadline a probe's failure still counts.
const lateness = 250 * time.Millisecond

// errLate is the error of a probe that this machine was too busy to watch.
var errLate = errors.New("this machine was too busy to see an answer in time")

// unlessLate returns err, or errLate if a timeout was noticed long after the deadline: the
// answer may have been there in time.
func unlessLate(err error, deadline time.Time) error {
	if isTimeout(err) && time.Since(deadline) > lateness {
		return errLate
	}
	return err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// failuresNeeded returns how many failures like err in a row prove that an instance is gone.
// That is fall for most errors. It is 0 for an error of this machine, such as no free port or no
// answer from DNS, which says nothing about the instance. If the network is unreachable, either
// side can be the cause, so more failures are needed.
func failuresNeeded(err error, fall int) int {
	if err == nil || errors.Is(err, errLate) {
		return 0
	}
	for _, ours := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS} {
		if errors.Is(err, ours) {
			return 0
		}
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && !dns.IsNotFound {
		return 0
	}
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.ENETDOWN) {
		return networkFall * fall
	}
	return fall
}

// reason describes a failure in a few words.
func reason(err error) string {
	var number syscall.Errno
	switch {
	case errors.As(err, &number):
		return number.Error()
	case isTimeout(err):
		return "no answer in time"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
