package controller

import (
	"context"
	"errors"
	"strings"

	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

// findCulprits asks the source which services or which policy made nginx reject a configuration.
// It runs outside the loop's goroutine. If nginx -t refused the configuration, the source can
// repeat the test; if the reload failed, it has only nginx's message.
func findCulprits(ctx context.Context, source Source, server Server, cfg render.Configuration, refusal error) render.Culprits {
	why := strings.TrimPrefix(refusal.Error(), nginx.ErrRejected.Error()+": ")
	switch kindOf(refusal) {
	case history.Rejected:
		return source.QuarantineCulprits(ctx, cfg, why, testBy(server))
	case history.RolledBack, history.NoWayBack, history.NginxDown:
		return source.QuarantineCulprits(ctx, cfg, why, nil)
	default:
		return render.Culprits{}
	}
}

// testBy adapts the Server's Test to the Source's type render.Test.
func testBy(server Server) render.Test {
	return func(ctx context.Context, files map[string][]byte) (why string, err error) {
		err = server.Test(ctx, files)
		if errors.Is(err, nginx.ErrRejected) {
			return strings.TrimPrefix(err.Error(), nginx.ErrRejected.Error()+": "), nil
		}
		return "", err
	}
}

// culpritList names the culprits in a sentence: "service api", "services api, web", "policy
// lb/default". It is "" if there are none.
func culpritList(c render.Culprits) string {
	switch {
	case c.Policy != "":
		return "policy " + c.Policy
	case len(c.Services) == 0:
		return ""
	case len(c.Services) == 1:
		return "service " + c.Services[0]
	}
	return "services " + strings.Join(c.Services, ", ")
}
