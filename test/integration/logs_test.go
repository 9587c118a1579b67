package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"lbctl/internal/accesslog"
	"lbctl/internal/history"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/internal/requestlog"
	"lbctl/protos"
)

// output returns the lines that lbctl has written to its standard output. Each must be JSON.
func (s *system) output(t *testing.T) (all []requestlog.Line) {
	t.Helper()
	text := s.Output()
	for text := range strings.Lines(text[:strings.LastIndexByte(text, '\n')+1]) {
		var line requestlog.Line
		require.NoError(t, json.Unmarshal([]byte(text), &line), "%q", text)
		all = append(all, line)
	}
	return all
}

// logged waits until the standard output has so many requests for a path, and returns them.
func (s *system) logged(t *testing.T, path string, n int) (all []requestlog.Line) {
	t.Helper()
	s.Eventually(fmt.Sprintf("%d requests for %s are logged", n, path), func() error {
		all = slices.DeleteFunc(s.output(t), func(l requestlog.Line) bool { return l.Request == nil || l.Path != path })
		if len(all) < n {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	return all
}

// service registers an instance whose check passes.
func (s *system) service(t *testing.T, name, id string, port int, meta map[string]string) {
	t.Helper()
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: name, ID: id, Address: "127.0.0.1", Port: port, Meta: meta,
		Check: &api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing},
	}))
}

// closedPort is a port that refuses connections.
func closedPort(t *testing.T) int { return nginxtest.FreePort(t) }

