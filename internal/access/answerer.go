package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The headers between nginx and the answerer. Clients can't send them: nginx passes on only its
// own and those with keys.
const (
	headerService = "X-Lb-Service" // the request's service
	headerKinds   = "X-Lb-Auth"    // the kinds of keys that its policy accepts, separated by spaces
	headerUser    = "X-Lb-User"    // in the answer: the key's name
)

// Limits of passwords that are checked. Each check takes a core some 20 ms and 19 MiB, so that
// strangers with wrong passwords must not keep lbctl from its work.
const (
	checksAtOnce   = 1
	checksWaiting  = 64
	checkPatience  = 5 * time.Second
	cachePasswords = 10_000
	cacheWrong     = time.Minute // how long a wrong password is remembered
)

// An Answerer answers nginx's question, for each request to a service that wants authentication,
// whether the request may pass: 204 with the key's name, 401 without a good key, 403 with a key
// that is not good for the service, 503 if the keys are not known.
type Answerer struct {
	keeper *Keeper
	now    func() time.Time
	slots  chan struct{} // one for each check of a password at a time
	queue  chan struct{} // one for each that waits or runs

	secret [sha256.Size]byte // of the cache, random
	mu     sync.Mutex
	cache  map[[sha256.Size]byte]checked
}

// checked is the result of a password's check.
type checked struct {
	good bool
	at   time.Time
}

// NewAnswerer makes an Answerer with the keys of a keeper.
func NewAnswerer(keeper *Keeper) *Answerer {
	a := &Answerer{
		keeper: keeper, now: time.Now, cache: map[[sha256.Size]byte]checked{},
		slots: make(chan struct{}, checksAtOnce), queue: make(chan struct{}, checksAtOnce+checksWaiting),
	}
	rand.Read(a.secret[:]) // never fails
	return a
}

// Listen listens on a unix socket that only the user with the id can use, beside root; -1 is the
// own user. It removes the socket of an earlier daemon: the caller must hold the daemon's lock.
// It must run before the first goroutine, because it changes the umask.
func Listen(path string, uid int) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: remove what is there: %w", path, err)
	}
	mask := syscall.Umask(0o177)
	listener, err := net.Listen("unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if uid >= 0 {
		if err := os.Chown(path, uid, -1); err != nil {
			return nil, errors.Join(fmt.Errorf("give the socket %s to nginx's workers: %w", path, err), listener.Close())
		}
	}
	return listener, nil
}

// Run answers on the listener until ctx is done.
func (a *Answerer) Run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           a,
		ReadHeaderTimeout: 10 * time.Second,
		// nginx keeps its connections for a minute.
		IdleTimeout: 5 * time.Minute,
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); ctx.Err() == nil {
		return fmt.Errorf("answer whether requests may pass: %w", err)
	}
	return ctx.Err()
}

// ServeHTTP answers one question of nginx.
func (a *Answerer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := Question{
		Service: r.Header.Get(headerService), Kinds: strings.Fields(r.Header.Get(headerKinds)),
		Authorization: r.Header.Get("Authorization"), APIKey: r.Header.Get("X-API-Key"),
	}
	answer := a.Answer(r.Context(), q)
	switch answer.Status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", challenge(q.Kinds, q.Service))
	case http.StatusNoContent:
		w.Header().Set(headerUser, answer.Key)
	}
	w.WriteHeader(answer.Status)
}

// Question is the question whether a request may pass.
type Question struct {
	Service               string
	Kinds                 []string // of keys that the service's policy accepts
	Authorization, APIKey string   // the request's headers Authorization and X-API-Key
}

// Answer is the answer to a Question.
type Answer struct {
	Status int    // of HTTP, see Answerer
	Key    string // the name of the request's key, also if that is over or not good for the service
}

// Answer answers a question.
func (a *Answerer) Answer(ctx context.Context, q Question) Answer {
	keys, known := a.keeper.current()
	if !known {
		return Answer{Status: http.StatusServiceUnavailable}
	}
	key, err := a.find(ctx, q, keys)
	switch {
	case err != nil:
		return Answer{Status: http.StatusServiceUnavailable}
	case key == nil:
		return Answer{Status: http.StatusUnauthorized}
	case key.over(a.now()):
		return Answer{http.StatusUnauthorized, key.Name}
	case !key.goodFor(q.Service):
		return Answer{http.StatusForbidden, key.Name}
	default:
		return Answer{http.StatusNoContent, key.Name}
	}
}

// challenge tells a client what to send. A browser asks for a name and a password after Basic.
func challenge(kinds []string, service string) string {
	scheme := "Bearer"
	if slices.Contains(kinds, Basic) {
		scheme = "Basic"
	}
	return fmt.Sprintf("%s realm=%q", scheme, service) // a service's name has nothing to escape
}

// find returns the key of a request; nil if it has none that is right. The error says that a
// password could not be checked now.
func (a *Answerer) find(ctx context.Context, q Question, keys *keys) (*Key, error) {
	if slices.Contains(q.Kinds, APIKey) {
		text := q.APIKey
		if scheme, token, ok := strings.Cut(q.Authorization, " "); text == "" && ok && strings.EqualFold(scheme, "Bearer") {
			text = strings.TrimSpace(token)
		}
		// The map is searched by the hash: how long that takes says nothing about keys.
		if key := keys.bySum[sha256.Sum256([]byte(text))]; key != nil {
			return key, nil
		}
	}
	header := http.Request{Header: http.Header{"Authorization": {q.Authorization}}}
	name, text, ok := header.BasicAuth()
	if !ok || !slices.Contains(q.Kinds, Basic) {
		return nil, nil
	}
	key := keys.byName[name]
	if key == nil {
		return nil, nil
	}
	good, err := a.check(ctx, key, text)
	if !good {
		key = nil
	}
	return key, err
}

var errBusy = errors.New("too many passwords are being checked")

// check checks a password. It is slow, so its result is kept under a keyed hash, from which
// nobody who reads lbctl's memory later can try passwords quickly without the secret.
func (a *Answerer) check(ctx context.Context, key *Key, text string) (bool, error) {
	mac := hmac.New(sha256.New, a.secret[:])
	fmt.Fprintf(mac, "%d %s%s", len(key.hash), key.hash, text)
	place := [sha256.Size]byte(mac.Sum(nil))
	if good, known := a.cached(place); known {
		return good, nil
	}
	select {
	case a.queue <- struct{}{}:
		defer func() { <-a.queue }()
	default:
		return false, errBusy
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return false, errBusy
	}
	if good, known := a.cached(place); known { // checked while this one waited
		return good, nil
	}
	p, err := parsePassword(key.hash)
	good := err == nil && p.matches(text)
	a.mu.Lock()
	defer a.mu.Unlock()
	for old := range a.cache { // of any password: the map gives them in random order
		if len(a.cache) < cachePasswords {
			break
		}
		delete(a.cache, old)
	}
	a.cache[place] = checked{good, a.now()}
	return good, nil
}

// cached returns the result of an earlier check. Another hash, after the password was changed, has
// another place.
func (a *Answerer) cached(place [sha256.Size]byte) (good, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, known := a.cache[place]
	return c.good, known && (c.good || a.now().Sub(c.at) < cacheWrong)
}
