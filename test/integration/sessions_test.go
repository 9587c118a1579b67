package integration

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
	"lbctl/internal/requestlog"
)

// upper starts a TCP server that answers each byte with two.
func upper(t *testing.T) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				text, _ := io.ReadAll(conn)
				io.WriteString(conn, strings.ToUpper(string(text))+string(text))
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// session sends a text from an address of this machine, and returns the answer.
func session(from, to, text string) (string, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	conn, err := d.Dial("tcp", to)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = io.WriteString(conn, text)
	err = errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	answer, readErr := io.ReadAll(conn)
	return string(answer), errors.Join(err, readErr)
}

func tcpMeta(port string) map[string]string {
	return map[string]string{"lb-protocol": "tcp", "lb-port": port}
}

// tcpServices registers TCP services: "db" has an instance that answers, "dead" one where nothing
// listens, and "shared" has a host. The function that it returns has a session with each of the first
// two, and one with a host that no service has.
func (s *system) tcpServices(t *testing.T) (sessions func()) {
	t.Helper()
	good := upper(t)
	port := map[string]string{}
	for name, instance := range map[string]int{"db": good, "dead": closedPort(t), "shared": good} {
		port[name] = strconv.Itoa(nginxtest.FreePort(t))
		meta := tcpMeta(port[name])
		if name == "shared" {
			meta["lb-host"] = "shared.test"
		}
		s.service(t, name, name+"-1", instance, meta)
	}
	for name := range port {
		s.WaitServing(name, 1)
	}
	return func() {
		answer, err := session("127.0.0.1", "127.0.0.1:"+port["db"], "hello")
		assert.NoError(t, err)
		assert.Equal(t, "HELLOhello", answer)
		session("127.0.0.1", "127.0.0.1:"+port["dead"], "hello") // it fails at once, or with its first byte
		_, err = tls.Dial("tcp", "127.0.0.1:"+port["shared"], &tls.Config{ServerName: "nobody.test"})
		assert.Error(t, err)
	}
}