// TestLogs has a request of each kind, and looks for it in all logs.
func TestLogs(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		s := alone(t, nginx, "--request-log", "stdout", "--probe", "off", "--tracing", "on", "--otlp-endpoint", "http://127.0.0.1:1", "--trace-sample", "0")
		good, bad := moodyHTTP(t, "good"), moodyHTTP(t, "bad")
		bad.failing.Store(true)
		calls := moodyGRPC(t, "calls")
		http80 := map[string]string{"lb-protocol": "http", "lb-path": "/shop", "lb-version": "v7"}
		s.service(t, "shop", "shop-1", good.port, http80)
		s.service(t, "shop", "shop-2", closedPort(t), http80)
		s.service(t, "bad", "bad-1", bad.port, map[string]string{"lb-protocol": "http", "lb-path": "/bad"})
		s.service(t, "dead", "dead-1", closedPort(t), map[string]string{"lb-protocol": "http", "lb-path": "/dead"})
		s.service(t, "calls", "calls-1", calls.port, map[string]string{"lb-protocol": "grpc", "lb-path": "/protos.Ping"})
		s.WaitServing("shop", 2)
		s.WaitServing("dead", 1)
		s.WaitServing("calls", 1)
		s.WaitServing("bad", 1)

		do := func(path string, header ...string) {
			request, err := http.NewRequest(http.MethodGet, "http://"+s.HTTP+path, nil)
			require.NoError(t, err)
			for n := 0; n < len(header); n += 2 {
				request.Header.Set(header[n], header[n+1])
			}
			answer, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
		for range 4 { // nginx begins with each in turn
			do("/shop/cart", "X-Request-Id", "order-4711")
		}
		do("/bad", "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		do("/dead")
		do("/nowhere")
		conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer conn.Close()
		ping := protos.NewPingClient(conn)
		_, err = ping.SayHello(t.Context(), &protos.PingMessage{})
		require.NoError(t, err)
		calls.failing.Store(true)
		_, err = ping.SayHello(t.Context(), &protos.PingMessage{})
		require.Error(t, err)

		again := 0
		for _, l := range s.logged(t, "/shop/cart", 4) {
			assert.Equal(t, "GET /shop/cart 200", l.Msg)
			assert.Equal(t, []any{"shop", "*/shop", "http", "shop-1", "v7", fmt.Sprintf("127.0.0.1:%d", good.port), "127.0.0.1", "order-4711", true},
				[]any{l.Service, l.Route, l.Protocol, l.Instance, l.Version, l.Endpoint, l.Client, l.RequestID, l.Complete})
			assert.Positive(t, l.RequestBytes)
			assert.Positive(t, l.ResponseBytes)
			assert.NotNil(t, l.UpstreamResponseSeconds)
			assert.Equal(t, accesslog.ResultSuccess, l.Tries[len(l.Tries)-1].Result)
			if len(l.Tries) == 2 {
				again++
				assert.Equal(t, []any{"shop-2", "connect", 502, "WARN"}, []any{l.Tries[0].Instance, l.Tries[0].Result, l.Tries[0].Status, l.Level})
			}
		}
		assert.Equal(t, 2, again)
		l := s.logged(t, "/bad", 1)[0]
		assert.Equal(t, []any{"bad-1", 503, 0, "5xx", "ERROR"}, []any{l.Instance, l.Status, l.NginxError, l.Tries[0].Result, l.Level})
		assert.Equal(t, []string{"4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01"}, []string{l.TraceID, l.ParentSpanID, l.TraceFlags})
		assert.Regexp(t, "^[0-9a-f]{16}$", l.SpanID)
		l = s.logged(t, "/dead", 1)[0]
		assert.Regexp(t, "^[0-9a-f]{32}$", l.TraceID)
		assert.Equal(t, []string{"", "00"}, []string{l.ParentSpanID, l.TraceFlags})
		assert.Equal(t, []any{"dead-1", 502, 502, "unreachable", "ERROR"}, []any{l.Instance, l.Status, l.NginxError, l.NginxErrorReason, l.Level})
		l = s.logged(t, "/nowhere", 1)[0]
		assert.Equal(t, []any{"", 404, 404, "no-route", "WARN"}, []any{l.Service, l.Status, l.NginxError, l.NginxErrorReason, l.Level})
		assert.Empty(t, l.Tries)
		both := s.logged(t, "/protos.Ping/SayHello", 2)
		assert.Equal(t, []any{"calls", "grpc", "OK", "INFO"}, []any{both[0].Service, both[0].Protocol, both[0].GRPCStatus, both[0].Level})
		assert.Equal(t, []any{"calls-1", 200, "UNAVAILABLE", "UNAVAILABLE", "ERROR"}, []any{both[1].Instance, both[1].Status, both[1].GRPCStatus, both[1].Tries[0].Result, both[1].Level})

		// lbctl logs has the same.
		for args, want := range map[string]int{
			"--service shop": 4, "--instance shop-2": 2, "--route */shop": 4, "--status 5xx": 2, "--status 404": 1, "--grpc-status error": 1,
			"--grpc-status OK": 1, "--request-id order-": 4, "--client 127.0.0.0/8 --requests": 9, "--client 192.0.2.0/24": 0, "--slower-than 1h": 0,
			"--since 1h --requests": 9, "--limit 2 --service shop": 2,
		} {
			args := append([]string{"logs", "--requests", "-o", "json"}, strings.Fields(args)...)
			out, err := s.Lbctl(args...)
			require.NoError(t, err)
			assert.Equal(t, want, strings.Count(out, "\n"), "%s: %s", args, out)
		}
		text, err := s.Lbctl("logs", "--instance", "shop-2")
		require.NoError(t, err)
		assert.Contains(t, text, "after shop-2 no connection")
		text, err = s.Lbctl("logs", "--trace", "4bf92f")
		require.NoError(t, err)
		assert.Contains(t, text, "from 127.0.0.1, trace 4bf92f3577b34da6a3ce929d0e0e4736")

		// Both have the events.
		applied := func(l requestlog.Line) bool {
			return l.Event != nil && l.Kind == history.Applied && strings.Contains(l.Change, "shop")
		}
		assert.True(t, slices.ContainsFunc(s.output(t), applied))
		text, err = s.Lbctl("logs", "--events", "--service", "shop")
		require.NoError(t, err)
		assert.Contains(t, text, "shop")
		assert.NotContains(t, text, "GET")
	})
}

