package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/admin"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// moody is an instance whose checks pass, and whose answers are errors while failing is set.
type moody struct {
	name    string
	port    int
	failing atomic.Bool
}

// moodyHTTP answers 503 while it fails.
func moodyHTTP(t *testing.T, name string) *moody {
	m := &moody{name: name}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.failing.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprint(w, name)
	}))
	t.Cleanup(server.Close)
	m.port = server.Listener.Addr().(*net.TCPAddr).Port
	return m
}

type moodyPing struct {
	protos.UnimplementedPingServer
	*moody
}

func (p moodyPing) SayHello(context.Context, *protos.PingMessage) (*protos.PingMessage, error) {
	if p.failing.Load() {
		return nil, grpcstatus.Error(codes.Unavailable, p.name)
	}
	return &protos.PingMessage{Greeting: p.name}, nil
}

// moodyGRPC answers UNAVAILABLE while it fails.
func moodyGRPC(t *testing.T, name string) *moody {
	m := &moody{name: name}
	server := grpc.NewServer()
	protos.RegisterPingServer(server, moodyPing{moody: m})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	m.port = listener.Addr().(*net.TCPAddr).Port
	return m
}

// register registers instances of hello, whose check passes for an hour.
func (s *system) register(t *testing.T, tag string, meta map[string]string, all ...*moody) {
	t.Helper()
	for _, m := range all {
		require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: hello + "-" + m.name, Name: hello, Address: "127.0.0.1", Port: m.port, Tags: []string{tag}, Meta: meta,
			Check: &api.AgentServiceCheck{TCP: fmt.Sprintf("127.0.0.1:%d", m.port), Interval: "1h", Timeout: "1s", Status: api.HealthPassing},
		}))
	}
	s.WaitServing(hello, len(all))
}

// httpCaller returns the body of each answer, also of an error.
type httpCaller struct {
	client *http.Client
	url    string
}

func (c httpCaller) Call(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return "", err
	}
	answer, err := c.client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

func (c httpCaller) Close() error { c.client.CloseIdleConnections(); return nil }

// pingCaller is like httpCaller for gRPC.
type pingCaller struct{ lbtest.Caller }

func (c pingCaller) Call(ctx context.Context) (string, error) {
	name, err := c.Caller.Call(ctx)
	if grpcstatus.Code(err) == codes.Unavailable && !strings.HasPrefix(grpcstatus.Convert(err).Message(), "lbctl") {
		return grpcstatus.Convert(err).Message(), nil // the instance's own error
	}
	return name, err
}

// instances returns the instances of hello by name.
func (s *system) instances() (map[string]admin.Instance, error) {
	services, err := s.Services()
	all := map[string]admin.Instance{}
	for _, service := range services {
		for _, i := range service.Instances {
			all[strings.TrimPrefix(i.ID, hello+"-")] = i
		}
	}
	return all, err
}

// waitEjected waits until exactly these instances are ejected, and nginx knows it.
func (s *system) waitEjected(names ...string) map[string]admin.Instance {
	var all map[string]admin.Instance
	s.Eventually(fmt.Sprintf("%q are ejected", names), func() error {
		var err error
		if all, err = s.instances(); err != nil {
			return err
		}
		found := 0
		for name, i := range all {
			if i.Ejected && !strings.Contains(strings.Join(names, " "), name) {
				return fmt.Errorf("%s is: %s", name, i.Reason)
			}
			if i.Ejected {
				found++
			}
		}
		if found != len(names) {
			return fmt.Errorf("%d are: %+v", found, all)
		}
		return nil
	})
	return all
}

