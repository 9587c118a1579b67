package daemon

import "net/http"

// handlers are those of the HTTP API that are not package admin's own, by pattern.
func (p *parts) handlers(cfg Config) map[string]http.Handler {
	return map[string]http.Handler{
		"GET /metrics": p.metrics(cfg),
		"GET /v1/logs": p.requests,
	}
}
