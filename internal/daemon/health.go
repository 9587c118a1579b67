package daemon

import (
	"context"
	"errors"
	"net"
	"path/filepath"

	"lbctl/internal/access"
	"lbctl/internal/health"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

// The values of NginxConfig.HealthPath, beside paths, and of NginxConfig.GRPCHealth.
const (
	HealthAuto = "auto" // lbctl answers the requests that no service gets
	HealthNone = "none"
	HealthOn   = "on" // lbctl answers also those that the default service would get
	HealthOff  = "off"
)

// health returns the settings of health for nginx.
func (n NginxConfig) health() render.Health {
	h := render.Health{Networks: n.HealthNetworks}
	switch n.HealthPath {
	case HealthNone, "":
	case HealthAuto:
		h.HTTP = render.HealthUnrouted
	default:
		h.HTTP, h.Path = render.HealthBeforeDefault, n.HealthPath
	}
	switch n.GRPCHealth {
	case HealthAuto:
		h.GRPC = render.HealthUnrouted
	case HealthOn:
		h.GRPC = render.HealthBeforeDefault
	}
	return h
}

// healthListeners are where nginx passes on requests for the health of services. They are there
// also if the flags say that nginx passes on none: it may serve an older generation.
type healthListeners struct {
	http, grpc net.Listener
}

// listenHealth opens the sockets for the requests that nginx passes on. It must run before the first
// goroutine, because it changes the umask.
func listenHealth(cfg Config, workers int) (l healthListeners, err error) {
	if l.http, err = access.Listen(filepath.Join(cfg.RunDir, render.HealthSocket), workers); err != nil {
		return healthListeners{}, err
	}
	if l.grpc, err = access.Listen(filepath.Join(cfg.RunDir, render.HealthSocketGRPC), workers); err != nil {
		return healthListeners{}, errors.Join(err, l.http.Close())
	}
	return l, nil
}

// runHealth answers the requests until ctx is done.
func (p *parts) runHealth(ctx context.Context, cfg Config) error {
	s := &health.Server{Table: p.table, Controller: p.loop, Prober: p.source.Prober(), Logger: cfg.Logger, Leaving: nginx.Leaving}
	return s.Run(ctx, p.health.http, p.health.grpc)
}
