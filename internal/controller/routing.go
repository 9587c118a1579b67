package controller

import (
	"lbctl/internal/nginx"
	"lbctl/internal/routing"
)

// Routing says where nginx's requests go.
type Routing struct {
	Generation int // the current one
	// InForce: Listeners are those of the generation. Otherwise lbctl has not made it itself,
	// or an operator went back to it, and Listeners are those of the newest configuration; none
	// if there is none yet.
	InForce   bool
	Listeners []routing.Listener
	Reading   routing.Reading // how nginx reads requests
}

// Routing returns where requests go. It must not be changed.
func (c *Controller) Routing() Routing {
	r := c.shown().routing
	version := c.server.Build().Version
	r.Reading = routing.NewReading(func(least string) bool {
		enough, err := nginx.AtLeast(version, least)
		return err == nil && enough
	})
	return r
}
