package registration

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"lbctl/internal/metadata"
)

const (
	// askEvery is the time between two questions for the server's gRPC services: it may
	// restart with others.
	askEvery = 10 * time.Second
	// askAgain replaces askEvery while the server has not answered yet.
	askAgain = 2 * time.Second
	// silentQuestions is how many questions in a row may stay without an answer before the log
	// says so.
	silentQuestions = 5
	// ownPackage begins the names of gRPC's own services, such as health and reflection. All
	// servers have them, so they are no routes.
	ownPackage = "grpc."
)

// offers knows which gRPC services the server offers.
type offers struct {
	enabled  bool
	answered bool              // the server has answered, also with an error
	names    []string          // sorted; none if the server does not say
	meta     map[string]string // for lbctl; none if there are no names, or too many
	changed  bool              // since the last registration
	silent   int               // questions without an answer
}

// answer is the server's answer to the question for its services.
type answer struct {
	names []string
	err   error
}

// newOffers returns offers that are enabled if lbctl would use the services: the registration is
// of gRPC, and says neither its routes nor its services itself.
func newOffers(cfg Config) offers {
	said := metadata.RoutesItself(cfg.Meta)
	for key := range cfg.Meta {
		said = said || metadata.IsGRPCServicesKey(key)
	}
	return offers{enabled: cfg.Reflection && !said && metadata.IsGRPC(cfg.Tags, cfg.Meta)}
}

// askServer asks the server for its gRPC services, within the time of a check.
func (r *Registrar) askServer(ctx context.Context) answer {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Check.Timeout)
	defer cancel()
	host, ok := r.cfg.Check.hostAt(r.cfg.Port)
	if !ok {
		address, _, err := r.agent.place(ctx, r.cfg)
		if err != nil {
			return answer{err: status.Error(codes.Unavailable, err.Error())}
		}
		host = cmp.Or(address, "127.0.0.1")
	}
	names, err := grpcServices(ctx, net.JoinHostPort(host, strconv.Itoa(r.cfg.Port)), protocolOf(r.cfg) == "grpcs")
	return answer{names, err}
}

// hostAt returns the host of the endpoint, if the endpoint is the server's own port: the server
// may listen only there.
func (c Check) hostAt(port int) (host string, ok bool) {
	at := c.Endpoint
	if u, err := url.Parse(at); err == nil && u.Host != "" {
		at = u.Host
	}
	at, _, _ = strings.Cut(at, "/") // the name of a gRPC service
	host, number, err := net.SplitHostPort(at)
	return host, err == nil && host != "" && number == strconv.Itoa(port)
}

// learn takes over the server's answer, and reports whether the registration changes. Without an
// answer the last one counts.
func (r *Registrar) learn(a answer) bool {
	first := !r.offers.answered
	switch status.Code(a.err) {
	case codes.OK:
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		if r.offers.silent++; first && r.offers.silent == silentQuestions {
			r.logger.Info("the server does not answer which gRPC services it offers, so lbctl can't route them one by one; asking again", "reason", a.err)
		}
		return false
	default:
		a.names = nil
	}
	r.offers.answered = true
	if a.err != nil && (first || r.offers.names != nil) {
		r.logger.Info("the server does not say which gRPC services it offers, so lbctl can't route them one by one", "reason", a.err)
	}
	if slices.Equal(a.names, r.offers.names) {
		return false
	}
	r.offers.names = a.names
	meta, err := metadata.GRPCServices(a.names)
	if pairs := len(meta) + len(r.cfg.Meta); err == nil && pairs > r.cfg.mostPairs() {
		err = fmt.Errorf("%d pairs of metadata with the gRPC services, want at most %d", pairs, r.cfg.mostPairs())
	}
	if err != nil {
		meta = nil
		r.logger.Warn("the server's gRPC services are not registered; META=lb-grpc=... with packages or services routes them", "error", err)
	} else if len(a.names) > 0 {
		r.logger.Info("the server offers gRPC services", "services", strings.Join(a.names, ","))
	}
	changed := !maps.Equal(meta, r.offers.meta)
	r.offers.meta = meta
	r.offers.changed = r.offers.changed || changed
	return changed
}

// nextQuestion is the time until the next question for the server's services.
func (o offers) nextQuestion() time.Duration {
	if o.answered {
		return askEvery
	}
	return askAgain
}

// described returns the configuration with the server's services in the metadata.
func (o offers) described(cfg Config) Config {
	if len(o.meta) > 0 {
		cfg.Meta = maps.Clone(cfg.Meta)
		if cfg.Meta == nil {
			cfg.Meta = map[string]string{}
		}
		maps.Copy(cfg.Meta, o.meta)
	}
	return cfg
}

// grpcServices asks the server at an address for its gRPC services by reflection, version v1 or
// v1alpha. It returns their full names, sorted, without gRPC's own.
func grpcServices(ctx context.Context, address string, secure bool) ([]string, error) {
	transport := insecure.NewCredentials()
	if secure {
		transport = credentials.NewTLS(Check{TLS: TLSSkipVerify}.tlsConfig()) // as lbctl does
	}
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(transport))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	var names []string
	for _, version := range reflectionVersions {
		if names, err = listServices(ctx, connection, version); status.Code(err) != codes.Unimplemented {
			break
		}
	}
	if status.Code(err) == codes.Unimplemented {
		return nil, status.Error(codes.Unimplemented, "the server has no reflection service")
	}
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, ownPackage) })
	slices.Sort(names)
	return slices.Compact(names), nil
}

// reflectionVersions are the versions of the reflection protocol, the newest first. Their
// messages are the same, except for the names of their types, which are not sent.
var reflectionVersions = []string{"v1", "v1alpha"}

func listServices(ctx context.Context, connection *grpc.ClientConn, version string) ([]string, error) {
	method := "/grpc.reflection." + version + ".ServerReflection/ServerReflectionInfo"
	stream, err := connection.NewStream(ctx, &reflectionpb.ServerReflection_ServiceDesc.Streams[0], method)
	if err != nil {
		return nil, err
	}
	// An error of SendMsg is io.EOF; RecvMsg has the reason.
	_ = stream.SendMsg(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	var got reflectionpb.ServerReflectionResponse
	if err := stream.RecvMsg(&got); err != nil {
		return nil, err
	}
	if refused := got.GetErrorResponse(); refused != nil {
		return nil, status.Error(codes.Code(refused.GetErrorCode()), refused.GetErrorMessage())
	}
	var names []string
	for _, s := range got.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names, nil
}
