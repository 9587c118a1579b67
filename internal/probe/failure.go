package probe

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
)

// networkFall is how many times as many failures are needed where the network is the
// reason.
const networkFall = 3

// failuresNeeded is how many failures like err in a row prove that an instance is
// gone; that is fall for most. It is 0 for an error that says nothing about the
// instance but something about this machine, such as no free port or no answer from
// DNS. A network that can't be reached may be ours or the instance's, so it is given
// time to come back.
func failuresNeeded(err error, fall int) int {
	if err == nil {
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
	var timeout net.Error
	switch {
	case errors.As(err, &number):
		return number.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
