// Package clock is the only door to the time of day.
//
// Air gaps have wrong clocks, so no package reads the machine's clock by
// itself: a [Clock] is passed in, vectors reproduce, and tests move time
// instead of waiting for it. The sender's times in a bundle are judged only by
// the clock that wrote them; a foreign time feeds a skew report and nothing
// else.
package clock

import (
	"fmt"
	"time"
)

// Clock tells the time of day in UTC.
type Clock interface {
	Now() time.Time
}

// System is the machine's clock.
type System struct{}

// Now returns the machine's time in UTC.
func (System) Now() time.Time { return time.Now().UTC() }

// Fixed is a clock that stands still at one instant.
type Fixed time.Time

// Now returns the instant at which the clock stands.
func (f Fixed) Now() time.Time { return time.Time(f).UTC() }

// Offset is a clock that runs beside another one by a constant difference, so
// that a rehearsal can try a wrong clock without touching the machine's.
type Offset struct {
	Base Clock
	By   time.Duration
}

// Now returns the base clock's time moved by the offset.
func (o Offset) Now() time.Time { return o.Base.Now().Add(o.By) }

// Layout is the one spelling of a time in manifests, bodies and journals:
// RFC 3339 in UTC with whole seconds.
const Layout = "2006-01-02T15:04:05Z"

// Format spells t by [Layout]; fractions of a second are cut.
func Format(t time.Time) string { return t.UTC().Format(Layout) }

// Parse reads a time spelt by [Layout] and refuses every other spelling of the
// same instant.
func Parse(s string) (time.Time, error) {
	t, err := time.Parse(Layout, s)
	if err != nil || Format(t) != s {
		return time.Time{}, fmt.Errorf("time %q is not of the form %s", s, Layout)
	}
	return t, nil
}
