package policy

import (
	"fmt"
	"strconv"
	"time"
)

// Duration is a time span of whole milliseconds; 0 means that it is not set.
type Duration time.Duration

// String returns the duration in nginx's form: "500ms", "5s", "10m" or "1h".
func (d Duration) String() string {
	span := time.Duration(d)
	for _, unit := range []struct {
		name string
		span time.Duration
	}{{"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if span >= unit.span && span%unit.span == 0 {
			return strconv.FormatInt(int64(span/unit.span), 10) + unit.name
		}
	}
	return strconv.FormatInt(span.Milliseconds(), 10) + "ms"
}

// Seconds returns the duration in whole seconds, rounded down.
func (d Duration) Seconds() int64 { return int64(time.Duration(d) / time.Second) }

// Size is a number of bytes; 0 means that it is not set.
type Size int64

// String returns the size in nginx's form: "512", "64k", "10m" or "1g".
func (s Size) String() string {
	for _, unit := range []struct {
		name string
		size Size
	}{{"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}} {
		if s >= unit.size && s%unit.size == 0 {
			return strconv.FormatInt(int64(s/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Switch is "on" or "off"; "" means that it is not set.
type Switch string

// The values of a Switch.
const (
	On  Switch = "on"
	Off Switch = "off"
)

// IsOn reports whether it is "on".
func (s Switch) IsOn() bool { return s == On }

// Pair is a name with a value.
type Pair struct{ Name, Value string }

// String returns "name=value".
func (p Pair) String() string { return fmt.Sprintf("%s=%s", p.Name, p.Value) }
