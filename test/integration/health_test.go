package integration

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // for clients that watch the health of a service
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/health"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// health asks nginx for the health of the services.
func (s *system) health(t *testing.T, query string) (status int, services map[string]health.Service, text string) {
	t.Helper()
	return s.healthAt(t, "/health"+query)
}

func (s *system) healthAt(t *testing.T, uri string) (status int, services map[string]health.Service, text string) {
	t.Helper()
	response, err := http.Get("http://" + s.HTTP + uri)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	if response.Header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(body, &services); err != nil {
			services = nil // an error
		}
	}
	return response.StatusCode, services, string(body)
}

func (s *system) dialHealth(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	conn, err := grpc.NewClient("passthrough:///"+s.GRPC, options...)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// checkHealth asks for the health of a service: "SERVING", or "NotFound: ..." for an error.
func checkHealth(t *testing.T, conn *grpc.ClientConn, service string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lbtest.Patience)
	defer cancel()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		return grpcstatus.Code(err).String() + ": " + grpcstatus.Convert(err).Message()
	}
	return answer.Status.String()
}

// watchHealth watches a service, and sends each status.
func watchHealth(t *testing.T, conn *grpc.ClientConn, service string) <-chan string {
	t.Helper()
	stream, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: service})
	require.NoError(t, err)
	seen := make(chan string, 100)
	go func() {
		defer close(seen)
		for {
			answer, err := stream.Recv()
			if err != nil {
				seen <- grpcstatus.Code(err).String()
				return
			}
			seen <- answer.Status.String()
		}
	}()
	return seen
}

func next(t *testing.T, seen <-chan string) string {
	t.Helper()
	select {
	case status := <-seen:
		return status
	case <-time.After(lbtest.Patience):
		t.Fatal("the watch says nothing")
		return ""
	}
}

// TestHealthFollowsTheServices lets the instances of a service end and return.
func TestHealthFollowsTheServices(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		t.Parallel()
		s := alone(t, nginx, "--grpc-health", "on")
		backends := s.backends(t, 1, 2)
		conn := s.dialHealth(t)

		s.Eventually("all is well", func() error {
			status, services, text := s.health(t, "")
			one := services[hello]
			if status != http.StatusOK || !one.Serving || one.Passing != 2 || one.Total != 2 || one.Time == nil || *one.Time < 1 || *one.Age > 10_000 {
				return fmt.Errorf("%d: %s", status, text)
			}
			return nil
		})
		assert.Equal(t, "SERVING", checkHealth(t, conn, hello))
		assert.Equal(t, "SERVING", checkHealth(t, conn, ""))
		assert.Equal(t, `NotFound: lbctl: there is no service "nothing"`, checkHealth(t, conn, "nothing"))
		list, err := healthpb.NewHealthClient(conn).List(t.Context(), &healthpb.HealthListRequest{})
		require.NoError(t, err)
		require.Len(t, list.Statuses, 2)
		assert.Equal(t, healthpb.HealthCheckResponse_SERVING, list.Statuses[hello].Status)
		assert.Equal(t, healthpb.HealthCheckResponse_SERVING, list.Statuses[""].Status)
		one, all, later := watchHealth(t, conn, hello), watchHealth(t, conn, ""), watchHealth(t, conn, "later")
		assert.Equal(t, "SERVING", next(t, one))
		assert.Equal(t, "SERVING", next(t, all))
		assert.Equal(t, "SERVICE_UNKNOWN", next(t, later))

		backends[0].Kill()
		s.Eventually("one of two instances passes", func() error {
			status, services, text := s.health(t, "")
			if one := services[hello]; status != http.StatusOK || !one.Serving || one.Passing != 1 || one.Total != 2 {
				return fmt.Errorf("%d: %s", status, text)
			}
			return nil
		})
		assert.Equal(t, "SERVING", checkHealth(t, conn, hello))

		backends[1].Kill()
		assert.Equal(t, "NOT_SERVING", next(t, one))
		assert.Equal(t, "NOT_SERVING", next(t, all))
		assert.Equal(t, "NOT_SERVING", checkHealth(t, conn, hello))
		assert.Equal(t, "NOT_SERVING", checkHealth(t, conn, ""))
		s.Eventually("no instance passes", func() error {
			status, services, text := s.health(t, "")
			if one := services[hello]; status != http.StatusServiceUnavailable || one.Serving || one.Passing != 0 || one.Total != 2 || one.Error == "" {
				return fmt.Errorf("%d: %s", status, text)
			}
			return nil
		})

		backends[1].Again(t)
		assert.Equal(t, "SERVING", next(t, one))
		assert.Equal(t, "SERVING", next(t, all))
		b := lbtest.StartBackend(t, "later")
		registration := b.Registration("later")
		registration.Tags, registration.Meta = nil, map[string]string{"lb-protocol": "grpc", "lb-path": "/later.Later"}
		require.NoError(t, s.consul.Agent().ServiceRegister(registration))
		assert.Equal(t, "SERVING", next(t, later))
		assert.Equal(t, "SERVING", checkHealth(t, conn, "later.Later"))
		s.Eventually("the new service is among the others", func() error {
			if status, services, text := s.health(t, "?service=later"); status != http.StatusOK || len(services) != 1 {
				return fmt.Errorf("%d: %s", status, text)
			}
			return nil
		})
		status, _, text := s.health(t, "?service=nothing")
		assert.Equal(t, http.StatusNotFound, status)
		assert.JSONEq(t, `{"error":"there is no service \"nothing\""}`, text)
	})
}