// TestFollowingTheLog follows over a restart of lbctl.
func TestFollowingTheLog(t *testing.T) {
	s := alone(t, newest(t))
	web := moodyHTTP(t, "web")
	s.register(t, "http_server", nil, web)
	ctx, cancel := context.WithTimeout(t.Context(), lbtest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, lbtest.Binary(t), "logs", "-f", "--limit", "0", "--state-dir", s.StateDir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	errs, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines, said := bufio.NewScanner(out), bufio.NewScanner(errs)
	get := func(path string) error {
		answer, err := http.Get("http://" + s.HTTP + path)
		if err != nil {
			return err
		}
		return answer.Body.Close()
	}
	// The command may not follow yet.
	appears := make(chan string)
	go func() {
		for lines.Scan() {
			appears <- lines.Text()
		}
		close(appears)
	}()
	until := func(path string) {
		t.Helper()
		s.Eventually("a request for "+path+" is shown", func() error {
			require.NoError(t, get(path))
			select {
			case line := <-appears:
				if strings.Contains(line, "GET "+path) {
					return nil
				}
				return fmt.Errorf("%s", line)
			case <-time.After(500 * time.Millisecond):
				return fmt.Errorf("nothing comes")
			}
		})
	}
	until("/before")
	s.KillLbctl()
	require.True(t, said.Scan())
	assert.Contains(t, said.Text(), "lines may be missing")
	s.StartLbctl()
	until("/after")
	require.True(t, said.Scan())
	assert.Contains(t, said.Text(), "answers again")

	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	go func() {
		for range appears { // what comes in between
		}
	}()
	assert.NoError(t, cmd.Wait(), "exit code 0")
}

// secrets are what must be in no line: each name says where it is sent.
var secrets = []string{
	"SECRET-QUERY", "SECRET-AUTHORIZATION", "SECRET-COOKIE", "SECRET-KEY", "SECRET-USER", "SECRET-PASSWORD", "SECRET-SESSION", "SECRET-FRAGMENT",
	"SECRET-METADATA", "SECRET-BODY", "SECRET-AUTHORITY", "SECRET-REFERER", "SECRET-REQUESTID", "SECRET-ANSWER", "SECRET-TRACE", "SECRET-BAGGAGE",
}

// TestSecretsAreInNoLog sends secrets wherever clients and instances may have some, and looks at the
// file on the tmpfs, the standard output, lbctl's log and 'lbctl logs'.
func TestSecretsAreInNoLog(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		s := alone(t, nginx, "--request-log", "stdout", "--log-level", "debug", "--probe", "off", "--tracing", "on", "--otlp-endpoint", "http://127.0.0.1:1")
		web := moodyHTTP(t, "SECRET-ANSWER")
		calls := moodyGRPC(t, "SECRET-ANSWER")
		s.service(t, "web", "web-1", web.port, map[string]string{"lb-protocol": "http", "lb-path": "/web"})
		s.service(t, "dead", "dead-1", closedPort(t), map[string]string{"lb-protocol": "http", "lb-path": "/dead"})
		s.service(t, "calls", "calls-1", calls.port, map[string]string{"lb-protocol": "grpc", "lb-path": "/protos.Ping"})
		for _, name := range []string{"web", "dead", "calls"} {
			s.WaitServing(name, 1)
		}
		s.PauseLbctl() // so that the file keeps what nginx writes

		conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("SECRET-AUTHORITY@calls"))
		require.NoError(t, err)
		defer conn.Close()
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer SECRET-AUTHORIZATION", "x-token", "SECRET-METADATA", "x-request-id", "SECRET-REQUESTID?")
		for _, path := range []string{"/protos.Ping/SayHello", "/protos.Ping/SayHello?key=SECRET-QUERY", "/no.Such/Method;SECRET-SESSION"} {
			conn.Invoke(ctx, path, &protos.PingMessage{Greeting: "SECRET-BODY"}, &protos.PingMessage{}) // some fail
		}
		const headers = "Authorization: Basic SECRET-AUTHORIZATION\r\nCookie: session=SECRET-COOKIE\r\nX-API-Key: SECRET-KEY\r\nProxy-Authorization: SECRET-KEY\r\n" +
			"Traceparent: 00-SECRET-TRACE\r\nTracestate: a=SECRET-TRACE\r\nBaggage: a=SECRET-BAGGAGE\r\nB3: SECRET-TRACE\r\n" +
			"Referer: http://x/?SECRET-REFERER\r\nX-Request-Id: SECRET-REQUESTID \"'\r\nConnection: close\r\n"
		for _, begin := range []string{
			"GET /web?key=SECRET-QUERY HTTP/1.1\r\nHost: web\r\n",
			"GET /dead?key=SECRET-QUERY HTTP/1.1\r\nHost: web\r\n",
			"GET /nowhere?key=SECRET-QUERY HTTP/1.1\r\nHost: web\r\n",
			"GET /web/a;jsessionid=SECRET-SESSION HTTP/1.1\r\nHost: web\r\n",
			"GET /web/b#SECRET-FRAGMENT HTTP/1.1\r\nHost: web\r\n",
			"GET /web/c?a=1?SECRET-QUERY&x=%00;SECRET-SESSION#SECRET-FRAGMENT HTTP/1.1\r\nHost: web\r\n",
			"GET http://SECRET-USER:SECRET-PASSWORD@web/web/d HTTP/1.1\r\nHost: web\r\n",
			"GET http://web/web/e?SECRET-QUERY HTTP/1.1\r\nHost: web\r\n",
			"GET /web/f HTTP/1.1\r\nHost: SECRET-USER:SECRET-PASSWORD@web\r\n",
			"GET /web/g HTTP/1.1\r\nHost: SECRET-USER@web\r\n",
			"TRACE /web/h?SECRET-QUERY HTTP/1.1\r\nHost: web\r\n",
			"GET /web/i?SECRET-QUERY HTTP/9.9\r\nHost: web\r\n",
		} {
			raw, err := net.Dial("tcp", s.HTTP)
			require.NoError(t, err)
			_, err = io.WriteString(raw, begin+headers+"\r\n")
			require.NoError(t, err)
			io.Copy(io.Discard, raw)
			raw.Close()
		}
		_, err = http.Post("http://"+s.HTTP+"/web/last", "text/plain", strings.NewReader("SECRET-BODY"))
		require.NoError(t, err)

		file := ""
		s.Eventually("nginx has written all lines", func() error {
			f, err := os.Open(accesslog.Path(s.AccessLogDir()))
			if err != nil {
				return err
			}
			defer f.Close()
			const seekData = 3
			from, err := f.Seek(0, seekData)
			if err != nil {
				return err
			}
			b, err := io.ReadAll(io.NewSectionReader(f, from, 1<<30))
			if file = string(b); !strings.Contains(file, "/web/last") {
				return fmt.Errorf("%q, %v", file, err)
			}
			return nil
		})
		s.ContinueLbctl()
		s.logged(t, "/web/last", 1)
		all := map[string]string{"the file of nginx": file, "the standard output": s.Output(), "lbctl's log": s.Log()}
		for _, args := range []string{"logs --limit 1000", "logs --limit 1000 -o json", "logs --limit 1000 -o yaml"} {
			all["lbctl "+args], err = s.Lbctl(strings.Fields(args)...)
			require.NoError(t, err)
		}
		for where, text := range all {
			if where != "lbctl's log" { // the requests are there at all
				for _, path := range []string{"/web", "/dead", "/nowhere", "/web/a", "/web/b", "/web/c", "/web/e", "/web/g", "/web/h", "/protos.Ping/SayHello", "/no.Such/Method"} {
					assert.Contains(t, text, path, where)
				}
			}
			for _, secret := range secrets {
				assert.NotContains(t, text, secret, where)
			}
		}
	})
}

