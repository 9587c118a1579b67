package requestlog

import (
	"bytes"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/history"
)

// Filter says which lines are wanted: those that all its fields match. A zero field matches every
// line.
type Filter struct {
	Service  string // its name
	Instance string // Consul's service id, or address and port, of one of the tries
	Route    string // as endpoints.Route.String returns it

	Statuses     []StatusRange
	GRPCStatuses []string // names of gRPC statuses; GRPCError for all server errors
	SlowerThan   time.Duration
	Trace        string // how the id of the trace begins
	RequestID    string // how the id of the request begins
	Client       netip.Prefix

	Since time.Time
	// Type is TypeRequest or TypeEvent; default both, but only requests if a field is given that
	// only they have.
	Type string
}

// StatusRange is a range of HTTP statuses, both ends included.
type StatusRange struct{ From, To int }

// GRPCError stands for all gRPC statuses that are errors of the server.
const GRPCError = "error"

// ParseStatuses parses statuses separated by commas: "404", "5xx", "500-503".
func ParseStatuses(given string) ([]StatusRange, error) {
	var all []StatusRange
	for word := range strings.SplitSeq(given, ",") {
		r, ok := parseStatusRange(word)
		if !ok {
			return nil, fmt.Errorf("want HTTP statuses such as 404, 5xx or 500-503, separated by commas")
		}
		all = append(all, r)
	}
	return all, nil
}

func parseStatusRange(word string) (StatusRange, bool) {
	if class, ok := strings.CutSuffix(word, "xx"); ok && len(class) == 1 && class[0] >= '1' && class[0] <= '5' {
		from := int(class[0]-'0') * 100
		return StatusRange{from, from + 99}, true
	}
	first, last, ok := strings.Cut(word, "-")
	if !ok {
		last = first
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	return StatusRange{from, to}, err1 == nil && err2 == nil && from >= 100 && to <= 599 && from <= to
}

// String returns the range as ParseStatuses takes it.
func (r StatusRange) String() string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// ParseGRPCStatuses parses names of gRPC statuses separated by commas, in any case, or GRPCError.
func ParseGRPCStatuses(given string) ([]string, error) {
	var all []string
	for word := range strings.SplitSeq(given, ",") {
		name := strings.ToUpper(word)
		switch {
		case strings.EqualFold(word, GRPCError):
			name = GRPCError
		case !slices.Contains(accesslog.GRPCStatusNames(), name):
			return nil, fmt.Errorf("want names of gRPC statuses such as UNAVAILABLE,INTERNAL, or %s for all errors of servers", GRPCError)
		}
		all = append(all, name)
	}
	return all, nil
}

// ParseClient parses the address of a client, or a network: "10.0.0.0/8".
func ParseClient(given string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(given); err == nil && address.Zone() == "" {
		return netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()), nil
	}
	network, err := netip.ParsePrefix(given)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("want an address or a network, such as 10.0.0.0/8")
	}
	return network.Masked(), nil
}

// The parameters of a filter in a URL.
const (
	paramService    = "service"
	paramInstance   = "instance"
	paramRoute      = "route"
	paramStatus     = "status"
	paramGRPCStatus = "grpc_status"
	paramSlowerThan = "slower_than_seconds"
	paramTrace      = "trace_id"
	paramRequestID  = "request_id"
	paramClient     = "client"
	paramSince      = "since"
	paramType       = "type"
)

// Values returns the filter as the parameters of a URL.
func (f Filter) Values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set(paramService, f.Service)
	set(paramInstance, f.Instance)
	set(paramRoute, f.Route)
	set(paramGRPCStatus, strings.Join(f.GRPCStatuses, ","))
	set(paramTrace, f.Trace)
	set(paramRequestID, f.RequestID)
	set(paramType, f.Type)
	var statuses []string
	for _, r := range f.Statuses {
		statuses = append(statuses, r.String())
	}
	set(paramStatus, strings.Join(statuses, ","))
	if f.SlowerThan > 0 {
		set(paramSlowerThan, strconv.FormatFloat(f.SlowerThan.Seconds(), 'f', -1, 64))
	}
	if f.Client.IsValid() {
		set(paramClient, f.Client.String())
	}
	if !f.Since.IsZero() {
		set(paramSince, f.Since.Format(time.RFC3339Nano))
	}
	return v
}

