package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"lbctl/internal/access"
	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
)

// A Controller is the API's view of the daemon's loop.
type Controller interface {
	Status(ctx context.Context) controller.Status
	Pinned() controller.Pinned
	Routing() controller.Routing
	History() []history.Event
	Rollback(ctx context.Context, number int) (nginx.Generation, error)
	Resume(ctx context.Context) error
}

// Services is the API's view of the endpoint table.
type Services interface {
	Entries() []endpoints.Entry
	Accept(service string) int
}

// Generations is the API's view of the generations on disk.
type Generations interface {
	Current() (nginx.Generation, error)
	Generations() ([]nginx.Generation, error)
	Files(number int) (map[string][]byte, error)
	Serving(ctx context.Context) (int, error)
}

// A Server is the daemon's HTTP API.
type Server struct {
	Controller  Controller
	Services    Services
	Generations Generations
	// Catalog says why a service is not balanced; default none.
	Catalog Catalog
	// Denies says why clients at an address can't use a service; "" if they can. The zero address
	// stands for all that have no rule of their own. Default: all can.
	Denies func(address netip.Addr, service string) string
	// Authenticates says whether a request has a good key, as nginx is told. Default: not known.
	Authenticates func(context.Context, access.Question) access.Answer
	// Denials returns how many rules deny networks the use of a service. Default: 0.
	Denials func(service string) int
	// AllowedHosts are host names that the API accepts over TCP, besides "localhost"
	// and the machine's own: "lb.example.com", "*.example.org" for all names below it,
	// "*" for any; default none. It always accepts IP addresses.
	AllowedHosts []string
	// Handlers are further ones, by a pattern of http.ServeMux: "GET /metrics". Default none.
	Handlers map[string]http.Handler
	Logger   *slog.Logger
}

// Limits for clients: times, and sizes in bytes.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
	maxBody       = 16 << 10
)

// changeTimeout limits a rollback or a resume. Both continue if the client disconnects,
// because they must not stop halfway.
const changeTimeout = postTimeout - 5*time.Second

// Run serves the API on the listeners until ctx is done. On unix sockets it serves
// everything, to root and the daemon's own user; on other sockets it is read-only. When
// ctx is done, it gives running requests a second, and closes the listeners.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, listener := range listeners {
		handler := s.Handler()
		if listener.Addr().Network() == "unix" {
			handler = ownersOnly(handler)
		} else {
			handler = newHosts(s.AllowedHosts).restrict(readOnly(handler, runDir(listeners)))
		}
		server := &http.Server{
			Handler:           handler,
			ConnContext:       withPeer,
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      postTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
		}
		group.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve the admin API on %s: %w", listener.Addr(), err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if server.Shutdown(last) != nil {
				_ = server.Close() // a client that hangs must not delay the end of the daemon
			}
			return nil
		})
	}
	return group.Wait()
}

// runDir returns the directory of the unix socket among the listeners, "DIR" if there is
// none.
func runDir(listeners []net.Listener) string {
	for _, listener := range listeners {
		if path := listener.Addr().String(); listener.Addr().Network() == "unix" {
			if absolute, err := filepath.Abs(path); err == nil {
				path = absolute
			}
			return filepath.Dir(path)
		}
	}
	return "DIR"
}

