package tracing

import (
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"lbctl/internal/accesslog"
	"lbctl/internal/instances"
)

// Instances tells what is known of services and instances. An instances.Index does.
type Instances interface {
	Find(service, address []byte) *instances.Instance
	Service(name []byte) *instances.Service
}

// call is a request in the words of OpenTelemetry's conventions, for HTTP or for gRPC.
type call struct {
	*accesslog.Record
	known  Instances
	to     *instances.Service // nil: none that is known
	grpc   bool
	method string // "GET" or "shop.Cart/Add"; "_OTHER" if it is not a known one
	route  string // the path of the route; empty without service
}

// other stands for words that a client may choose freely.
const other = "_OTHER"

// methods are the methods that OpenTelemetry's conventions know.
var methods = map[string]bool{
	"CONNECT": true, "DELETE": true, "GET": true, "HEAD": true, "OPTIONS": true, "PATCH": true, "POST": true, "PUT": true, "QUERY": true, "TRACE": true,
}

func newCall(r *accesslog.Record, known Instances) *call {
	c := &call{Record: r, known: known, to: known.Service(r.Service), method: string(r.Method)}
	// A call that was broken off has no grpc-status.
	c.grpc = r.GRPCStatus >= 0 || c.to != nil && c.to.GRPC
	if c.grpc {
		service, method, ok := strings.Cut(strings.TrimPrefix(valid(string(r.Path)), "/"), "/")
		c.method = service + "/" + method
		if !ok || len(r.Service) == 0 || method == "" || strings.Contains(method, "/") {
			c.method = other
		}
		return c
	}
	if !methods[c.method] {
		c.method = other
	}
	if len(r.Service) > 0 {
		c.route = routePath(string(r.Route))
	}
	return c
}

// routePath returns the path of a route that endpoints.Route.String returned: "/api" of
// "GET example.com/api [x-version=v2]".
func routePath(route string) string {
	route, _, _ = strings.Cut(route, " [")
	if n := strings.IndexByte(route, '/'); n >= 0 {
		return route[n:]
	}
	return "/"
}

// name returns the name of the spans: "GET /api" or "shop.Cart/Add".
func (c *call) name() string {
	switch {
	case c.grpc && c.method == other:
		return "grpc"
	case c.grpc:
		return c.method
	case c.method == other:
		return strings.TrimSpace("HTTP " + c.route)
	}
	return strings.TrimSpace(c.method + " " + c.route)
}

// about returns the attributes that the spans of the request and of its tries have.
func (c *call) about() []*commonpb.KeyValue {
	if c.grpc {
		attributes := []*commonpb.KeyValue{text(semconv.RPCSystemNameKey, "grpc"), text(semconv.RPCMethodKey, c.method)}
		if c.method == other {
			attributes = append(attributes, text(semconv.RPCMethodOriginalKey, strings.TrimPrefix(string(c.Path), "/")))
		}
		return attributes
	}
	attributes := []*commonpb.KeyValue{text(semconv.HTTPRequestMethodKey, c.method)}
	if c.method == other {
		attributes = append(attributes, text(semconv.HTTPRequestMethodOriginalKey, string(c.Method)))
	}
	return attributes
}

// requestSpan returns the span of the whole request, without ids and times.
func (c *call) requestSpan() *tracepb.Span {
	s := &tracepb.Span{Name: c.name(), Kind: tracepb.Span_SPAN_KIND_SERVER, Attributes: c.about()}
	add := func(key attribute.Key, value []byte) {
		if len(value) > 0 {
			s.Attributes = append(s.Attributes, text(key, string(value)))
		}
	}
	add(semconv.ServerAddressKey, c.Host)
	add(semconv.ClientAddressKey, c.Client)
	if !c.grpc {
		add(semconv.NetworkProtocolVersionKey, c.HTTPVersion)
		add(semconv.URLSchemeKey, c.Scheme)
		add(semconv.URLPathKey, c.Path)
		add(semconv.HTTPRouteKey, []byte(c.route))
	}
	add(keyService, c.Service)
	add(keyRoute, c.Route)
	add(keyRequestID, c.RequestID)
	s.Attributes = append(s.Attributes, number(semconv.HTTPRequestSizeKey, c.RequestBytes), number(semconv.HTTPResponseSizeKey, c.ResponseBytes))
	add(keyReason, []byte(c.OwnReason(c.to != nil && c.to.Maintenance)))
	c.setOutcome(s)
	return s
}

