// Command gotest runs `go test` with its arguments, shows a line for each
// package and everything about the tests that fail, and ends with a line for each test
// that failed, which says why, and the counts:
//
//	failed: TestLocal: local_test.go:59: Should be zero, but was 1
//	321 passed, 1 failed, 2 skipped
//
// With -v among the arguments it shows each test as it ends, and what it logged. The
// exit code is that of `go test`. Each subtest counts as one. The counts are also
// appended, as three numbers, to the file that GOTEST_TOTALS names, so that several
// runs can be added up.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"lbctl/internal/testlog"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout)) }

// An event is a line of `go test -json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a package that does not build
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

type counts struct{ passed, failed, skipped int }

func run(args []string, out io.Writer) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "gotest: start go test: %v\n", err)
		return 1
	}
	total, reasons := report(stdout, out, slices.Contains(args, "-v"))
	err = cmd.Wait()
	// The reasons may stand thousands of lines above.
	for _, reason := range reasons {
		fmt.Fprintln(out, reason)
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", total.passed, total.failed, total.skipped)
	if path := os.Getenv("GOTEST_TOTALS"); path != "" {
		if err := total.append(path); err != nil {
			fmt.Fprintf(os.Stderr, "gotest: append the counts: %v\n", err)
		}
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "gotest: go test: %v\n", err)
		return 1
	}
	return 0
}

func (c counts) append(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%d %d %d\n", c.passed, c.failed, c.skipped)
	return errors.Join(err, file.Close())
}

// report counts the events, and writes the lines that are worth reading. The reasons have
// a line for each failed test.
func report(events io.Reader, out io.Writer, verbose bool) (total counts, reasons []string) {
	said := map[string][]string{} // package, or package and test -> output so far
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // not from `go test -json`, so show it
			continue
		}
		key := e.Package + e.ImportPath + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			said[key] = append(said[key], e.Output)
			continue
		case "build-fail":
			fmt.Fprint(out, strings.Join(said[key], ""))
		case "pass", "fail", "skip":
			took := time.Duration(e.Elapsed * float64(time.Second)).Round(10 * time.Millisecond)
			switch {
			case e.Test == "":
				fmt.Fprint(out, packageLine(e, said[key], took))
			case e.Action == "pass":
				total.passed++
				if verbose {
					fmt.Fprintf(out, "pass  %s  %s\n%s", e.Test, took, notes(said[key]))
				}
			case e.Action == "skip":
				total.skipped++
				fmt.Fprintf(out, "skip  %s\n%s", e.Test, notes(said[key]))
			default:
				total.failed++
				fmt.Fprint(out, strings.Join(said[key], ""))
				reasons = append(reasons, "failed: "+e.Test+": "+why(said[key]))
			}
		default:
			continue
		}
		delete(said, key)
	}
	return total, reasons
}

// maxReason bounds a reason, in bytes.
const maxReason = 600

var (
	// logged begins what a test logs or reports: "    local_test.go:59: ". Further lines of
	// one report are indented by more.
	logged = regexp.MustCompile(`^ {0,4}(\w+\.go:\d+:)`)
	// asserted is a field of testify's reports.
	asserted = regexp.MustCompile(`^\s*(Error Trace|Error|Test|Messages):\s+(.*)`)
)

// why is the first assertion of testify that failed, or else the last thing that the test
// said: t.Fatal ends it, but go test doesn't tell t.Error from t.Log. The logs that are shown
// because the test has failed come after the reason, and are none.
func why(said []string) string {
	var place, field, last string
	var parts []string
	for _, line := range strings.Split(strings.Join(said, ""), "\n") {
		text := strings.TrimSpace(line)
		if begin := logged.FindStringSubmatch(line); begin != nil {
			if len(parts) > 0 {
				break
			}
			field = ""
			if !strings.HasPrefix(text, begin[1]+" "+testlog.Prefix) {
				place, last = begin[1], text
			}
			continue
		}
		if f := asserted.FindStringSubmatch(line); f != nil {
			field, text = f[1], f[2]
		}
		if text != "" && (field == "Error" || field == "Messages") {
			parts = append(parts, text)
		}
	}
	reason := last
	if len(parts) > 0 {
		reason = place + " " + strings.Join(parts, " ")
	}
	if reason == "" {
		reason = "it says nothing; a subtest may"
	}
	return strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
}

// packageLine is a package's only line. When the package failed, it is also the package's
// output: a panic, or a failure outside of a test.
func packageLine(e event, said []string, took time.Duration) string {
	if e.Action == "fail" {
		return strings.Join(said, "")
	}
	text := strings.Join(said, "")
	if strings.Contains(text, "[no test files]") {
		return ""
	}
	return fmt.Sprintf("ok    %s  %s\n", e.Package, took)
}

// notes is a test's own output, without the lines that `go test` adds.
func notes(said []string) string {
	var kept []string
	for _, line := range said {
		if text := strings.TrimSpace(line); !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
