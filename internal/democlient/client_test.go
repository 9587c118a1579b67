package democlient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"lbctl/protos"
)

const patience = 20 * time.Second // bounds every wait, and is much longer than any takes

// pingServer answers call number n, from 1, unary or in a stream, with the result of answer.
type pingServer struct {
	protos.UnimplementedPingServer
	answer func(ctx context.Context, n int) (string, error)
	calls  atomic.Int64
}

func (s *pingServer) SayHello(ctx context.Context, _ *protos.PingMessage) (*protos.PingMessage, error) {
	greeting, err := s.answer(ctx, int(s.calls.Add(1)))
	return &protos.PingMessage{Greeting: greeting}, err
}

func (s *pingServer) Stream(stream protos.Ping_StreamServer) error {
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		greeting, err := s.answer(stream.Context(), int(s.calls.Add(1)))
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&protos.PingMessage{Greeting: greeting}); err != nil {
			return err
		}
	}
}

// serve starts a server on a free port and returns it with its address.
func serve(t *testing.T, answer func(ctx context.Context, n int) (string, error)) (*grpc.Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer()
	protos.RegisterPingServer(s, &pingServer{answer: answer})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		assert.NoError(t, <-served)
	})
	return s, l.Addr().String()
}

func hello(context.Context, int) (string, error) { return "Hello from blue.", nil }

// client runs grpc_client with args and returns its output.
func client(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, events bytes.Buffer
	code = Main(ctx, args, &out, &events)
	require.NoError(t, ctx.Err(), "grpc_client %v did not end by itself", args)
	return code, out.String(), events.String()
}

// clientReport runs grpc_client with -json, and parses its output.
func clientReport(t *testing.T, args ...string) (code int, r report, stderr string) {
	t.Helper()
	code, stdout, stderr := client(t, append(args, "-json")...)
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	return code, r, stderr
}

func TestOneCallPrintsOnlyTheAnswer(t *testing.T) {
	_, addr := serve(t, func(context.Context, int) (string, error) { return "Hello from 1b40646880d9.", nil })
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	for _, args := range [][]string{
		{"-port=" + port},
		{"-addr", addr},
		{"-addr", "127.0.0.1", "-port", port},
		{"-addr", ":" + port},
		{"-addr", "dns:///" + addr},
		{"-addr", addr, "-stream", "-n", "1"},
	} {
		code, stdout, stderr := client(t, args...)
		assert.Equal(t, exitAnswered, code, "%v", args)
		assert.Equal(t, "Hello from 1b40646880d9.\n", stdout, "%v", args)
		assert.Empty(t, stderr, "%v", args)
	}
}

func TestOneFailedCall(t *testing.T) {
	_, addr := serve(t, func(context.Context, int) (string, error) {
		return "", status.Error(codes.ResourceExhausted, "enough")
	})
	code, stdout, stderr := client(t, "-addr", addr)
	assert.Equal(t, exitFailed, code)
	assert.Empty(t, stdout)
	assert.Equal(t, "grpc_client: call "+addr+": RESOURCE_EXHAUSTED: enough\n", stderr)

	code, r, stderr := clientReport(t, "-addr", addr)
	assert.Equal(t, exitFailed, code)
	assert.Empty(t, stderr)
	assert.Equal(t, 1, r.Failed)
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	for _, mode := range []string{"-stream=false", "-stream"} {
		code, stdout, stderr := client(t, "-addr", l.Addr().String(), "-n=1", mode)
		assert.Equal(t, exitFailed, code)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, "UNAVAILABLE: ")
		assert.Contains(t, stderr, "connection refused")
	}
	code, r, stderr := clientReport(t, "-addr", l.Addr().String(), "-n=2", "-stream", "-interval=0s")
	assert.Equal(t, exitFailed, code)
	assert.Equal(t, &streams{}, r.Streams, "a stream that was never opened is not broken")
	assert.Contains(t, stderr, "first failure: UNAVAILABLE: ")
}

func TestManyCallsAreCountedByServer(t *testing.T) {
	_, addr := serve(t, func(_ context.Context, n int) (string, error) {
		switch {
		case n%10 == 0:
			return "something else", nil
		case n%2 == 0:
			return "Hello from blue.", nil
		default:
			return "Hello from green.", nil
		}
	})
	begun := time.Now()
	code, r, stderr := clientReport(t, "-addr", addr, "-n=100", "-c=7", "-connections=3", "-authority=api.example.com")
	ended := time.Now()

	assert.Equal(t, exitAnswered, code)
	assert.Equal(t, addr, r.Target)
	assert.Equal(t, "api.example.com", r.Authority)
	assert.Equal(t, "unary", r.Mode)
	assert.Nil(t, r.Streams)
	assert.Equal(t, []int{100, 100, 0}, []int{r.Calls, r.Answered, r.Failed})
	assert.Empty(t, r.Failures)
	assert.Positive(t, r.CallsPerSecond)

	var from []string
	for _, a := range r.Answers {
		from = append(from, fmt.Sprintf("%d %s", a.Calls, a.From))
		assert.False(t, a.First.Before(begun), "first of %s", a.From)
		assert.False(t, a.Last.Before(a.First), "last of %s", a.From)
		assert.False(t, a.Last.After(ended), "last of %s", a.From)
		assert.Contains(t, stderr, "first answer from "+a.From+"\n")
	}
	assert.Equal(t, []string{"50 green", "40 blue", "10 something else"}, from)
	assert.Equal(t, 3, strings.Count(stderr, "\n"))

	l := r.Latency
	require.NotNil(t, l)
	assert.Positive(t, l.Min)
	assert.IsNonDecreasing(t, []float64{l.Min, l.P50, l.P90, l.P99, l.Max})
}

