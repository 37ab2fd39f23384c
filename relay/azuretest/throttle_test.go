package azuretest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/relay/azuretest"
)

// TestDocumentedBuckets: 200 writes at once and 10 more a second, where
// getActivationKey is a write; 250 reads and 25; and fifteen times as much for
// all principals together.
func TestDocumentedBuckets(t *testing.T) {
	clock := newLever()
	srv := start(t, azuretest.WithThrottling(azuretest.AzureLimits()), azuretest.WithClock(clock), azuretest.WithRegistration(azuretest.Registration{Name: "r1", CloudID: "c1"}))
	c := signIn(t, srv)
	key := func() answer { return c.do("POST", "{r}/getActivationKey?api-version=2017-06-01", "") }
	for range 200 {
		c.expect(200, "", key())
	}
	a := key()
	c.expect(429, "SubscriptionRequestsThrottled", a)
	if a.header.Get("Retry-After") != "1" || a.header.Get("x-ms-ratelimit-remaining-subscription-writes") != "0" {
		t.Errorf("%v", a.header)
	}
	if a := c.do("GET", "{r}?api-version=2017-06-01", ""); a.status != 200 || a.header.Get("x-ms-ratelimit-remaining-subscription-reads") != "249" {
		t.Errorf("a read answered %d, %v", a.status, a.header)
	}
	clock.move(time.Second)
	for range 10 {
		c.expect(200, "", key())
	}
	c.expect(429, "SubscriptionRequestsThrottled", key())
	clock.move(time.Minute) // and no more than fits
	if a := c.do("DELETE", lockOf, ""); a.header.Get("x-ms-ratelimit-remaining-subscription-deletes") != "199" {
		t.Errorf("%v", a.header)
	}
}

func TestGlobalBucket(t *testing.T) {
	limits := azuretest.Limits{Reads: azuretest.Bucket{Size: 4, PerSecond: 1}, Writes: azuretest.Bucket{Size: 4, PerSecond: 1}, Deletes: azuretest.Bucket{Size: 4, PerSecond: 1}, Global: 1.5}
	srv := start(t, azuretest.WithThrottling(limits), azuretest.WithClock(newLever()),
		azuretest.WithClient(azuretest.Client{ID: "one", Secret: "s"}), azuretest.WithClient(azuretest.Client{ID: "two", Secret: "s"}))
	const sub = "/subscriptions/{s}?api-version=2022-12-01"
	one := signIn(t, srv)
	two := anonymous(t, srv)
	form := secretForm(srv)
	form.Set("client_id", "two")
	two.bearer, _ = two.token(srv.Tenant, form).body["access_token"].(string)
	for range 4 {
		one.expect(200, "", one.do("GET", sub, ""))
	}
	one.expect(429, "SubscriptionRequestsThrottled", one.do("GET", sub, ""))
	for range 2 {
		two.expect(200, "", two.do("GET", sub, ""))
	}
	two.expect(429, "SubscriptionRequestsThrottled", two.do("GET", sub, ""))
	srv.Advance(4 * time.Second)
	two.expect(200, "", two.do("GET", sub, ""))
}

// TestSpeed: a bucket at sixty times the speed refills in a sixtieth of the
// time, and says so.
func TestSpeed(t *testing.T) {
	clock := newLever()
	srv := start(t, azuretest.WithThrottling(azuretest.Limits{Reads: azuretest.Bucket{Size: 1, PerSecond: 0.1}}), azuretest.WithClock(clock), azuretest.WithSpeed(60))
	c := signIn(t, srv)
	const sub = "/subscriptions/{s}?api-version=2022-12-01"
	c.expect(200, "", c.do("GET", sub, ""))
	a := c.do("GET", sub, "")
	c.expect(429, "SubscriptionRequestsThrottled", a)
	if a.header.Get("Retry-After") != "1" || a.header.Get("retry-after-ms") != "167" {
		t.Errorf("%v", a.header)
	}
	clock.move(167 * time.Millisecond)
	c.expect(200, "", c.do("GET", sub, ""))
}

// TestTrouble: the same seed strikes the same calls, about the share that was
// asked for, in every way.
func TestTrouble(t *testing.T) {
	run := func(seed uint64, share float64) (statuses []int, struck int) {
		srv := start(t, azuretest.WithTrouble(seed, share))
		c := signIn(t, srv)
		for range 300 {
			a, err := c.try("GET", srv.URL+"/subscriptions/"+srv.Subscription+"?api-version=2022-12-01", http.NoBody, "")
			if err != nil {
				a.status = 0
			}
			statuses = append(statuses, a.status)
		}
		for _, r := range srv.Requests() {
			if r.Fault == -1 {
				struck++
			}
		}
		return statuses, struck
	}
	first, n := run(1, 0.2)
	again, _ := run(1, 0.2)
	kinds := map[int]bool{}
	for i := range first {
		kinds[first[i]] = true
		if first[i] != again[i] {
			t.Fatalf("call %d answered %d and then %d", i, first[i], again[i])
		}
	}
	for _, want := range []int{0, 200, 429, 500, 503} {
		if !kinds[want] {
			t.Errorf("no %d among %v", want, kinds)
		}
	}
	if n < 30 || n > 90 {
		t.Errorf("%d of 300 calls were struck, want about 60", n)
	}
	if _, n := run(1, 0); n != 0 {
		t.Errorf("%d calls were struck, want none", n)
	}
}