// statusNoAnswer is nginx's status of a request whose client did not wait for the answer.
const statusNoAnswer = 499

// setOutcome says how the request ended, as its client saw it.
func (c *call) setOutcome(s *tracepb.Span) {
	if c.grpc {
		status := c.ClientGRPCStatus()
		if status < 0 {
			s.Attributes = append(s.Attributes, text(semconv.ErrorTypeKey, c.unfinished()))
			return
		}
		name := accesslog.GRPCStatusName(status)
		s.Attributes = append(s.Attributes, text(semconv.RPCResponseStatusCodeKey, name))
		if accesslog.ServerError(status) {
			fail(s, name)
		}
		return
	}
	if c.Status == statusNoAnswer {
		s.Attributes = append(s.Attributes, text(semconv.ErrorTypeKey, c.unfinished()))
		return
	}
	s.Attributes = append(s.Attributes, number(semconv.HTTPResponseStatusCodeKey, int64(c.Status)))
	switch {
	case c.Status >= 500:
		fail(s, strconv.Itoa(c.Status))
	case !c.Completed:
		s.Attributes = append(s.Attributes, text(semconv.ErrorTypeKey, c.unfinished()))
	}
}

// unfinished returns why the client has not got the whole answer. nginx does not say who broke it
// off after its beginning.
func (c *call) unfinished() string {
	if c.Status == statusNoAnswer {
		return "cancelled"
	}
	return "incomplete"
}

// trySpan returns the span of the record's nth try, without ids and times. It followed so many
// others.
func (c *call) trySpan(n, others int) *tracepb.Span {
	t := &c.Tries[n]
	s := &tracepb.Span{Name: c.name(), Kind: tracepb.Span_SPAN_KIND_CLIENT, Attributes: append(c.about(), peer(t.Address)...)}
	add := func(key attribute.Key, value string) {
		if value != "" {
			s.Attributes = append(s.Attributes, text(key, value))
		}
	}
	add(semconv.ServicePeerNameKey, string(c.Service))
	if i := c.known.Find(c.Service, t.Address); i != nil {
		add(keyInstance, i.ID)
		add(keyNode, i.Node)
		add(keyVersion, i.Version)
	}
	if !c.grpc {
		add(semconv.URLTemplateKey, c.route)
		if others > 0 {
			s.Attributes = append(s.Attributes, number(semconv.HTTPRequestResendCountKey, int64(others)))
		}
	}
	s.Attributes = append(s.Attributes, number(keyTry, int64(others+1)))
	c.setTryOutcome(s, n)
	return s
}

// setTryOutcome says how the record's nth try ended.
func (c *call) setTryOutcome(s *tracepb.Span, n int) {
	t := &c.Tries[n]
	switch {
	case !t.Answered() && t.Status == 0: // the client did not wait
		s.Attributes = append(s.Attributes, text(semconv.ErrorTypeKey, c.Result(n, c.grpc)))
	case !t.Answered():
		fail(s, c.Result(n, c.grpc))
	case !c.grpc || t.Status != 200:
		s.Attributes = append(s.Attributes, number(semconv.HTTPResponseStatusCodeKey, int64(t.Status)))
		if t.Status >= 400 {
			fail(s, strconv.Itoa(t.Status))
		}
	case n == len(c.Tries)-1 && c.OwnError == 0 && c.GRPCStatus >= 0: // what the client got is the instance's
		name := accesslog.GRPCStatusName(c.GRPCStatus)
		s.Attributes = append(s.Attributes, text(semconv.RPCResponseStatusCodeKey, name))
		if c.GRPCStatus > 0 {
			fail(s, name)
		}
	}
}

func fail(s *tracepb.Span, why string) {
	s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
	s.Attributes = append(s.Attributes, text(semconv.ErrorTypeKey, why))
}

// valid replaces bytes that are no UTF-8. A client may send some, and OTLP takes none.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func text(key attribute.Key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: string(key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: valid(value)}}}
}

func number(key attribute.Key, value int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: string(key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}}
}
