package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestReport(t *testing.T) {
	const events = `{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestGood"}
{"Action":"output","Package":"a","Test":"TestGood","Output":"a good word\n"}
{"Action":"pass","Package":"a","Test":"TestGood","Elapsed":0.5}
{"Action":"output","Package":"a","Test":"TestBad","Output":"a_test.go:7: want 2\n"}
{"Action":"fail","Package":"a","Test":"TestBad","Elapsed":0.1}
{"Action":"output","Package":"a","Output":"FAIL\n"}
{"Action":"fail","Package":"a","Elapsed":0.6}
{"Action":"output","Package":"b","Test":"TestIdle","Output":"=== RUN   TestIdle\n"}
{"Action":"output","Package":"b","Test":"TestIdle","Output":"b_test.go:3: no engine\n"}
{"Action":"skip","Package":"b","Test":"TestIdle","Elapsed":0}
{"Action":"output","Package":"b","Output":"ok  \tb\t0.1s\n"}
{"Action":"pass","Package":"b","Elapsed":0.1}
{"Action":"output","Package":"c","Output":"?   \tc\t[no test files]\n"}
{"Action":"skip","Package":"c","Elapsed":0}
{"ImportPath":"d","Action":"build-output","Output":"d.go:1: undefined: x\n"}
{"ImportPath":"d","Action":"build-fail"}
not JSON at all
`
	var out strings.Builder
	total, reasons := report(strings.NewReader(events), &out, false)

	assert.Equal(t, counts{passed: 1, failed: 1, skipped: 1}, total)
	assert.Equal(t, []string{"failed: TestBad: a_test.go:7: want 2"}, reasons)
	assert.Equal(t, `a_test.go:7: want 2
FAIL
skip  TestIdle
b_test.go:3: no engine
ok    b  100ms
d.go:1: undefined: x
not JSON at all
`, out.String())

	out.Reset()
	report(strings.NewReader(events), &out, true)
	assert.Contains(t, out.String(), "pass  TestGood  500ms\na good word\n")
}

func TestWhy(t *testing.T) {
	for name, row := range map[string]struct{ said, want string }{
		"the assertion, not the logs around it": {
			said: `=== RUN   TestLocal
    local_test.go:58: 513 calls, 1 failed
    local_test.go:59: 
        	Error Trace:	local_test.go:59
        	Error:      	Should be zero, but was 1
        	            	twice
        	Test:       	TestLocal
        	Messages:   	map[Unavailable:1]
    local_test.go:32: lbctl:
        level=info Error: of another
--- FAIL: TestLocal (48.69s)
`,
			want: "local_test.go:59: Should be zero, but was 1 twice map[Unavailable:1]",
		},
		"the last message of a test without testify": {
			said: "    a_test.go:3: hello\n        world\n    a_test.go:4: end\n--- FAIL: TestA (0.00s)\n",
			want: "a_test.go:4: end",
		},
		"not the logs that are shown after a failure": {
			said: "    a_test.go:3: wait until it serves: not within 30s\n    server.go:94: log of Consul's server-1:\n        b.go:1: started\n    server.go:94: log of lbctl:\n        x\n--- FAIL: TestA (0.00s)\n",
			want: "a_test.go:3: wait until it serves: not within 30s",
		},
		"a test whose subtest failed": {said: "--- FAIL: TestA (0.00s)\n", want: "it says nothing; a subtest may"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, row.want, why([]string{row.said}))
		})
	}
	assert.Len(t, why([]string{"    a_test.go:3: " + strings.Repeat("x", 1000)}), maxReason)
}