// readOnly refuses requests that change something. The error names the run directory, with
// which a command finds the socket.
func readOnly(next http.Handler, runDir string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			writeError(w, http.StatusForbidden, fmt.Errorf("the HTTP address is read-only, and this command needs the daemon's unix socket: "+
				"run it on the daemon's machine as root or the daemon's user, with --run-dir %s; if the daemon is in a container, run it there "+
				"(docker-compose exec load-balancer lbctl ...)", runDir))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Handler returns the whole API, without access control.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, s.Controller.Status(r.Context()))
	})
	mux.HandleFunc("GET /v1/services", s.services)
	mux.HandleFunc("GET /v1/services/{name}", s.service)
	mux.HandleFunc("GET /v1/services/{name}/policy", s.policy)
	mux.HandleFunc("GET /v1/routes", s.routes)
	mux.HandleFunc("GET /v1/explain", s.explain)
	mux.HandleFunc("GET /v1/history", s.history)
	mux.HandleFunc("GET /v1/generations", s.generations)
	mux.HandleFunc("GET /v1/generations/{number}", s.generation)
	mux.HandleFunc("GET /v1/diff", s.diff)
	mux.HandleFunc("POST /v1/rollback", s.rollback)
	mux.HandleFunc("POST /v1/resume", s.resume)
	mux.HandleFunc("POST /v1/accept", s.accept)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeLine(w, http.StatusOK, "lbctl runs") })
	mux.HandleFunc("GET /livez", s.live)
	mux.HandleFunc("GET /readyz", s.ready)
	for pattern, handler := range s.Handlers {
		mux.Handle(pattern, handler)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		handler, pattern := mux.Handler(r)
		if pattern == "" { // the mux's own error answers are not JSON
			s.unknown(w, r, handler)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// unknown answers requests with an unknown path or method.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request, refuse http.Handler) {
	recorded := &recorder{header: http.Header{}}
	refuse.ServeHTTP(recorded, r)
	if recorded.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", recorded.header.Get("Allow"))
		writeError(w, http.StatusMethodNotAllowed, fmt.Errorf("%s takes %s, not %s", r.URL.Path, recorded.header.Get("Allow"), r.Method))
		return
	}
	writeError(w, http.StatusNotFound, fmt.Errorf("there is nothing at %s; try /v1/status", r.URL.Path))
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }

func (s *Server) services(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, ServicesOf(s.Services.Entries(), s.Controller.Pinned()))
}

func (s *Server) service(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	var names []string
	for _, entry := range s.Services.Entries() {
		if entry.Name == name {
			writeJSON(w, serviceOf(entry, s.Controller.Pinned()))
			return
		}
		names = append(names, entry.Name)
	}
	writeError(w, http.StatusNotFound, s.notBalanced(name, names))
}

// firstNames lists up to ten names.
func firstNames(names []string) string {
	const most = 10
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func (s *Server) history(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, append([]history.Event{}, s.Controller.History()...))
}

func (s *Server) generations(w http.ResponseWriter, _ *http.Request) {
	all, current, err := s.all()
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	result := []Generation{}
	for _, generation := range all {
		result = append(result, Generation{Generation: generation, Current: generation.Number == current})
	}
	writeJSON(w, result)
}

// all returns every generation on disk, newest first, and the number of the current
// one, 0 if there is none yet.
func (s *Server) all() ([]nginx.Generation, int, error) {
	all, err := s.Generations.Generations()
	if err != nil {
		return nil, 0, err
	}
	for n := range all {
		all[n].Upstreams = nil // long, and for lbctl only
	}
	current, err := s.Generations.Current()
	return all, current.Number, err
}

func (s *Server) generation(w http.ResponseWriter, r *http.Request) {
	number, err := numberOf("generation", r.PathValue("number"))
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	all, current, err := s.all()
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	found, err := find(all, number)
	if err != nil {
		writeError(w, http.StatusNotFound, err)
		return
	}
	files, err := s.Generations.Files(number)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	result := Generation{Generation: found, Current: number == current, Files: map[string]string{}}
	for name, content := range files {
		result.Files[name] = string(content)
	}
	writeJSON(w, result)
}

func find(all []nginx.Generation, number int) (nginx.Generation, error) {
	i := slices.IndexFunc(all, func(g nginx.Generation) bool { return g.Number == number })
	if i >= 0 {
		return all[i], nil
	}
	if len(all) == 0 {
		return nginx.Generation{}, errors.New("there is no generation yet")
	}
	return nginx.Generation{}, fmt.Errorf("there is no generation %d on disk; want one of %d to %d, see 'lbctl history'",
		number, all[len(all)-1].Number, all[0].Number)
}

