package clock_test

import (
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/shared/clock"
)

func TestParseAcceptsOneSpelling(t *testing.T) {
	good := "2026-11-23T06:24:00Z"
	tm, err := clock.Parse(good)
	if err != nil || clock.Format(tm) != good {
		t.Fatalf("Parse(%q) = %v, %v", good, tm, err)
	}
	for _, bad := range []string{"", "2026-11-23T06:24:00+00:00", "2026-11-23T06:24:00.0Z", "2026-11-23t06:24:00z",
		"2026-11-23 06:24:00Z", "2026-11-31T06:24:00Z", "2026-11-23T24:00:00Z", " 2026-11-23T06:24:00Z"} {
		if _, err := clock.Parse(bad); err == nil {
			t.Errorf("Parse(%q) accepted", bad)
		}
	}
}

func TestOffset(t *testing.T) {
	at := time.Date(2026, 11, 23, 6, 24, 0, 0, time.UTC)
	if got := (clock.Offset{Base: clock.Fixed(at), By: -72 * time.Hour}).Now(); !got.Equal(at.AddDate(0, 0, -3)) {
		t.Errorf("Now() = %v", got)
	}
}