// TestHealthWithoutLbctl kills lbctl: nginx says so.
func TestHealthWithoutLbctl(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		t.Parallel()
		s := alone(t, nginx, "--grpc-health", "on")
		s.backends(t, 1, 1)
		conn := s.dialHealth(t)
		watch := watchHealth(t, conn, hello)
		assert.Equal(t, "SERVING", next(t, watch))
		away := func() {
			t.Helper()
			status, _, text := s.health(t, "")
			assert.Equal(t, http.StatusServiceUnavailable, status)
			var answer struct {
				Error string
				Nginx struct {
					Time        time.Time
					Connections int
				}
			}
			require.NoError(t, json.Unmarshal([]byte(text), &answer), text)
			assert.Equal(t, "nginx serves, but lbctl, which knows the health of the services, does not answer", answer.Error)
			assert.NotZero(t, answer.Nginx.Connections)
			assert.WithinDuration(t, time.Now(), answer.Nginx.Time, time.Minute)
			assert.Equal(t, "Unavailable: lbctl: nginx serves, but lbctl, which knows the health of the services, does not answer", checkHealth(t, conn, hello))
		}
		s.PauseLbctl() // it hangs
		status, _, text := s.health(t, "")
		assert.Equal(t, http.StatusServiceUnavailable, status)
		assert.Contains(t, text, "does not answer")
		assert.Equal(t, "Unavailable: lbctl: nginx serves, but lbctl, which knows the health of the services, does not answer", checkHealth(t, conn, hello))
		s.ContinueLbctl()
		watch = watchHealth(t, conn, hello)
		assert.Equal(t, "SERVING", next(t, watch))
		s.KillLbctl()
		next(t, watch) // the stream ends
		away()
		answer, err := protos.NewPingClient(conn).SayHello(t.Context(), &protos.PingMessage{})
		require.NoError(t, err, "nginx serves")
		assert.Equal(t, "server-1", answer.Greeting)

		s.StartLbctl()
		s.Eventually("lbctl answers again", func() error {
			if status := checkHealth(t, conn, hello); status != "SERVING" {
				return errors.New(status)
			}
			return nil
		})
	})
}

// TestAWatchWithoutNewsGoesOn waits for longer than nginx waits for lbctl.
func TestAWatchWithoutNewsGoesOn(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		t.Parallel()
		s := alone(t, nginx, "--grpc-health", "on")
		s.backends(t, 1, 1)
		watch := watchHealth(t, s.dialHealth(t), hello)
		assert.Equal(t, "SERVING", next(t, watch))
		select {
		case status, open := <-watch:
			t.Fatalf("it told %q, open %t, while nothing changed", status, open)
		case <-time.After(26 * time.Second):
		}
	})
}

