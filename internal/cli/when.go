package cli

import (
	"fmt"
	"time"
)

// clock is the time of day of at, with its date when that is not today's, in
// now's time zone.
func clock(at, now time.Time) string {
	at = at.In(now.Location())
	if at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format("15:04:05")
	}
	return at.Format("2006-01-02 15:04:05")
}

// ago is the time of day of at, and how long ago that was: "09:12:03, 4m ago".
// A time that never was is "never".
func ago(at, now time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return clock(at, now) + ", " + age(now.Sub(at)) + " ago"
}

// since is ago with "since " before it, and "" for a time that never was.
func since(at, now time.Time) string {
	if at.IsZero() {
		return ""
	}
	return "since " + ago(at, now)
}

// age is d in the one or two units a person would say it in.
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

// took is a duration as measured: whole milliseconds below a second, tenths of
// a second above. What took no time worth telling is "-".
func took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "-"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	default:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
}

// count is "1 instance", "3 instances".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