// TestABrokenStandardOutputStopsNothing has nobody read lbctl's lines.
func TestABrokenStandardOutputStopsNothing(t *testing.T) {
	s := alone(t, newest(t), "--log-format", "json")
	web := moodyHTTP(t, "web")
	s.register(t, "http_server", nil, web)
	s.StopLbctl()
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer reader.Close()
	s.StartLbctlTo(writer, "--request-log", "stdout", "--request-log-memory", "1")
	require.NoError(t, writer.Close())
	s.WaitServing(hello, 1)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	const n = 9000 // more than the pipe and the memory hold
	for i := range n {
		answer, err := client.Get(fmt.Sprintf("http://%s/%d", s.HTTP, i))
		require.NoError(t, err)
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	last := fmt.Sprintf("GET /%d ", n-1)
	s.Eventually("lbctl has read the last line", func() error {
		text, err := s.Lbctl("logs", "--limit", "1", "--requests")
		if err != nil || !strings.Contains(text, last) {
			return fmt.Errorf("%s, %v", text, err)
		}
		return nil
	})
	s.Eventually("lbctl tells that lines are lost", func() error {
		if !strings.Contains(s.Log(), "the request log has lost lines") {
			return fmt.Errorf("it has not")
		}
		return nil
	})
	// The reader comes back, and learns how many.
	written, dropped := 0, 0
	lines := bufio.NewScanner(reader)
	for lines.Scan() {
		var line requestlog.Line
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line), "%q", lines.Text())
		if line.Type == requestlog.TypeDropped {
			dropped += int(line.Dropped)
			continue
		}
		if written++; strings.HasPrefix(line.Msg, last) {
			break
		}
	}
	assert.NotZero(t, dropped)
	assert.GreaterOrEqual(t, written+dropped, n)
	s.StopLbctl()
}