func TestSessions(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		s := alone(t, nginx, "--probe", "off", "--metrics-linger", "2s")
		shared := strconv.Itoa(nginxtest.FreePort(t))
		port, dead := strconv.Itoa(nginxtest.FreePort(t)), strconv.Itoa(nginxtest.FreePort(t))
		good := upper(t)
		s.service(t, "db", "db-1", good, tcpMeta(port))
		s.service(t, "db", "db-2", closedPort(t), tcpMeta(port))
		s.service(t, "dead", "dead-1", closedPort(t), tcpMeta(dead))
		s.WaitServing("db", 2)
		s.WaitServing("dead", 1)
		s.service(t, "shared", "shared-1", good, map[string]string{"lb-protocol": "tcp", "lb-port": shared, "lb-host": "shared.test"})
		s.WaitServing("shared", 1)

		to := "127.0.0.1:" + port
		sent, received := 0, 0
		for n := range 4 { // nginx begins with each in turn
			text := strings.Repeat("x", 1000*n+1)
			answer, err := session("127.0.0.1", to, text)
			require.NoError(t, err)
			sent, received = sent+len(text), received+len(answer)
		}
		assert.Equal(t, 2*sent, received)
		session("127.0.0.1", "127.0.0.1:"+dead, "x")
		_, err := s.Lbctl("deny", "127.0.0.2", "--service", "db", "-m", "a test", "--wait", "30s")
		require.NoError(t, err)
		session("127.0.0.2", to, "x")
		_, err = s.Lbctl("deny", "127.0.0.2", "--service", "shared", "-m", "a test", "--wait", "30s")
		require.NoError(t, err)

		s.WaitMetric(4, "lbctl_sessions_total", "service", "db", "result", "success")
		s.WaitMetric(1, "lbctl_sessions_total", "service", "db", "result", "denied")
		s.WaitMetric(1, "lbctl_sessions_total", "service", "dead", "result", "unreachable")
		s.WaitMetric(float64(sent), "lbctl_request_bytes_total", "service", "db")
		s.WaitMetric(float64(received), "lbctl_response_bytes_total", "service", "db")
		s.WaitMetric(4, "lbctl_upstream_sessions_total", "service", "db", "endpoint", fmt.Sprintf("127.0.0.1:%d", good), "result", "success")
		m, err := s.Metrics()
		require.NoError(t, err)
		retries, _ := m.Value("lbctl_upstream_retries_total", "service", "db", "reason", "connect")
		assert.Positive(t, retries)
		assert.Equal(t, uint64(5), m.Series("lbctl_session_duration_seconds", "service", "db")[0].Histogram.GetSampleCount())
		assert.Equal(t, uint64(4), m.Series("lbctl_upstream_connect_duration_seconds", "service", "db")[0].Histogram.GetSampleCount())
		for _, of := range []string{"lbctl_requests_total", "lbctl_request_duration_seconds", "lbctl_upstream_requests_total"} {
			assert.Empty(t, m.Series(of, "service", "db"), of)
		}

		for args, want := range map[string]int{
			"--service db": 5, "--service db --client 127.0.0.2": 1, "--service dead": 1, "--service db --slower-than 1h": 0, "--status 5xx": 1,
		} {
			text, err := s.Lbctl(append([]string{"logs", "--requests", "-o", "json"}, strings.Fields(args)...)...)
			require.NoError(t, err, args)
			assert.Equal(t, want, strings.Count(text, "\n"), "%s:\n%s", args, text)
			for line := range strings.Lines(text) {
				var l requestlog.Line
				require.NoError(t, json.Unmarshal([]byte(line), &l))
				assert.Equal(t, "tcp", l.Protocol)
			}
		}
		people, err := s.Lbctl("logs", "--requests")
		require.NoError(t, err)
		assert.Regexp(t, `502 .* dead-1 .* nginx: unreachable, from 127\.0\.0\.1\n`, people)
		assert.Regexp(t, `200 .* db-1 .* after db-2 no connection`, people)

		// Clients make no series: nobody has these hosts, and one may not use the service.
		for _, host := range []string{"a.test", "b.test", "shared.test"} {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}, Timeout: 10 * time.Second}
			_, err := tls.DialWithDialer(&d, "tcp", "127.0.0.1:"+shared, &tls.Config{ServerName: host})
			assert.Error(t, err, host)
		}
		s.WaitMetric(2, "lbctl_unrouted_sessions_total", "result", "no-route")
		s.WaitMetric(1, "lbctl_sessions_total", "service", "shared", "result", "denied")

		require.NoError(t, s.consul.Agent().EnableServiceMaintenance("dead-1", "a test"))
		s.Eventually("a session without an instance is counted, or there is no port", func() error {
			if _, err := session("127.0.0.1", "127.0.0.1:"+dead, "x"); errors.Is(err, syscall.ECONNREFUSED) {
				return nil // with delivery by reload
			}
			m, err := s.Metrics()
			if err == nil && len(m.Series("lbctl_sessions_total", "service", "dead", "result", "no-instance")) == 0 {
				err = errors.New("there is none")
			}
			return err
		})
		require.NoError(t, s.consul.Agent().ServiceDeregister("db-2"))
		s.WaitServing("db", 1)
		s.Eventually("the series of the instance disappear", func() error {
			m, err := s.Metrics()
			if err == nil && len(m.Series("lbctl_upstream_sessions_total", "service", "db")) != 1 {
				err = errors.New("they are there")
			}
			return err
		})
	})
}

// Each session counts once, also over kill -9.
func TestEachSessionCountsOnce(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		s := alone(t, nginx)
		port := strconv.Itoa(nginxtest.FreePort(t))
		s.service(t, "db", "db-1", upper(t), tcpMeta(port))
		s.WaitServing("db", 1)
		var (
			mu    sync.Mutex
			group sync.WaitGroup
			count int
			stop  = make(chan struct{})
		)
		for range 4 {
			group.Go(func() {
				for range 20000 {
					select {
					case <-stop:
						return
					default:
					}
					answer, err := session("127.0.0.1", "127.0.0.1:"+port, "hello")
					mu.Lock()
					count++
					mu.Unlock()
					assert.NoError(t, err)
					assert.Equal(t, "HELLOhello", answer)
				}
			})
		}
		more := func(n int) {
			mu.Lock()
			from := count
			mu.Unlock()
			s.Eventually(fmt.Sprintf("%d more sessions", n), func() error {
				mu.Lock()
				defer mu.Unlock()
				if count < from+n {
					return fmt.Errorf("%d", count-from)
				}
				return nil
			})
		}
		for range 3 {
			more(200)
			s.KillLbctl()
			more(100)
			s.StartLbctl()
		}
		more(200)
		close(stop)
		group.Wait()
		s.WaitMetric(float64(count), "lbctl_sessions_total", "service", "db", "result", "success")
		s.WaitMetric(float64(10*count), "lbctl_response_bytes_total", "service", "db")
	})
}
