package endpoints

import (
	"cmp"
	"log/slog"
	"time"
)

// Options tunes a Table. A number or duration of zero means the value in DefaultOptions,
// unless its comment says otherwise.
type Options struct {
	// GuardShare is the share of all known instances that may vanish within GuardWindow
	// before the guard holds them. With 1 or more, the guard protects only services that
	// lose every instance.
	GuardShare float64
	// GuardWindow is the time window for detecting a mass disappearance.
	GuardWindow time.Duration
	// GuardHold is how long vanished instances are held at most while Consul can be
	// trusted.
	GuardHold time.Duration
	// PanicThreshold is a percentage of a service's instances, without those in
	// maintenance. If the share in rotation, rounded up, is smaller, all of these
	// instances get traffic. With the default of 1, only a service without any passing
	// instance panics; with a negative value none does.
	PanicThreshold int
	// MinInstances is how many instances a service keeps in rotation: if fewer would be
	// left, vanished instances are held. A service's own MinInstances overrides it;
	// default none.
	MinInstances int
	// MaxStale is how long a service is served without confirmation from Consul, while
	// Consul can't be reached or trusted; default for ever.
	MaxStale time.Duration
	// SlowStart is how long the weight of a returning instance rises until it is full, at
	// least 1 s; 0: no slow start. Services named in SetByReload have none, because each
	// step would be a reload.
	SlowStart time.Duration
	// MaxEjected is the share of a service's instances in rotation that may be ejected.
	// One always may be, all never.
	MaxEjected float64
	// Logger gets a line for each ejection and readmission; default none.
	Logger *slog.Logger
}

// DefaultOptions returns the options of a balancer whose operator sets none.
func DefaultOptions() Options {
	return Options{
		GuardShare:     0.5,
		GuardWindow:    10 * time.Second,
		GuardHold:      time.Minute,
		PanicThreshold: 1,
		SlowStart:      10 * time.Second,
		MaxEjected:     0.5,
	}
}

// complete replaces zero values by the defaults.
func (o *Options) complete() {
	defaults := DefaultOptions()
	o.GuardShare = cmp.Or(o.GuardShare, defaults.GuardShare)
	o.GuardWindow = cmp.Or(o.GuardWindow, defaults.GuardWindow)
	o.GuardHold = cmp.Or(o.GuardHold, defaults.GuardHold)
	o.PanicThreshold = cmp.Or(o.PanicThreshold, defaults.PanicThreshold)
	o.MaxEjected = cmp.Or(o.MaxEjected, defaults.MaxEjected)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}
