package otlptest

import (
	"bufio"
	"encoding/base64"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"lbctl/internal/nginxtest"
)

// StartReal starts the receiver of OpenTelemetry's Collector, bin/otlp-receiver. It ends with the
// test. Without the program it skips the test, and with LB_TEST_REQUIRE=1 it fails the test.
func StartReal(t testing.TB) *Receiver {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	program := filepath.Join(filepath.Dir(file), "..", "..", "bin", "otlp-receiver")
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("LB_TEST_REQUIRE") == "1" {
			t.Fatalf("LB_TEST_REQUIRE=1, but OpenTelemetry's receiver is missing: %v (build/need.sh otlp-receiver builds it)", err)
		}
		t.Skipf("no receiver of OpenTelemetry's: %v (build/need.sh otlp-receiver builds it)", err)
	}
	overGRPC := net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
	overHTTP := net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
	r := &Receiver{URL: "http://" + overGRPC, HTTPURL: "http://" + overHTTP, changed: make(chan struct{})}
	cmd := exec.Command(program, overGRPC, overHTTP)
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe() // it ends with its input, also if the test process is killed
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewReader(output)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			data, err := base64.StdEncoding.DecodeString(string(line[:len(line)-1]))
			traces := &tracepb.TracesData{}
			if err == nil {
				err = proto.Unmarshal(data, traces)
			}
			if err != nil {
				t.Errorf("the receiver wrote %q: %v", line, err)
				return
			}
			r.add(traces.ResourceSpans, nil)
		}
	}()
	t.Cleanup(func() {
		input.Close()
		<-read
		cmd.Wait()
	})
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", overGRPC)
		if err == nil {
			conn.Close()
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait for the receiver: not within %s: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
