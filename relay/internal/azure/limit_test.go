package azure

import (
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// Who comes first goes first, each a tenth of a second behind the one before;
// nobody's turn is taken by who comes later.
func TestTokensAreFair(t *testing.T) {
	now := time.Date(2026, 8, 28, 15, 0, 0, 0, time.UTC)
	b := &tokens{rate: Rate{12, 10}, at: now, left: 2}
	var waits []time.Duration
	for range 6 {
		waits = append(waits, b.reserve(now))
	}
	tenth := 100 * time.Millisecond
	if want := []time.Duration{0, 0, tenth, 2 * tenth, 3 * tenth, 4 * tenth}; !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
	// A second later the queue is gone and the rest is in the bucket, which
	// holds no more than its size less the margin.
	if w := b.reserve(now.Add(time.Second)); w != 0 || b.left != 1 {
		t.Errorf("waits %s with %v left", w, b.left)
	}
	if b.reserve(now.Add(time.Hour)); b.left != 1 {
		t.Errorf("%v left of a full bucket", b.left)
	}
}

func TestTokensLearn(t *testing.T) {
	now := time.Date(2026, 8, 28, 15, 0, 0, 0, time.UTC)
	b := &tokens{rate: Rate{200, 10}, at: now, left: 190}
	b.remaining(199, now)
	if b.left != 189 {
		t.Errorf("%v left", b.left)
	}
	b.remaining(12, now) // somebody else uses it too
	if b.left != 2 {
		t.Errorf("%v left, want 2 while Azure has 12", b.left)
	}
	b.remaining(150, now) // late news makes nothing more
	if b.left != 2 {
		t.Errorf("%v left", b.left)
	}
	b.pause(30*time.Second, now)
	for i, want := range []time.Duration{30100 * time.Millisecond, 30200 * time.Millisecond} {
		if w := b.reserve(now); w != want {
			t.Errorf("wait %d after a 429 is %s, want %s", i, w, want)
		}
	}
	b.pause(time.Second, now) // a shorter pause ends none
	if w := b.reserve(now.Add(29 * time.Second)); w != 1300*time.Millisecond {
		t.Errorf("wait %s", w)
	}
}

func TestKindOf(t *testing.T) {
	const s = "dd8597b4-8739-4467-8b10-f8679f62bfbf"
	for _, tt := range []struct{ method, url, key string }{
		{"GET", "https://x/subscriptions/" + s + "?api-version=1", s + " reads"},
		{"GET", "https://x/SUBSCRIPTIONS/DD8597B4-8739-4467-8B10-F8679F62BFBF/locations", s + " reads"},
		{"PUT", "https://x/subscriptions/" + s + "/resourceGroups/g", s + " writes"},
		{"POST", "https://x/subscriptions/" + s + "/resourceGroups/g/providers/Microsoft.AzureStack/registrations/r/getActivationKey", s + " writes"},
		{"DELETE", "https://x/subscriptions/" + s + "/resourceGroups/g", s + " deletes"},
		{"GET", "https://x/subscriptions?api-version=1", "tenant reads"},
	} {
		if key, _ := kindOf(httptest.NewRequest(tt.method, tt.url, nil)); key != tt.key {
			t.Errorf("%s %s = %q, want %q", tt.method, tt.url, key, tt.key)
		}
	}
}
