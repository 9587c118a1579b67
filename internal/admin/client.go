package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lbctl/internal/controller"
	"lbctl/internal/printable"
)

// ErrUnreachable means that no daemon answered. Errors that wrap it say what
// was tried, and what to do.
var ErrUnreachable = errors.New("no daemon answered")

// An Error is the daemon's answer that it did not do, or could not do, what it
// was asked.
type Error struct {
	Status  int // HTTP's
	Message string
}

func (e *Error) Error() string { return e.Message }

// How long a daemon may take: to answer a question, and for a rollback, which
// tests, reloads and verifies, and may have to do so twice.
const (
	askTimeout = 15 * time.Second
	actTimeout = 90 * time.Second
)

// A Client asks a daemon over its HTTP API.
type Client struct {
	places    []place
	printable bool
}

// A place is where a daemon may listen.
type place struct {
	address string // for people
	base    string // of URLs
	http    *http.Client
}

// NewClient gives a client for the daemon at the first of the addresses that
// accepts a connection. An address is "unix:///path/admin.sock", or
// "http://127.0.0.1:9119", where the scheme may be left out.
func NewClient(addresses ...string) (*Client, error) {
	client := new(Client)
	for _, address := range addresses {
		place, err := newPlace(address)
		if err != nil {
			return nil, err
		}
		client.places = append(client.places, place)
	}
	if len(client.places) == 0 {
		return nil, errors.New("no address of a daemon was given")
	}
	return client, nil
}

// Printable has the client make all text in answers safe to print on a terminal, see
// package printable. Answers that programs read are better left as they are.
func (c *Client) Printable() *Client {
	c.printable = true
	return c
}

func newPlace(address string) (place, error) {
	network, target, base := "unix", strings.TrimPrefix(address, "unix://"), "http://lbctl"
	if target != address {
		if !strings.HasPrefix(target, "/") {
			return place{}, fmt.Errorf("address %q: want unix:// and an absolute path, such as unix:///var/lib/lbctl/run/admin.sock", address)
		}
	} else {
		if !strings.Contains(address, "://") {
			address = "http://" + address
		}
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return place{}, fmt.Errorf("address %q: want http://HOST:PORT or unix:///PATH", target)
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(DefaultPort))
		}
		network, target, base = "tcp", u.Host, "http://"+u.Host
		address = base
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return place{
		address: address,
		base:    base,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, target)
			},
			// A watch asks once a second for hours; one connection is enough.
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     30 * time.Second,
		}},
	}, nil
}

// Status is how the balancer is doing.
func (c *Client) Status(ctx context.Context) (controller.Status, error) {
	return get[controller.Status](ctx, c, "/v1/status")
}

// Services are the balanced services, by name.
func (c *Client) Services(ctx context.Context) ([]Service, error) {
	return get[[]Service](ctx, c, "/v1/services")
}

// Service is one service; an *Error with status 404 says which ones there are.
func (c *Client) Service(ctx context.Context, name string) (Service, error) {
	return get[Service](ctx, c, "/v1/services/"+url.PathEscape(name))
}

// History is what happened, newest first.
func (c *Client) History(ctx context.Context) ([]controller.Event, error) {
	return get[[]controller.Event](ctx, c, "/v1/history")
}

// Generations are those on disk, newest first, without their files.
func (c *Client) Generations(ctx context.Context) ([]Generation, error) {
	return get[[]Generation](ctx, c, "/v1/generations")
}

// Diff compares two generations. A zero to is the current one, a zero from the
// one before to.
func (c *Client) Diff(ctx context.Context, from, to int) (Diff, error) {
	return get[Diff](ctx, c, fmt.Sprintf("/v1/diff?from=%d&to=%d", from, to))
}

// Rollback makes nginx serve generation number, 0 being the one before the
// current, and stay with it until Resume.
func (c *Client) Rollback(ctx context.Context, number int) (Rolled, error) {
	return post[Rolled](ctx, c, "/v1/rollback", RollbackRequest{Generation: number})
}

