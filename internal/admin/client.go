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
	"lbctl/internal/history"
	"lbctl/internal/printable"
)

// ErrUnreachable means that no daemon answered. Errors that wrap it name the
// addresses that were tried, and a remedy.
var ErrUnreachable = errors.New("no daemon answered")

// An Error is an error answer of the daemon.
type Error struct {
	Status  int // HTTP status code
	Message string
}

func (e *Error) Error() string { return e.Message }

// Timeouts of requests. A POST may be a rollback, which tests a generation, reloads
// nginx and verifies it, up to twice.
const (
	getTimeout  = 15 * time.Second
	postTimeout = 90 * time.Second
)

// A Client sends requests to a daemon's HTTP API.
type Client struct {
	remotes   []remote
	printable bool
}

// A remote is an address at which a daemon may listen.
type remote struct {
	address string // as shown in messages
	base    string // the start of URLs
	http    *http.Client
}

// NewClient returns a client for the daemon at the first of the addresses that
// accepts a connection. An address is "unix:///path/admin.sock", or
// "http://127.0.0.1:9119", which may omit the scheme.
func NewClient(addresses ...string) (*Client, error) {
	client := new(Client)
	for _, address := range addresses {
		remote, err := newRemote(address)
		if err != nil {
			return nil, err
		}
		client.remotes = append(client.remotes, remote)
	}
	if len(client.remotes) == 0 {
		return nil, errors.New("no address of a daemon was given")
	}
	return client, nil
}

// Printable makes the client escape all text in answers, so that it is safe to print
// on a terminal, see package printable. Programs need the exact text.
func (c *Client) Printable() *Client {
	c.printable = true
	return c
}

func newRemote(address string) (remote, error) {
	network, target, base := "unix", strings.TrimPrefix(address, "unix://"), "http://lbctl"
	if target != address {
		if !strings.HasPrefix(target, "/") {
			return remote{}, fmt.Errorf("address %q: want unix:// and an absolute path, such as unix:///var/lib/lbctl/run/admin.sock", address)
		}
	} else {
		if !strings.Contains(address, "://") {
			address = "http://" + address
		}
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return remote{}, fmt.Errorf("address %q: want http://HOST:PORT or unix:///PATH", target)
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(DefaultPort))
		}
		network, target, base = "tcp", u.Host, "http://"+u.Host
		address = base
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return remote{
		address: address,
		base:    base,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, target)
			},
			// A watch sends a request per second for hours; one connection is enough.
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     30 * time.Second,
		}},
	}, nil
}

// Status returns the state of nginx, Consul and the daemon.
func (c *Client) Status(ctx context.Context) (controller.Status, error) {
	return get[controller.Status](ctx, c, "/v1/status")
}

// Services returns the balanced services, sorted by name.
func (c *Client) Services(ctx context.Context) ([]Service, error) {
	return get[[]Service](ctx, c, "/v1/services")
}

// Service returns one service. For an unknown name the error is an *Error with status
// 404, which lists the known ones.
func (c *Client) Service(ctx context.Context, name string) (Service, error) {
	return get[Service](ctx, c, "/v1/services/"+url.PathEscape(name))
}

// Policy returns what holds for the requests of a service's path; "" is the whole service. For
// an unknown service the error is an *Error with status 404, which lists the known ones.
func (c *Client) Policy(ctx context.Context, service, path string) (ServicePolicy, error) {
	return get[ServicePolicy](ctx, c, "/v1/services/"+url.PathEscape(service)+"/policy?path="+url.QueryEscape(path))
}

// Routes returns nginx's listeners with their routes.
func (c *Client) Routes(ctx context.Context) (Routes, error) {
	return get[Routes](ctx, c, "/v1/routes")
}

// Explain says what becomes of a request. For a request that can't be made, or a listener that
// does not exist, the error is an *Error with status 400.
func (c *Client) Explain(ctx context.Context, r Request) (Explanation, error) {
	return get[Explanation](ctx, c, "/v1/explain?"+r.query().Encode())
}

// History returns the recorded events, newest first.
func (c *Client) History(ctx context.Context) ([]history.Event, error) {
	return get[[]history.Event](ctx, c, "/v1/history")
}

// Generations returns the generations on disk, newest first, without their files.
func (c *Client) Generations(ctx context.Context) ([]Generation, error) {
	return get[[]Generation](ctx, c, "/v1/generations")
}

// Diff compares two generations. If to is 0, it is the current one. If from is 0, it is
// the one before to.
func (c *Client) Diff(ctx context.Context, from, to int) (Diff, error) {
	return get[Diff](ctx, c, fmt.Sprintf("/v1/diff?from=%d&to=%d", from, to))
}