// TestAnInstanceThatAnswersErrorsLeavesTheRotation has an instance whose checks and probes pass
// while its answers are errors.
func TestAnInstanceThatAnswersErrorsLeavesTheRotation(t *testing.T) {
	for _, kind := range []struct {
		name, tag, why string
		start          func(*testing.T, string) *moody
		dial           func(s *system) (lbtest.Caller, error)
	}{
		{"HTTP", "http_server", "5 of the last 5 calls failed: 503", moodyHTTP, func(s *system) (lbtest.Caller, error) {
			return httpCaller{&http.Client{Transport: &http.Transport{}}, "http://" + s.HTTP + "/"}, nil
		}},
		{"gRPC", "grpc_server", "5 of the last 5 calls failed: UNAVAILABLE", moodyGRPC, func(s *system) (lbtest.Caller, error) {
			c, err := lbtest.DialGRPC(s.GRPC, insecure.NewCredentials())
			return pingCaller{c}, err
		}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
				s := alone(t, nginx, "--slow-start", "0")
				bad, good, third := kind.start(t, "bad"), kind.start(t, "good"), kind.start(t, "third")
				s.register(t, kind.tag, map[string]string{
					"lb-outlier-consecutive-errors": "5", "lb-outlier-base-ejection-time": "4s", "lb-outlier-max-ejection-time": "4s",
				}, bad, good, third)
				load := lbtest.StartCallers(t, 2, pause, func() (lbtest.Caller, error) { return kind.dial(s) })
				load.WaitMore(t, 100)
				s.waitEjected()

				bad.failing.Store(true)
				failed := time.Now()
				i := s.waitEjected("bad")["bad"]
				t.Logf("ejected %s after its first error", time.Since(failed).Round(time.Millisecond))
				assert.Equal(t, "ejected: "+kind.why, i.Reason)
				assert.Equal(t, 4*time.Second, i.EjectedUntil.Sub(i.EjectedSince))
				assert.False(t, i.InRotation)
				out, err := s.Lbctl("services", hello)
				require.NoError(t, err)
				assert.Contains(t, out, "no: ejected: "+kind.why+" (since ")
				assert.Contains(t, out, "; back at "+i.EjectedUntil.Local().Format("15:04:05")+")")

				// It returns, fails again, and is ejected for the longest time.
				s.Eventually("it is ejected again", func() error {
					all, err := s.instances()
					if again := all["bad"]; err != nil || !again.EjectedSince.After(i.EjectedSince) {
						return fmt.Errorf("%+v: %w", again, err)
					}
					assert.Equal(t, 4*time.Second, all["bad"].EjectedUntil.Sub(all["bad"].EjectedSince))
					return nil
				})
				bad.failing.Store(false)
				s.waitEjected()
				s.WaitServing(hello, 3)
				last := time.Now()
				s.Eventually("it answers again", func() error {
					if !load.Last("bad").After(last) {
						return fmt.Errorf("last at %s", load.Last("bad"))
					}
					return nil
				})
				lostNothing(t, load.Stop())

				history, err := s.Lbctl("history", "-o", "json")
				require.NoError(t, err)
				assert.Contains(t, history, kind.why)
			})
		})
	}
}

// TestErrorsEverywhereEmptyNothing has only instances whose answers are errors.
func TestErrorsEverywhereEmptyNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, newest(t), "--slow-start", "0")
	var all []*moody
	for n := range 4 {
		m := moodyHTTP(t, fmt.Sprintf("server-%d", n+1))
		all = append(all, m)
	}
	s.register(t, "http_server", map[string]string{
		"lb-outlier-error-rate": "50", "lb-outlier-min-requests": "20", "lb-outlier-interval": "5s", "lb-outlier-max-ejection-percent": "50",
	}, all...)
	for _, m := range all {
		m.failing.Store(true)
	}
	load := lbtest.StartCallers(t, 2, pause, func() (lbtest.Caller, error) {
		return httpCaller{&http.Client{Transport: &http.Transport{}}, "http://" + s.HTTP + "/"}, nil
	})
	s.Eventually("all are failing, and half of them get traffic", func() error {
		instances, err := s.instances()
		if err != nil {
			return err
		}
		out, kept := 0, 0
		for _, i := range instances {
			switch {
			case i.Ejected:
				out++
			case strings.HasPrefix(i.Reason, "stays in rotation, because too few others are left: "):
				kept++
			}
		}
		if out != 2 || kept != 2 {
			return fmt.Errorf("%+v", instances)
		}
		return nil
	})
	instances, err := s.instances()
	require.NoError(t, err)
	assert.Regexp(t, `: [0-9]+ of the last 20 calls failed: 503$`, instances["server-1"].Reason)
	s.WaitServing(hello, 2)
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())
}

// TestTheCircuitBreakerSurvivesRestarts kills lbctl and nginx while an instance fails.
func TestTheCircuitBreakerSurvivesRestarts(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, newest(t), "--slow-start", "0")
	bad, good := moodyHTTP(t, "bad"), moodyHTTP(t, "good")
	s.register(t, "http_server", map[string]string{"lb-outlier-consecutive-errors": "5", "lb-outlier-base-ejection-time": "10m", "lb-outlier-max-ejection-time": "10m"}, bad, good)
	bad.failing.Store(true)
	load := lbtest.StartCallers(t, 2, pause, func() (lbtest.Caller, error) {
		return httpCaller{&http.Client{Transport: &http.Transport{}}, "http://" + s.HTTP + "/"}, nil
	})
	s.waitEjected("bad")
	s.KillLbctl()
	load.WaitMore(t, 100)
	s.StartLbctl()
	s.waitEjected("bad") // an ejection ends with the process, so it gets traffic until it has failed again
	lostNothing(t, load.Stop())
	s.Nginx().Stop()
	s.StartNginx()
	s.WaitServing(hello, 1)
	bad.failing.Store(false)
	good.failing.Store(true)
	load = lbtest.StartCallers(t, 2, pause, func() (lbtest.Caller, error) {
		return httpCaller{&http.Client{Transport: &http.Transport{}}, "http://" + s.HTTP + "/"}, nil
	})
	s.Eventually("the new nginx's log is read", func() error {
		all, err := s.instances()
		if err == nil && !strings.Contains(all["good"].Reason, "5 of the last 5 calls failed: 503") {
			err = fmt.Errorf("%+v", all)
		}
		return err
	})
	lostNothing(t, load.Stop())
}