// Resume follows Consul again.
func (c *Client) Resume(ctx context.Context) (Resumed, error) {
	return post[Resumed](ctx, c, "/v1/resume", struct{}{})
}

// Accept takes Consul's word that the held instances are gone.
func (c *Client) Accept(ctx context.Context) (Accepted, error) {
	return post[Accepted](ctx, c, "/v1/accept", struct{}{})
}

// Ready is the daemon's one line on whether nginx answers; the error is an
// *Error with that line when it does not.
func (c *Client) Ready(ctx context.Context) (string, error) {
	body, err := c.ask(ctx, http.MethodGet, "/readyz", nil)
	return strings.TrimSpace(string(body)), err
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	body, err := c.ask(ctx, http.MethodGet, path, nil)
	return decode[T](c, body, path, err)
}

func post[T any](ctx context.Context, c *Client, path string, request any) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, actTimeout)
	defer cancel()
	body, err := json.Marshal(request)
	if err == nil {
		body, err = c.ask(ctx, http.MethodPost, path, body)
	}
	return decode[T](c, body, path, err)
}

func decode[T any](c *Client, body []byte, path string, err error) (T, error) {
	var answer T
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return answer, fmt.Errorf("%s: not an answer of lbctl: %w", path, err)
	}
	if !c.printable {
		return answer, nil
	}
	switch any(answer).(type) {
	case Diff: // whose text has lines
		printable.FieldsOfLines(&answer)
	default:
		printable.Fields(&answer)
	}
	return answer, nil
}

// maxAnswer bounds what is read of an answer: the files of two generations with
// thousands of services fit.
const maxAnswer = 256 << 20

// ask is one request to the first place that can be connected to.
func (c *Client) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	var tried []string
	remedy := "is 'lbctl run' running? Say where with --addr or LBCTL_ADDR"
	for _, place := range c.places {
		answer, err := place.ask(ctx, method, path, body)
		var absent *absentError
		var said *Error
		if errors.As(err, &said) && c.printable {
			said.Message = printable.Line(said.Message)
		}
		if !errors.As(err, &absent) {
			return answer, err
		}
		if absent.denied {
			remedy = "run the command as the user that lbctl runs as, or ask over HTTP with --addr"
		}
		tried = append(tried, fmt.Sprintf("%s (%s)", place.address, absent.reason))
	}
	return nil, fmt.Errorf("%w at %s; %s", ErrUnreachable, strings.Join(tried, " or "), remedy)
}

// An absentError says why nobody could be asked at a place.
type absentError struct {
	reason string
	denied bool // somebody may be there, but not for this user
}

func (e *absentError) Error() string { return e.reason }

func (p place) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, p.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask %s%s: %w", p.address, path, err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := p.http.Do(request)
	if err != nil {
		return nil, whyAbsent(ctx, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s%s: %w", p.address, path, err)
	}
	if response.StatusCode == http.StatusOK {
		return answer, nil
	}
	var said errorAnswer
	switch {
	case json.Unmarshal(answer, &said) == nil && said.Error != "":
	case path == "/readyz" && response.StatusCode == http.StatusServiceUnavailable:
		said.Error = strings.TrimSpace(string(answer))
	default:
		said.Error = fmt.Sprintf("%s%s: %s, which is not an answer of lbctl", p.address, path, response.Status)
	}
	return nil, &Error{Status: response.StatusCode, Message: said.Error}
}

// whyAbsent puts what the net package says into words.
func whyAbsent(ctx context.Context, err error) error {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case errors.Is(err, fs.ErrNotExist):
		return &absentError{reason: "the socket does not exist"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &absentError{reason: "connection refused"}
	case errors.Is(err, fs.ErrPermission):
		return &absentError{reason: "permission denied", denied: true}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &absentError{reason: "no answer in time"}
	case errors.As(err, &op):
		return &absentError{reason: op.Err.Error()}
	default:
		return &absentError{reason: err.Error()}
	}
}