// servedBefore returns the newest generation older than number that nginx has served.
// A rollback must not go to one that nginx refused.
func servedBefore(all []nginx.Generation, number int) (nginx.Generation, error) {
	if number == 0 {
		return nginx.Generation{}, errors.New("there is no generation yet")
	}
	for _, generation := range all {
		if generation.Number < number && !generation.Served.IsZero() {
			return generation, nil
		}
	}
	return nginx.Generation{}, fmt.Errorf("there is no generation before %d on disk that nginx has served", number)
}

func (s *Server) diff(w http.ResponseWriter, r *http.Request) {
	var numbers [2]int
	for i, name := range []string{"from", "to"} {
		given := r.URL.Query().Get(name)
		if given == "" {
			continue
		}
		number, err := strconv.Atoi(given)
		if err != nil || number < 0 {
			writeError(w, http.StatusBadRequest, fmt.Errorf("%s %q: want the number of a generation", name, given))
			return
		}
		numbers[i] = number
	}
	from, to := numbers[0], numbers[1]
	all, current, err := s.all()
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	if to == 0 {
		to = current
	}
	if from == 0 {
		older, err := servedBefore(all, to)
		if err != nil {
			writeError(w, http.StatusNotFound, err)
			return
		}
		from = older.Number
	}
	var files [2]map[string][]byte
	for i, number := range []int{from, to} {
		if _, err := find(all, number); err != nil {
			writeError(w, http.StatusNotFound, err)
			return
		}
		if files[i], err = s.Generations.Files(number); err != nil {
			writeError(w, http.StatusInternalServerError, err)
			return
		}
	}
	writeJSON(w, diffOf(from, to, files[0], files[1]))
}

func (s *Server) rollback(w http.ResponseWriter, r *http.Request) {
	var request RollbackRequest
	if !decodeRequest(w, r, &request) {
		return
	}
	all, current, err := s.all()
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	target := nginx.Generation{}
	if request.Generation == 0 {
		target, err = servedBefore(all, current)
	} else {
		target, err = find(all, request.Generation)
	}
	if err != nil {
		writeError(w, http.StatusNotFound, err)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
	defer cancel()
	active, err := s.Controller.Rollback(ctx, target.Number)
	if err != nil {
		writeError(w, http.StatusConflict, err)
		return
	}
	writeJSON(w, Rolled{From: current, Generation: Generation{Generation: active, Current: true}})
}

func (s *Server) resume(w http.ResponseWriter, r *http.Request) {
	var nothing struct{}
	if !decodeRequest(w, r, &nothing) {
		return
	}
	var result Resumed
	if frozen := s.Controller.Status(r.Context()).Frozen; frozen != nil {
		result.Frozen = frozen.Generation
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
	defer cancel()
	if err := s.Controller.Resume(ctx); err != nil {
		writeError(w, http.StatusConflict, err)
		return
	}
	writeJSON(w, result)
}

func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	var request AcceptRequest
	if !decodeRequest(w, r, &request) {
		return
	}
	if request.Service != "" {
		var names []string
		for _, entry := range s.Services.Entries() {
			names = append(names, entry.Name)
		}
		if !slices.Contains(names, request.Service) {
			writeError(w, http.StatusNotFound, s.notBalanced(request.Service, names))
			return
		}
	}
	writeJSON(w, Accepted{Released: s.Services.Accept(request.Service)})
}

func numberOf(what, given string) (int, error) {
	number, err := strconv.Atoi(given)
	if err != nil || number < 1 {
		return 0, fmt.Errorf("%s %q: want a number of at least 1", what, given)
	}
	return number, nil
}

// decodeRequest reads a request's JSON into into. An empty body is the zero request; an
// unknown field is an error. If it fails, it sends the error to the client and returns
// false.
func decodeRequest(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			writeError(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the request is larger than %d bytes", tooLarge.Limit))
			return false
		}
		writeError(w, http.StatusBadRequest, fmt.Errorf("decode the JSON of the request: %w", err))
		return false
	}
	return true
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value) // an error means that the client has disconnected
}

func writeError(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(errorAnswer{Error: err.Error()})
}

func writeLine(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}
