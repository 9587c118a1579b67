package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"lbctl/internal/accesslog"
	"lbctl/internal/nginx"
)

// checkOwnLogs checks that operators' own servers log their requests for lbctl: nginx counts those of
// all servers, so the others look lost.
func checkOwnLogs(e *examination, log string) []Finding {
	current := nginx.CurrentDir(e.Config.StateDir)
	paths, err := filepath.Glob(filepath.Join(current, "http.d", "*.conf"))
	if err != nil {
		return failed(err.Error(), "a directory that lbctl can read")
	}
	var findings []Finding
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // nginx or the check of generations says so
		}
		for n, line := range strings.Split(string(text), "\n") {
			words := strings.Fields(strings.TrimRight(line, "; "))
			if len(words) < 2 || words[0] != "access_log" || strings.Trim(words[1], `"'`) == log {
				continue
			}
			findings = append(findings, mend(warning(
				fmt.Sprintf("http.d/%s:%d has %q: requests there look lost (lbctl_accesslog_lost_total)", filepath.Base(path), n+1, strings.Join(words, " ")), "that nginx logs them for lbctl too"),
				fmt.Sprintf("leave it out, or add: access_log %s %s %s;", log, accesslog.FormatName, accesslog.Buffering))...)
		}
	}
	return findings
}
