package cli

import (
	"fmt"
	"time"
)

// clock formats at in now's time zone: the time of day, with the date if that is not
// today's.
func clock(at, now time.Time) string {
	at = at.In(now.Location())
	if at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format("15:04:05")
	}
	return at.Format("2006-01-02 15:04:05")
}

// ago formats at and its distance to now: "09:12:03, 4m ago". It returns "never" for
// the zero time.
func ago(at, now time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return clock(at, now) + ", " + age(now.Sub(at)) + " ago"
}

// since is "since " and ago, or "" for the zero time.
func since(at, now time.Time) string {
	if at.IsZero() {
		return ""
	}
	return "since " + ago(at, now)
}

// age formats d with its largest unit, and minutes for less than ten hours.
func age(d time.Duration) string {
	switch d = max(d, 0); { // clocks of two processes may differ by a little
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 10*time.Hour && int(d.Minutes())%60 > 0:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}

// elapsed formats a measured duration: whole milliseconds below a second, tenths of a
// second above, "-" below a millisecond.
func elapsed(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "-"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	default:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
}

// plural returns "1 instance", "3 instances".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
