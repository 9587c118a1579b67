package daemon

import (
	"maps"
	"net/http"

	"lbctl/internal/statuspage"
)

// handlers are those of the HTTP API that are not package admin's own, by pattern.
func (p *parts) handlers(cfg Config, page *statuspage.Page) map[string]http.Handler {
	all := map[string]http.Handler{
		"GET /metrics": p.metrics(cfg),
		"GET /v1/logs": p.requests,
	}
	maps.Copy(all, page.Handlers())
	return all
}