func TestFailuresAreCountedByCode(t *testing.T) {
	_, addr := serve(t, func(_ context.Context, n int) (string, error) {
		switch {
		case n%5 == 0:
			return "", status.Errorf(codes.Unavailable, "no healthy instance, call %d", n)
		case n == 1:
			return "", status.Error(codes.Canceled, "no")
		default:
			return "Hello from blue.", nil
		}
	})
	code, r, stderr := clientReport(t, "-addr", addr, "-n=20")
	assert.Equal(t, exitFailed, code)
	assert.Equal(t, []int{20, 15, 5}, []int{r.Calls, r.Answered, r.Failed})
	require.Len(t, r.Failures, 2)
	assert.Equal(t, "UNAVAILABLE", r.Failures[0].Code)
	assert.Equal(t, 4, r.Failures[0].Calls)
	assert.Equal(t, "no healthy instance, call 5", r.Failures[0].Example)
	assert.True(t, r.Failures[0].First.Before(r.Failures[0].Last))
	assert.Equal(t, "CANCELLED", r.Failures[1].Code)
	assert.Equal(t, 1, strings.Count(stderr, "first failure: UNAVAILABLE"))

	_, stdout, _ := client(t, "-addr", addr, "-n=20", "-quiet")
	assert.Contains(t, stdout, "20 calls to "+addr)
	assert.Contains(t, stdout, "UNAVAILABLE: no healthy instance, call 2")
}

func TestTimeoutIsForEachAnswer(t *testing.T) {
	_, addr := serve(t, func(ctx context.Context, n int) (string, error) {
		if n != 2 {
			return "Hello from blue.", nil
		}
		<-ctx.Done()
		return "", status.FromContextError(ctx.Err()).Err()
	})
	code, r, _ := clientReport(t, "-addr", addr, "-n=4", "-timeout=2s")
	assert.Equal(t, exitFailed, code)
	assert.Equal(t, 3, r.Answered)
	require.Len(t, r.Failures, 1)
	assert.Equal(t, "DEADLINE_EXCEEDED", r.Failures[0].Code)
}

func TestTimeoutBreaksAStream(t *testing.T) {
	_, addr := serve(t, func(ctx context.Context, n int) (string, error) {
		if n != 2 {
			return "Hello from blue.", nil
		}
		<-ctx.Done()
		return "", status.FromContextError(ctx.Err()).Err()
	})
	code, r, stderr := clientReport(t, "-addr", addr, "-n=4", "-timeout=2s", "-stream", "-interval=0s")
	assert.Equal(t, exitFailed, code)
	assert.Equal(t, 3, r.Answered)
	require.Len(t, r.Failures, 1)
	assert.Equal(t, "DEADLINE_EXCEEDED", r.Failures[0].Code)
	assert.Equal(t, "no answer in time: 2s", r.Failures[0].Example)
	assert.Equal(t, &streams{Opened: 2, Broken: 1}, r.Streams)
	assert.Contains(t, stderr, "and 1 answer: DEADLINE_EXCEEDED: no answer in time: 2s\n")
}

func TestStreamsStayOpen(t *testing.T) {
	_, addr := serve(t, hello)
	code, r, _ := clientReport(t, "-addr", addr, "-stream", "-n=30", "-c=3", "-interval=1ms")
	assert.Equal(t, exitAnswered, code)
	assert.Equal(t, "stream", r.Mode)
	assert.Equal(t, 30, r.Answered)
	assert.Equal(t, 0, r.Streams.Broken)
	assert.LessOrEqual(t, r.Streams.Opened, 3)
	assert.Positive(t, r.Streams.Opened)
}