// Rollback makes nginx serve a generation, and pins it until Resume. Number 0 is the
// generation before the current one.
func (c *Client) Rollback(ctx context.Context, number int) (Rolled, error) {
	return post[Rolled](ctx, c, "/v1/rollback", RollbackRequest{Generation: number})
}

// Resume makes the daemon follow Consul again.
func (c *Client) Resume(ctx context.Context) (Resumed, error) {
	return post[Resumed](ctx, c, "/v1/resume", struct{}{})
}

// Accept removes the held instances of a service, or of all if service is "", from rotation.
func (c *Client) Accept(ctx context.Context, service string) (Accepted, error) {
	return post[Accepted](ctx, c, "/v1/accept", AcceptRequest{Service: service})
}

// Ready returns the daemon's line that nginx answers. If nginx does not answer, the
// error is an *Error with the reason.
func (c *Client) Ready(ctx context.Context) (string, error) {
	body, err := c.ask(ctx, http.MethodGet, "/readyz", nil)
	return strings.TrimSpace(string(body)), err
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	body, err := c.ask(ctx, http.MethodGet, path, nil)
	return decode[T](c, body, path, err)
}

func post[T any](ctx context.Context, c *Client, path string, request any) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
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
		return answer, fmt.Errorf("%s: not an answer of lbctl: %w", withoutQuery(path), err)
	}
	if !c.printable {
		return answer, nil
	}
	switch any(answer).(type) {
	case Diff: // keeps its line breaks
		printable.FieldsOfLines(&answer)
	default:
		printable.Fields(&answer)
	}
	return answer, nil
}

// maxAnswer limits the size of an answer in bytes. The files of two generations with
// thousands of services fit.
const maxAnswer = 256 << 20

// ask sends the request to the first remote that accepts a connection.
func (c *Client) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	response, err := c.open(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", withoutQuery(path), err)
	}
	return answer, nil
}

// open sends the request to the first remote that accepts a connection. The caller closes the
// answer's body.
func (c *Client) open(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	var tried []string
	remedy := "is 'lbctl run' running? Give its address with --addr or LBCTL_ADDR"
	for _, remote := range c.remotes {
		response, err := remote.open(ctx, method, path, body)
		var connect *connectError
		var apiErr *Error
		if errors.As(err, &apiErr) && c.printable {
			apiErr.Message = printable.Line(apiErr.Message)
		}
		if !errors.As(err, &connect) {
			return response, err
		}
		if connect.denied {
			remedy = "run the command as the user that lbctl runs as, or use HTTP with --addr"
		}
		tried = append(tried, fmt.Sprintf("%s (%s)", remote.address, connect.reason))
	}
	return nil, fmt.Errorf("%w at %s; %s", ErrUnreachable, strings.Join(tried, " or "), remedy)
}

// A connectError says why a remote did not accept a connection or answer.
type connectError struct {
	reason string
	denied bool // this user may not use the socket
}

func (e *connectError) Error() string { return e.reason }

// open returns the daemon's answer. An answer with another status than 200 is an error.
func (r remote) open(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, r.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request %s%s: %w", r.address, path, err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := r.http.Do(request)
	if err != nil {
		return nil, connectErrorOf(ctx, err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	path = withoutQuery(path)
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s%s: %w", r.address, path, err)
	}
	var failed errorAnswer
	switch {
	case json.Unmarshal(answer, &failed) == nil && failed.Error != "":
	case path == "/readyz" && response.StatusCode == http.StatusServiceUnavailable:
		failed.Error = strings.TrimSpace(string(answer))
	default:
		failed.Error = fmt.Sprintf("%s%s: %s, which is not an answer of lbctl", r.address, path, response.Status)
	}
	return nil, &Error{Status: response.StatusCode, Message: failed.Error}
}

// withoutQuery is a path for messages, which don't repeat the query, because it can have a key.
func withoutQuery(path string) string {
	path, _, _ = strings.Cut(path, "?")
	return path
}

// connectErrorOf turns an error of the net package into a plain message.
func connectErrorOf(ctx context.Context, err error) error {
	var timeout net.Error
	var op *net.OpError
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the URL, because that can have a key
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case errors.Is(err, fs.ErrNotExist):
		return &connectError{reason: "the socket does not exist"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &connectError{reason: "connection refused"}
	case errors.Is(err, fs.ErrPermission):
		return &connectError{reason: "permission denied", denied: true}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &connectError{reason: "no answer in time"}
	case errors.As(err, &op):
		return &connectError{reason: op.Err.Error()}
	default:
		return &connectError{reason: err.Error()}
	}
}
