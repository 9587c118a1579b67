package controller

import (
	"errors"

	"lbctl/internal/history"
	"lbctl/internal/nginx"
)

// kindOf returns the kind of event that the error of an apply is in the history.
func kindOf(err error) history.Kind {
	switch {
	case errors.Is(err, nginx.ErrDegraded):
		return history.NoWayBack
	case errors.Is(err, nginx.ErrRejected):
		return history.Rejected
	case errors.Is(err, nginx.ErrRolledBack):
		return history.RolledBack
	case errors.Is(err, nginx.ErrNotRunning):
		return history.NginxDown
	default:
		return history.Failed
	}
}
