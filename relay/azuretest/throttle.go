package azuretest

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// Limits are Resource Manager's token buckets, one of each for every
// subscription and principal. POST counts as a write.
type Limits struct{ Reads, Writes, Deletes Bucket }

// Bucket holds Size requests at most and gets PerSecond new ones a second.
type Bucket struct {
	Size      int
	PerSecond float64
}

// AzureLimits returns the documented limits since 2024.
func AzureLimits() Limits {
	return Limits{Reads: Bucket{250, 25}, Writes: Bucket{200, 10}, Deletes: Bucket{200, 10}}
}

type bucket struct {
	left float64
	at   time.Time
}

const throttledText = "Number of requests for subscription exceeded the limit. Please try again later."

// throttle takes one request out of its bucket. It gives the header that tells
// how many are left, and 429 with Retry-After when there was none. Without
// limits every bucket stays full.
func (s *Server) throttle(c *call) (header, left string, refused *answer) {
	limits := AzureLimits()
	if s.limits != nil {
		limits = *s.limits
	}
	kind, b := "writes", limits.Writes
	switch c.Method {
	case http.MethodGet, http.MethodHead:
		kind, b = "reads", limits.Reads
	case http.MethodDelete:
		kind, b = "deletes", limits.Deletes
	}
	scope, name := c.params["subscription"], "subscription"
	if scope == "" {
		scope, name = c.who.TID, "tenant"
	}
	header = "x-ms-ratelimit-remaining-" + name + "-" + kind
	if s.limits == nil {
		return header, strconv.Itoa(b.Size - 1), nil
	}
	key, now := fold(scope)+" "+c.who.OID+" "+kind, s.now()
	state := s.buckets[key]
	if state == nil {
		state = &bucket{left: float64(b.Size), at: now}
		s.buckets[key] = state
	}
	if passed := now.Sub(state.at).Seconds(); passed > 0 {
		state.left, state.at = math.Min(float64(b.Size), state.left+passed*b.PerSecond), now
	}
	if state.left < 1 {
		a := fail(http.StatusTooManyRequests, "SubscriptionRequestsThrottled", throttledText)
		wait := 3600.0
		if b.PerSecond > 0 {
			wait = math.Ceil((1 - state.left) / b.PerSecond)
		}
		a.header = map[string]string{"Retry-After": strconv.Itoa(int(wait)), http.CanonicalHeaderKey(header): "0"}
		return header, "0", &a
	}
	state.left--
	return header, strconv.Itoa(int(state.left)), nil
}
