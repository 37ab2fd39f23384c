package azure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/azs-courier/azs-courier/shared/clock"
)

// How often and how long. Both are bounded by the context as well.
const (
	maxRetries     = 8                // after an answer that asks for patience
	maxLost        = 4                // after an answer that did not arrive: some 20 s
	maxDelay       = 30 * time.Second // of a delay that nobody asked for
	maxRetryAfter  = 10 * time.Minute // of a delay that Azure asked for; beyond it the operator is told
	firstDelay     = 800 * time.Millisecond
	providerWait   = 10 * time.Minute
	providerPoll   = 5 * time.Second
	replicaWait    = 2 * time.Minute
	replicaPoll    = 2 * time.Second
	longPoll       = 15 * time.Second // of a long operation, when Azure names no delay
	longWait       = 4 * time.Hour    // Azure's own limit for a move
	providerReruns = 5                // of a call refused with MissingSubscriptionRegistration
)

// patient are the answers that are worth asking again: those of azcore.
var patient = []int{http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
	http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}

// retry sends a request again while the answer is lost or one of patient, and
// never after any other answer. It stands in for azcore's own policy, which
// sleeps on the machine's clock only and gives up at once when Retry-After is
// above its cap.
type retry struct {
	clock    clock.Clock
	sleep    func(context.Context, time.Duration) error
	progress func(string)
}

func (p *retry) Do(req *policy.Request) (*http.Response, error) {
	ctx := req.Raw().Context()
	for try := 1; ; try++ {
		// azcore's own policy behind this one rewinds the body.
		resp, err := req.Clone(ctx).Next()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		delay, why, again := p.next(try, resp, err)
		if !again {
			return resp, err
		}
		if resp != nil {
			runtime.Drain(resp)
		}
		p.progress(fmt.Sprintf("%s: %s; asking again in %s", req.Raw().URL.Host, why, delay.Round(100*time.Millisecond)))
		if err := p.sleep(ctx, delay); err != nil {
			return nil, err
		}
	}
}

// next decides after the try-th answer (1 is the first) whether and when to
// send again, and why.
func (p *retry) next(try int, resp *http.Response, err error) (time.Duration, string, bool) {
	if err != nil {
		var l *lost
		if !errors.As(err, &l) || untrusted(err) || try > maxLost {
			return 0, "", false
		}
		return backOff(try), "no answer", true
	}
	if !slices.Contains(patient, resp.StatusCode) || try > maxRetries {
		return 0, "", false
	}
	delay := retryAfter(resp.Header, p.clock.Now())
	if delay <= 0 {
		delay = backOff(try)
	}
	return delay, "answered " + resp.Status, delay <= maxRetryAfter
}

// backOff grows as 1, 3, 7, 15 … times firstDelay up to maxDelay, times a
// jitter of 0.8 to 1.3, as azcore does.
func backOff(try int) time.Duration {
	d := min(firstDelay*time.Duration(1<<min(try, 20)-1), maxDelay)
	return time.Duration(float64(d) * (0.8 + rand.Float64()/2))
}

// retryAfter reads the delay that an answer asks for; 0 when it asks for none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	for _, name := range []string{"retry-after-ms", "x-ms-retry-after-ms"} {
		if ms, err := strconv.Atoi(h.Get(name)); err == nil && ms > 0 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	v := h.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil && s > 0 {
		return time.Duration(min(s, 1<<30)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return t.Sub(now)
	}
	return 0
}

// systemSleep waits on the machine's clock.
func systemSleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poll calls done until it reports true or fails, and sleeps in between: first
// delays, doubled up to maxDelay, no more than total in all. It reports whether
// done did.
func (p *retry) poll(ctx context.Context, first, total time.Duration, waiting string, done func() (bool, error)) (bool, error) {
	delay := first
	for spent := time.Duration(0); ; {
		ok, err := done()
		if ok || err != nil {
			return ok, err
		}
		if spent >= total {
			return false, nil
		}
		delay = min(delay, total-spent)
		p.progress(fmt.Sprintf("%s; asking again in %s", waiting, delay))
		if err := p.sleep(ctx, delay); err != nil {
			return false, err
		}
		spent += delay
		delay = min(2*delay, maxDelay)
	}
}