// TestClientsWatchTheHealth has gRPC's own client watch a service: it makes no call while the service
// does not serve.
func TestClientsWatchTheHealth(t *testing.T) {
	t.Parallel()
	s := alone(t, newest(t), "--grpc-health", "on")
	backends := s.backends(t, 1, 1)
	conn := s.dialHealth(t, grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":"hello_server"}}`))
	call := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := protos.NewPingClient(conn).SayHello(ctx, &protos.PingMessage{})
		return err
	}
	require.NoError(t, call())
	backends[0].Kill()
	s.Eventually("the client does not call", func() error {
		if err := call(); grpcstatus.Code(err) != codes.Unavailable || !strings.HasSuffix(err.Error(), "health check failed. status=NOT_SERVING") {
			return fmt.Errorf("the call: %w", err)
		}
		return nil
	})
	backends[0].Again(t)
	s.Eventually("the client calls again", call)
}

// TestHealthOnlyForSomeNetworks limits who may ask.
func TestHealthOnlyForSomeNetworks(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		t.Parallel()
		s := alone(t, nginx, "--grpc-health", "on", "--health-networks", "192.0.2.0/24")
		s.backends(t, 1, 1)
		status, _, text := s.health(t, "")
		assert.Equal(t, http.StatusForbidden, status, text)
		assert.Equal(t, "PermissionDenied: lbctl: not allowed", checkHealth(t, s.dialHealth(t), hello))
		out, err := s.Lbctl("explain", "http://localhost/health", "--from", "127.0.0.1")
		assert.Error(t, err)
		assert.Contains(t, out, "only 192.0.2.0/24 may ask for it (--health-networks). The client gets 403: not allowed")
		_, err = s.Lbctl("explain", "grpc://localhost/grpc.health.v1.Health/Check", "--from", "192.0.2.7")
		assert.NoError(t, err)
	})
}

// TestHealthTakesNoRoute lets services have the routes of health, in part and as the default.
func TestHealthTakesNoRoute(t *testing.T) {
	t.Parallel()
	s := alone(t, newest(t)) // what services would get is theirs
	b := s.backends(t, 1, 1)[0]
	conn := s.dialHealth(t)
	assert.Equal(t, "NotFound: unknown service", checkHealth(t, conn, hello), "the default service answers")
	status, services, text := s.health(t, "")
	assert.Equal(t, http.StatusOK, status, text)
	assert.Len(t, services, 1, "there is no HTTP service: lbctl answers")
	routes, err := s.Lbctl("routes")
	require.NoError(t, err)
	assert.Regexp(t, `\* \(default\) +hello_server\n +\*/grpc.health.v1.Health +lbctl: the health of the services\n`, routes)
	assert.Regexp(t, `\*=/health +lbctl: the health of the services\n`, routes)

	// With these flags lbctl takes the requests from the default service, and not from others.
	s.StopLbctl()
	s.StartLbctl("--grpc-health", "on", "--health-path", "/own/health")
	s.Eventually("lbctl answers", func() error {
		if status := checkHealth(t, conn, hello); status != "SERVING" {
			return errors.New(status)
		}
		return nil
	})
	registration := b.Registration("owner")
	registration.Tags, registration.Meta = nil, map[string]string{"lb-protocol": "grpc", "lb-path": "/grpc.health.v1.Health"}
	require.NoError(t, s.consul.Agent().ServiceRegister(registration))
	s.Eventually("the service with the route answers", func() error {
		if status := checkHealth(t, conn, "owner"); status != "NotFound: unknown service" {
			return errors.New(status)
		}
		return nil
	})
	s.answering(t, "site", "the site", nil)
	s.answering(t, "host", "the host", map[string]string{"lb-protocol": "http", "lb-host": "host.test"})
	answers := func(host string) string {
		request, err := http.NewRequest(http.MethodGet, "http://"+s.HTTP+"/own/health", nil)
		require.NoError(t, err)
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return string(body)
	}
	eventually := func(host, want string) {
		t.Helper()
		s.Eventually(fmt.Sprintf("%q gets %s", host, want), func() error {
			if text := answers(host); !strings.HasPrefix(text, want) {
				return errors.New(text)
			}
			return nil
		})
	}
	eventually("host.test", "the host")
	eventually("localhost", `{"`)
	s.answering(t, "own", "the service own", map[string]string{"lb-protocol": "http", "lb-path": "/own"})
	eventually("localhost", "the service own")
}

