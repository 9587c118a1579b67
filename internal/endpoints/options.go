package endpoints

import (
	"cmp"
	"log/slog"
	"time"
)

// Options tunes a Table. A number or duration that is zero is that of DefaultOptions,
// unless its comment says what zero means.
type Options struct {
	// GuardShare is the share of all known instances that may vanish within
	// GuardWindow before the guard holds them. With 1 or more only services that lose
	// every instance are guarded.
	GuardShare float64
	// GuardWindow is the time window for detecting a mass disappearance.
	GuardWindow time.Duration
	// GuardHold is how long vanished instances are held at most, while
	// Consul can be trusted.
	GuardHold time.Duration
	// PanicThreshold is the minimum percentage, rounded up, of a service's instances
	// that must be in rotation, of those not in maintenance: below it all of them get
	// traffic. With the default of 1 only a service without any passing instance
	// panics; with a negative value none does.
	PanicThreshold int
	// MinInstances is how many instances a service keeps in rotation: if fewer would be
	// left, those that vanish are held. It is for services that have no MinInstances of
	// their own; default none.
	MinInstances int
	// MaxStale is how long a service is served without confirmation from Consul,
	// because Consul can't be reached or trusted; default for ever.
	MaxStale time.Duration
	// SlowStart is how long the weight of an instance that was out rises until
	// it is full, from 1 s on; 0: none. It is for services that SetByReload does not
	// name: with others each step would be a reload.
	SlowStart time.Duration
	// MaxEjected is the share of a service's instances in rotation that may be
	// ejected. At least one may be, but never all.
	MaxEjected float64
	// Logger gets a line for each ejection and readmission; default none.
	Logger *slog.Logger
}

// DefaultOptions are what a balancer uses unless its operator says otherwise.
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

// complete fills in what is zero.
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