func TestBrokenStreamsAreReportedAndReplaced(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"an error":              {status.Error(codes.Unavailable, "going away"), "UNAVAILABLE: going away"},
		"the end of the stream": {io.EOF, "UNKNOWN: the server ended the stream"},
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := serve(t, func(_ context.Context, n int) (string, error) {
				if n == 3 {
					return "", test.err
				}
				return "Hello from blue.", nil
			})
			code, r, stderr := clientReport(t, "-addr", addr, "-stream", "-n=5", "-interval=0s")
			assert.Equal(t, exitFailed, code)
			assert.Equal(t, []int{5, 4, 1}, []int{r.Calls, r.Answered, r.Failed})
			assert.Equal(t, &streams{Opened: 2, Broken: 1}, r.Streams)
			assert.Equal(t, test.want, r.Failures[0].Code+": "+r.Failures[0].Example)
			assert.Regexp(t, `\+\d+\.\d\ds  stream broke after \d+\.\d\ds and 2 answers: `+test.want+"\n", stderr)
			assert.NotContains(t, stderr, "first failure", "the broken stream has been reported already")

			code, stdout, _ := client(t, "-addr", addr, "-stream", "-n=2", "-interval=0s", "-quiet")
			assert.Equal(t, exitAnswered, code)
			assert.Contains(t, stdout, "1 opened, 0 broken")
		})
	}
}

func TestStreamThatEndsBadlyIsBroken(t *testing.T) {
	s, addr := serve(t, hello)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// The server ends the stream after the last answer; only closing it shows that.
	answered := writerFunc(func(b []byte) {
		if strings.Contains(string(b), "first answer") {
			s.Stop()
		}
	})
	var stdout bytes.Buffer
	code := Main(ctx, []string{"-addr", addr, "-stream", "-n=2", "-c=2", "-interval=1h", "-duration=100ms", "-json"}, &stdout, answered)
	assert.Equal(t, exitFailed, code)
	var r report
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r))
	assert.Equal(t, []int{1, 1, 0}, []int{r.Calls, r.Answered, r.Failed})
	assert.Equal(t, &streams{Opened: 1, Broken: 1}, r.Streams)
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestDurationEndsTheCalls(t *testing.T) {
	for _, mode := range []string{"-stream=false", "-stream"} {
		_, addr := serve(t, hello)
		code, r, _ := clientReport(t, "-addr", addr, "-duration=200ms", "-interval=20ms", "-c=2", mode)
		assert.Equal(t, exitAnswered, code)
		assert.GreaterOrEqual(t, r.Seconds, 0.2)
		assert.Positive(t, r.Answered)
		assert.LessOrEqual(t, r.Answered, 22, "no more than one call per worker and interval")
	}
}

func TestInterruptLetsCallsInFlightFinish(t *testing.T) {
	inFlight, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	_, addr := serve(t, func(context.Context, int) (string, error) {
		once.Do(func() { close(inFlight) })
		<-goOn
		return "Hello from blue.", nil
	})
	ctx, interrupt := context.WithCancel(context.Background())
	var stdout bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- Main(ctx, []string{"-addr", addr, "-n=0", "-timeout=20s"}, &stdout, io.Discard) }()
	<-inFlight
	interrupt()
	close(goOn)
	select {
	case c := <-code:
		assert.Equal(t, exitAnswered, c)
	case <-time.After(patience):
		require.FailNow(t, "the client did not end")
	}
	assert.Contains(t, stdout.String(), "1 answered, 0 failed")
}

func TestNothingAnsweredIsAFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitFailed, Main(ctx, []string{"-json"}, &stdout, &stderr))
	assert.Contains(t, stdout.String(), `"latency": null`)
}

func TestAuthorityIsAskedFor(t *testing.T) {
	_, addr := serve(t, func(ctx context.Context, _ int) (string, error) {
		return "Hello from " + strings.Join(metadata.ValueFromIncomingContext(ctx, ":authority"), ",") + ".", nil
	})
	_, stdout, _ := client(t, "-addr", addr, "-authority", "api.example.com")
	assert.Equal(t, "Hello from api.example.com.\n", stdout)
	_, stdout, _ = client(t, "-addr", addr)
	assert.Equal(t, "Hello from "+addr+".\n", stdout)
}

func TestUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"mistaken flags": {"-port=none", "-n=-1"},
		"no such target": {"-addr=dns://%zz"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := client(t, args...)
			assert.Equal(t, exitUsage, code)
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, "grpc_client: ")
		})
	}
	code, stdout, stderr := client(t, "-help")
	assert.Equal(t, exitAnswered, code)
	assert.Equal(t, help, stdout)
	assert.Empty(t, stderr)
}

func TestResultThatCannotBeWritten(t *testing.T) {
	_, addr := serve(t, hello)
	for _, args := range [][]string{{"-n=1"}, {"-n=2", "-quiet"}, {"-json"}} {
		var stderr bytes.Buffer
		code := Main(context.Background(), append(args, "-addr="+addr), brokenWriter{}, &stderr)
		assert.Equal(t, exitFailed, code)
		assert.Equal(t, "grpc_client: write the result: broken\n", stderr.String())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }
