package azuretest

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// Limits are Resource Manager's token buckets, one of each for every
// subscription and principal. POST counts as a write. Global is how many times
// as much all principals of a subscription have together; 0 is no such limit.
type Limits struct {
	Reads, Writes, Deletes Bucket
	Global                 float64
}

// Bucket holds Size requests at most and gets PerSecond new ones a second.
type Bucket struct {
	Size      int
	PerSecond float64
}

// AzureLimits returns the documented limits since 2024.
func AzureLimits() Limits {
	return Limits{Reads: Bucket{250, 25}, Writes: Bucket{200, 10}, Deletes: Bucket{200, 10}, Global: 15}
}

type bucket struct {
	left float64
	at   time.Time
}

// fill adds what came into the bucket until now and returns the state.
func (s *Server) fill(key string, size, perSecond float64, now time.Time) *bucket {
	b := s.buckets[key]
	if b == nil {
		b = &bucket{left: size, at: now}
		s.buckets[key] = b
	}
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.left, b.at = math.Min(size, b.left+passed*perSecond), now
	}
	return b
}

const throttledText = "Number of requests for subscription exceeded the limit. Please try again later."

// throttle takes one request out of its bucket and out of that of all
// principals together. It gives the header that tells how many are left, and
// 429 with Retry-After when there was none. Without limits every bucket stays
// full.
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
	now := s.began.Add(time.Duration(float64(s.now().Sub(s.began)) * s.speed))
	own := s.fill(fold(scope)+" "+c.who.OID+" "+kind, float64(b.Size), b.PerSecond, now)
	wait := missing(own.left, b.PerSecond)
	var all *bucket
	if limits.Global > 0 {
		all = s.fill(fold(scope)+" "+kind, float64(b.Size)*limits.Global, b.PerSecond*limits.Global, now)
		wait = math.Max(wait, missing(all.left, b.PerSecond*limits.Global))
	}
	if wait > 0 {
		a := fail(http.StatusTooManyRequests, "SubscriptionRequestsThrottled", throttledText)
		seconds := math.Ceil(wait) / s.speed
		a.header = map[string]string{"Retry-After": strconv.Itoa(int(math.Ceil(seconds))), http.CanonicalHeaderKey(header): "0"}
		if s.speed != 1 {
			a.header["Retry-After-Ms"] = strconv.Itoa(int(math.Ceil(seconds * 1000)))
		}
		return header, "0", &a
	}
	own.left--
	if all != nil {
		all.left--
	}
	return header, strconv.Itoa(int(own.left)), nil
}

// missing is how many seconds a bucket needs until it holds a request.
func missing(left, perSecond float64) float64 {
	switch {
	case left >= 1:
		return 0
	case perSecond <= 0:
		return 3600
	}
	return (1 - left) / perSecond
}

// Advance moves the server's clock forward: buckets fill, bearers and keys grow
// older.
func (s *Server) Advance(d time.Duration) { s.drift.Add(int64(d)) }
