package appkit

import (
	"strings"
	"testing"
	"time"
)

// What is said after ten seconds without anything new fits to what was seen.
func TestHintsFit(t *testing.T) {
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		see  func(m *meter)
		want string
	}{
		{"nothing", func(*meter) {}, "nothing arrives"},
		{"dark pictures", func(m *meter) { m.picture(0); m.picture(0) }, "no code is read: closer"},
		{"other codes", func(m *meter) { m.picture(1); m.other() }, "not of azs-courier"},
		{"the loop again", func(m *meter) { m.picture(1); m.frame(false, start) }, "the same codes come again"},
		{"few are read", func(m *meter) {
			for range 9 {
				m.picture(0)
			}
			m.picture(1)
			m.frame(false, start)
		}, "a slower animation"},
	} {
		var m meter
		m.begin(start)
		c.see(&m)
		if got := m.hint(start.Add(stuck - time.Second)); got != "" {
			t.Errorf("%s: too early: %q", c.name, got)
		}
		if got := m.hint(start.Add(stuck)); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := m.hint(start.Add(stuck + time.Second)); got != "" {
			t.Errorf("%s: again at once: %q", c.name, got)
		}
	}
	var m meter
	if got := m.hint(start); got != "" {
		t.Errorf("before anything: %q", got)
	}
	m.begin(start)
	for i := range 4 {
		m.picture(1)
		m.frame(true, start.Add(time.Duration(i)*time.Second))
	}
	m.picture(0)
	if got := m.hint(start.Add(12 * time.Second)); got != "" { // 9 s after the last new frame
		t.Errorf("while frames arrive: %q", got)
	}
	if r, d := m.rate(start.Add(2*time.Second)), m.decoded(); r != 2 || d != 0.8 {
		t.Errorf("%v frames/s, %v decoded", r, d)
	}
}

func TestRanges(t *testing.T) {
	for want, in := range map[string][]int{
		"": nil, "0": {0}, "0, 1": {0, 1}, "0-2": {0, 1, 2}, "1, 3, 5-9": {1, 3, 5, 6, 7, 8, 9}, "2, 3, 7": {2, 3, 7},
	} {
		if got := ranges(in); got != want {
			t.Errorf("%v is %q, want %q", in, got, want)
		}
	}
}