// parseFilter parses the parameters that Values returns.
func parseFilter(v url.Values) (f Filter, err error) {
	f = Filter{
		Service: v.Get(paramService), Instance: v.Get(paramInstance), Route: v.Get(paramRoute),
		Trace: v.Get(paramTrace), RequestID: v.Get(paramRequestID), Type: v.Get(paramType),
	}
	if f.Type != "" && f.Type != TypeRequest && f.Type != TypeEvent {
		return f, fmt.Errorf("%s %q: want %s or %s", paramType, f.Type, TypeRequest, TypeEvent)
	}
	parse := func(name string, to func(given string) error) {
		if given := v.Get(name); given != "" && err == nil {
			if failed := to(given); failed != nil {
				err = fmt.Errorf("%s %q: %w", name, given, failed)
			}
		}
	}
	parse(paramStatus, func(given string) (err error) { f.Statuses, err = ParseStatuses(given); return err })
	parse(paramGRPCStatus, func(given string) (err error) { f.GRPCStatuses, err = ParseGRPCStatuses(given); return err })
	parse(paramClient, func(given string) (err error) { f.Client, err = ParseClient(given); return err })
	parse(paramSlowerThan, func(given string) error {
		s, err := strconv.ParseFloat(given, 64)
		if err != nil || !(s >= 0 && s < 1e9) {
			return fmt.Errorf("want seconds, such as 0.2")
		}
		f.SlowerThan = time.Duration(s * float64(time.Second))
		return nil
	})
	parse(paramSince, func(given string) (err error) {
		if f.Since, err = time.Parse(time.RFC3339Nano, given); err != nil {
			return fmt.Errorf("want a time such as 2026-11-27T10:00:00Z")
		}
		return nil
	})
	return f, err
}

// wantsRequests and wantsEvents report whether lines of a type can match.
func (f *Filter) wantsRequests() bool { return f.Type != TypeEvent }
func (f *Filter) wantsEvents() bool {
	onlyRequests := f.Route != "" || len(f.Statuses) > 0 || len(f.GRPCStatuses) > 0 || f.SlowerThan > 0 ||
		f.Trace != "" || f.RequestID != "" || f.Client.IsValid()
	return f.Type != TypeRequest && !onlyRequests
}

// matches reports whether a request is wanted.
func (f *Filter) matches(r *request) bool {
	return f.wantsRequests() &&
		(f.Service == "" || f.Service == string(r.service)) &&
		(f.Route == "" || f.Route == string(r.route)) &&
		(f.SlowerThan == 0 || r.took > f.SlowerThan) &&
		(f.Since.IsZero() || !r.time.Before(f.Since)) &&
		(f.Trace == "" || bytes.HasPrefix(r.traceID(), []byte(f.Trace))) &&
		(f.RequestID == "" || bytes.HasPrefix(r.id, []byte(f.RequestID))) &&
		f.matchesStatus(r.status) && f.matchesGRPCStatus(r.grpcStatus) &&
		f.matchesInstance(r.tries) && f.matchesClient(r.client)
}

func (f *Filter) matchesStatus(status int) bool {
	return len(f.Statuses) == 0 || slices.ContainsFunc(f.Statuses, func(r StatusRange) bool { return status >= r.From && status <= r.To })
}

func (f *Filter) matchesGRPCStatus(status int) bool {
	if len(f.GRPCStatuses) == 0 {
		return true
	}
	return slices.Contains(f.GRPCStatuses, accesslog.GRPCStatusName(status)) ||
		accesslog.ServerError(status) && slices.Contains(f.GRPCStatuses, GRPCError)
}

func (f *Filter) matchesInstance(tries []try) bool {
	return f.Instance == "" || slices.ContainsFunc(tries, func(t try) bool {
		return f.Instance == string(t.id) || f.Instance == string(t.endpoint)
	})
}

func (f *Filter) matchesClient(client []byte) bool {
	if !f.Client.IsValid() {
		return true
	}
	address, err := netip.ParseAddr(string(client))
	return err == nil && f.Client.Contains(address.Unmap())
}

// matchesEvent reports whether an event is wanted. An event is about a service or an instance if
// it names it.
func (f *Filter) matchesEvent(e *history.Event) bool {
	if !f.wantsEvents() || !f.Since.IsZero() && e.Time.Before(f.Since) {
		return false
	}
	names := func(name string, left func(history.Departure) string) bool {
		return name == "" || hasWord(e.Change, name) ||
			slices.ContainsFunc(e.Left, func(d history.Departure) bool { return left(d) == name })
	}
	return names(f.Service, func(d history.Departure) string { return d.Service }) &&
		names(f.Instance, func(d history.Departure) string { return d.ID })
}

// hasWord reports whether a text has a name that is not a part of a longer one.
func hasWord(text, name string) bool {
	inName := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.'
	}
	for from := 0; ; {
		at := strings.Index(text[from:], name)
		if at < 0 {
			return false
		}
		start, end := from+at, from+at+len(name)
		if (start == 0 || !inName(text[start-1])) && (end == len(text) || !inName(text[end])) {
			return true
		}
		from = start + 1
	}
}
