package admin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
)

// withPeer is an http.Server's ConnContext: it notes who is at the other end of a
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

// ownersOnly refuses requests of other users than the daemon's own and root. The
// socket's mode already keeps them away; this holds too where somebody has opened
// it, and where a process got a file descriptor of it.
func ownersOnly(next http.Handler) http.Handler {
	own := os.Geteuid()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch from, _ := r.Context().Value(peerKey{}).(peer); {
		case from.err != nil:
			fail(w, http.StatusForbidden, fmt.Errorf("cannot find out which user asks: %w", from.err))
		case from.uid != own && from.uid != 0:
			fail(w, http.StatusForbidden, fmt.Errorf("user %d asks, and the socket is for user %d, who runs lbctl, and for root", from.uid, own))
		default:
			next.ServeHTTP(w, r)
		}
	})
}
