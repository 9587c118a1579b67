package doctor

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
)

// checkUser checks that nginx's workers, which run as another user, reach their files.
func checkUser(_ context.Context, e *examination) []Finding {
	if os.Geteuid() != 0 {
		return skipped("without root, nginx's workers run as the user of its master")
	}
	settings, err := e.Config.Nginx.Settings(e.Config.StateDir, e.Config.RunDir, e.nginx.build)
	if err != nil {
		return skipped("%v", err)
	}
	found, err := user.Lookup(settings.User)
	if err != nil {
		return failed(err.Error(), "an existing user")
	}
	dirs := []string{e.Config.RunDir, filepath.Join(e.Config.StateDir, "seeds")}
	if settings.AccessLogDir != "" {
		dirs = append(dirs, settings.AccessLogDir)
	}
	for _, dir := range dirs {
		if closed := closedFor(found, dir); closed != "" {
			return failed(fmt.Sprintf("the user %s of nginx's workers can't reach %s: %s is closed for it", settings.User, dir, closed),
				"directories that it may pass through")
		}
	}
	return ok("the user %s of nginx's workers reaches their files", settings.User)
}

// closedFor returns the directory on the way to a path that a user may not pass through; "" if
// there is none. It looks at the modes only, not at access control lists.
func closedFor(who *user.User, path string) string {
	groups, err := who.GroupIds()
	if err != nil {
		return ""
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && !allowed(who, groups, info, 1) {
			return dir
		}
		if dir == "/" || dir == "." {
			return ""
		}
	}
}
