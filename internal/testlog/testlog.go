// Package testlog keeps the logs of processes for tests, and shows them when a test has failed.
package testlog

import "testing"

// Prefix begins what [Show] logs. build/gotest knows by it that the text is not the reason
// why a test failed.
const Prefix = "log of "

// Show logs what read returns if the test has failed. It is for functions that run at a
// test's end: earlier, the test may yet fail.
func Show(t testing.TB, name string, read func() string) {
	t.Helper()
	if t.Failed() {
		t.Logf("%s%s:\n%s", Prefix, name, read())
	}
}
