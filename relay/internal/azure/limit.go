package azure

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azs-courier/azs-courier/shared/clock"
)

// Rate is a token bucket: Burst requests at once and PerSecond more each second.
type Rate struct {
	Burst     int
	PerSecond float64
}

// Limits are the rates that a client keeps to, in each subscription: Resource
// Manager counts by subscription, principal and kind, and a client is one
// principal. POST is a write, as Azure counts it.
type Limits struct{ Reads, Writes, Deletes Rate }

// AzureLimits returns the rates that Resource Manager documents since 2024.
func AzureLimits() Limits {
	return Limits{Reads: Rate{250, 25}, Writes: Rate{200, 10}, Deletes: Rate{200, 10}}
}

// Times returns the limits on a clock that runs n times as fast, as a simulated
// Azure's may.
func (l Limits) Times(n float64) Limits {
	for _, r := range []*Rate{&l.Reads, &l.Writes, &l.Deletes} {
		r.PerSecond *= n
	}
	return l
}

// margin is how many requests of a bucket are left to others, such as a portal
// in which the operator watches, and to the difference of the clocks. It is
// taken once, so it costs a run a second.
const margin = 10

// limiter lets a request go when its bucket holds one for it. Requests that wait
// go in the order in which they came, so no goroutine starves. What Azure tells
// of its own bucket corrects ours: where others use it too, the client gives way
// before it is empty, and after a 429 nobody asks before the time that Azure
// named.
type limiter struct {
	clock    clock.Clock
	sleep    func(context.Context, time.Duration) error
	progress func(string)
	limits   Limits

	mu      sync.Mutex
	buckets map[string]*tokens
}

// tokens is the state of a bucket: how many are left at a time, less than none
// when requests wait for theirs. The time lies ahead while nobody may ask.
type tokens struct {
	rate Rate
	left float64
	at   time.Time
}

// reserve takes a token and returns how long to wait until it is there.
func (t *tokens) reserve(now time.Time) time.Duration {
	t.fill(now)
	t.left--
	wait := t.at.Sub(now)
	if t.left < 0 {
		wait += time.Duration(math.Ceil(-t.left / t.rate.PerSecond * float64(time.Second)))
	}
	return wait
}

func (t *tokens) fill(now time.Time) {
	if passed := now.Sub(t.at); passed > 0 {
		t.left, t.at = math.Min(t.full(), t.left+passed.Seconds()*t.rate.PerSecond), now
	}
}

func (t *tokens) full() float64 { return math.Max(1, float64(t.rate.Burst-margin)) }

// remaining takes Azure's own count, when it is lower than ours.
func (t *tokens) remaining(n int, now time.Time) {
	t.fill(now)
	t.left = math.Min(t.left, math.Max(float64(n-margin), -float64(margin)))
}

// pause lets nobody ask for so long, and then at the bucket's pace.
func (t *tokens) pause(d time.Duration, now time.Time) {
	t.fill(now)
	t.left = math.Min(t.left, 0)
	if until := now.Add(d); until.After(t.at) {
		t.at = until
	}
}

// kindOf names the bucket of a request: subscription and kind.
func kindOf(req *http.Request) (key, kind string) {
	kind = "writes"
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		kind = "reads"
	case http.MethodDelete:
		kind = "deletes"
	}
	scope := "tenant"
	if parts := strings.SplitN(req.URL.Path, "/", 4); len(parts) > 2 && strings.EqualFold(parts[1], "subscriptions") {
		scope = strings.ToLower(parts[2])
	}
	return scope + " " + kind, kind
}

func (l *limiter) bucket(key, kind string, now time.Time) *tokens {
	t := l.buckets[key]
	if t == nil {
		rate := map[string]Rate{"reads": l.limits.Reads, "writes": l.limits.Writes, "deletes": l.limits.Deletes}[kind]
		t = &tokens{rate: rate, at: now}
		t.left = t.full()
		l.buckets[key] = t
	}
	return t
}

// Do waits for a token, sends, and learns from the answer. It stands behind the
// retries, so that each try takes one.
func (l *limiter) Do(req *policy.Request) (*http.Response, error) {
	key, kind := kindOf(req.Raw())
	l.mu.Lock()
	now := l.clock.Now()
	wait := l.bucket(key, kind, now).reserve(now)
	l.mu.Unlock()
	if wait > 0 {
		if wait >= 5*time.Second {
			l.progress(fmt.Sprintf("the rate of %s that Azure allows is reached; going on in %s", kind, wait.Round(100*time.Millisecond)))
		}
		if err := l.sleep(req.Raw().Context(), wait); err != nil {
			return nil, err
		}
	}
	resp, err := req.Next()
	if err != nil {
		return resp, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now = l.clock.Now()
	t := l.bucket(key, kind, now)
	for _, scope := range []string{"subscription", "tenant"} {
		if n, err := strconv.Atoi(resp.Header.Get("x-ms-ratelimit-remaining-" + scope + "-" + kind)); err == nil && n >= 0 {
			t.remaining(n, now)
		}
	}
	if resp.StatusCode == http.StatusTooManyRequests {
		t.pause(min(retryAfter(resp.Header, now), maxRetryAfter), now)
	}
	return resp, nil
}

// tally counts the tries that are sent, by kind. It stands last.
type tally struct {
	mu    sync.Mutex
	kinds map[string]int
}

// Do counts a request and sends it.
func (t *tally) Do(req *policy.Request) (*http.Response, error) {
	_, kind := kindOf(req.Raw())
	t.mu.Lock()
	if t.kinds == nil {
		t.kinds = map[string]int{}
	}
	t.kinds[kind]++
	t.mu.Unlock()
	return req.Next()
}