// answering starts an HTTP server that always gives the same answer, and registers it.
func (s *system) answering(t *testing.T, service, answer string, meta map[string]string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	t.Cleanup(server.Close)
	at := netip.MustParseAddrPort(server.Listener.Addr().String())
	var tags []string
	if meta == nil {
		tags = []string{"http_server"} // the default service
	}
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: service, Name: service, Address: at.Addr().String(), Port: int(at.Port()), Meta: meta, Tags: tags,
	}))
	s.WaitServing(service, 1)
}

// TestHealthOverTLS asks at the listeners with TLS.
func TestHealthOverTLS(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		t.Parallel()
		dir := t.TempDir()
		certificatestest.NewAuthority(t, "test").Issue(t, time.Hour, "lb.test").Write(t, dir, "lb")
		grpcs, https := fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t))
		s := alone(t, nginx, "--grpc-health", "on", "--certificates", dir, "--listener", "grpcs=grpcs://"+grpcs, "--listener", "https=https://"+https)
		s.backends(t, 1, 1)
		trust := &tls.Config{InsecureSkipVerify: true}
		conn, err := grpc.NewClient("passthrough:///"+grpcs, grpc.WithTransportCredentials(credentials.NewTLS(trust)))
		require.NoError(t, err)
		defer conn.Close()
		s.Eventually("gRPC over TLS", func() error {
			if status := checkHealth(t, conn, hello); status != "SERVING" {
				return errors.New(status)
			}
			return nil
		})
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true}}
		response, err := client.Get("https://" + https + "/health")
		require.NoError(t, err)
		defer response.Body.Close()
		assert.Equal(t, http.StatusOK, response.StatusCode)
		assert.Equal(t, 2, response.ProtoMajor)
	})
}

// TestHealthIsHiddenByPolicy hides all services, and then shows one again.
func TestHealthIsHiddenByPolicy(t *testing.T) {
	t.Parallel()
	s := alone(t, newest(t), "--grpc-health", "on")
	s.backends(t, 1, 1)
	s.answering(t, "web", "the web", nil)
	conn := s.dialHealth(t)
	wait := func(what string, wantStatus int, names ...string) {
		t.Helper()
		s.Eventually(what, func() error {
			status, services, text := s.healthAt(t, "/own/health")
			if status != wantStatus || len(services) != len(names) {
				return fmt.Errorf("%d: %s", status, text)
			}
			for _, name := range names {
				if _, ok := services[name]; !ok {
					return fmt.Errorf("%d: %s", status, text)
				}
			}
			return nil
		})
	}
	s.StopLbctl()
	s.StartLbctl("--grpc-health", "on", "--health-path", "/own/health")
	wait("all are shown", http.StatusOK, hello, "web")
	_, err := s.Lbctl("policy", "set", "default", "health.report=off")
	require.NoError(t, err)
	wait("all are hidden", http.StatusNotFound)
	assert.Equal(t, `NotFound: lbctl: there is no service "hello_server"`, checkHealth(t, conn, hello))
	assert.Equal(t, `NotFound: lbctl: no service is told of: health.report is off in their policies`, checkHealth(t, conn, ""))
	_, err = s.Lbctl("policy", "set", "web", "health.report=on")
	require.NoError(t, err)
	wait("one is shown", http.StatusOK, "web")
	assert.Equal(t, "SERVING", checkHealth(t, conn, "web"))
	assert.Equal(t, `NotFound: lbctl: there is no service "hello_server"`, checkHealth(t, conn, hello))
}

// TestWatchEndsWithItsWorker reloads nginx while a client watches that stays where it is.
func TestWatchEndsWithItsWorker(t *testing.T) {
	t.Parallel()
	s := alone(t, newest(t), "--grpc-health", "on")
	s.backends(t, 1, 1)
	conn := s.dialHealth(t)
	watch := watchHealth(t, conn, hello)
	assert.Equal(t, "SERVING", next(t, watch))
	s.answering(t, "web", "the web", map[string]string{"lb-protocol": "http", "lb-path": "/web"})
	assert.Equal(t, "Unavailable", next(t, watch))
	s.Eventually("the old worker has ended", func() error {
		status, err := s.Status()
		if err == nil && status.Nginx.OldWorkers > 0 {
			err = fmt.Errorf("%d old workers", status.Nginx.OldWorkers)
		}
		return err
	})
	assert.Equal(t, "SERVING", next(t, watchHealth(t, conn, hello)))
}
