package admin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
)

// withPeer is an http.Server's ConnContext. It stores the user at the other end of a
// unix socket, for ownersOnly.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	uid, err := peerUID(conn)
	return context.WithValue(ctx, peerKey{}, peer{uid, err})
}

type peerKey struct{}

// peer is the user of the process that made a connection, as the kernel says.
type peer struct {
	uid int
	err error
}

// ownersOnly refuses requests of users other than root and the daemon's own. The
// socket's mode keeps them away too, but an operator may have changed the mode, and a
// process may have inherited a file descriptor.
func ownersOnly(next http.Handler) http.Handler {
	own := os.Geteuid()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch from, _ := r.Context().Value(peerKey{}).(peer); {
		case from.err != nil:
			writeError(w, http.StatusForbidden, fmt.Errorf("find the user of the request: %w", from.err))
		case from.uid != own && from.uid != 0:
			writeError(w, http.StatusForbidden, fmt.Errorf("user %d may not use the socket, want root or user %d, which runs lbctl", from.uid, own))
		default:
			next.ServeHTTP(w, r)
		}
	})
}
