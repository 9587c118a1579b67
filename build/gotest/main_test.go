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
	total := report(strings.NewReader(events), &out, false)

	assert.Equal(t, counts{passed: 1, failed: 1, skipped: 1}, total)
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
