package azure

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

var noon = clock.Fixed(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))

func TestRetryAfter(t *testing.T) {
	tests := []struct {
		name, value string
		want        time.Duration
	}{
		{"Retry-After", "61", 61 * time.Second},
		{"Retry-After", "Mon, 23 Nov 2026 12:01:30 GMT", 90 * time.Second},
		{"Retry-After", "Mon, 23 Nov 2026 11:00:00 GMT", -time.Hour},
		{"Retry-After", "soon", 0},
		{"Retry-After", "-5", 0},
		{"Retry-After", "99999999999", 0x40000000 * time.Second},
		{"retry-after-ms", "1500", 1500 * time.Millisecond},
		{"x-ms-retry-after-ms", "250", 250 * time.Millisecond},
		{"Other", "5", 0},
	}
	for _, tt := range tests {
		h := http.Header{}
		h.Set(tt.name, tt.value)
		if got := retryAfter(h, noon.Now()); got != tt.want {
			t.Errorf("%s: %s gives %s, want %s", tt.name, tt.value, got, tt.want)
		}
	}
}

func TestRetryDecides(t *testing.T) {
	p := &retry{clock: noon}
	answer := func(status int, after string) *http.Response {
		r := &http.Response{StatusCode: status, Status: fmt.Sprint(status), Header: http.Header{}}
		if after != "" {
			r.Header.Set("Retry-After", after)
		}
		return r
	}
	gone := &lost{"host", errors.New("connection reset")}
	tests := []struct {
		name  string
		try   int
		resp  *http.Response
		err   error
		again bool
		exact time.Duration
	}{
		{"429 obeys a delay above azcore's cap", 1, answer(429, "61"), nil, true, 61 * time.Second},
		{"429 gives up on a delay of an hour", 1, answer(429, "3600"), nil, false, 0},
		{"429 for the last time", maxRetries + 1, answer(429, "1"), nil, false, 0},
		{"503", maxRetries, answer(503, ""), nil, true, 0},
		{"408", 1, answer(408, ""), nil, true, 0},
		{"400", 1, answer(400, "1"), nil, false, 0},
		{"401", 1, answer(401, "1"), nil, false, 0},
		{"403", 1, answer(403, "1"), nil, false, 0},
		{"404", 1, answer(404, "1"), nil, false, 0},
		{"409", 1, answer(409, "1"), nil, false, 0},
		{"501", 1, answer(501, ""), nil, false, 0},
		{"200", 1, answer(200, "1"), nil, false, 0},
		{"lost", 1, nil, gone, true, 0},
		{"lost, wrapped", maxLost, nil, fmt.Errorf("post: %w", gone), true, 0},
		{"lost for the last time", maxLost + 1, nil, gone, false, 0},
		{"a server that nobody vouches for", 1, nil, &lost{"host", &tls.CertificateVerificationError{}}, false, 0},
		{"refused by Entra", 1, nil, fault.New(fault.Permanent, "no"), false, 0},
		{"too long", 1, nil, &tooLong{"host"}, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			delay, _, again := p.next(tt.try, tt.resp, tt.err)
			if again != tt.again {
				t.Fatalf("again = %v, want %v", again, tt.again)
			}
			if tt.exact != 0 && delay != tt.exact {
				t.Errorf("delay %s, want %s", delay, tt.exact)
			}
			if again && delay <= 0 {
				t.Errorf("delay %s", delay)
			}
		})
	}
	for try := 1; try < 100; try++ {
		if d := backOff(try); d <= 0 || d > maxDelay*13/10 {
			t.Errorf("backOff(%d) = %s", try, d)
		}
	}
}

func TestPollIsBoundedBySleepNotByTheClock(t *testing.T) {
	var slept []time.Duration
	p := &retry{clock: noon, progress: func(string) {}, sleep: func(_ context.Context, d time.Duration) error {
		slept = append(slept, d)
		return nil
	}}
	calls := 0
	ok, err := p.poll(context.Background(), 2*time.Second, 2*time.Minute, "waiting", func() (bool, error) { calls++; return false, nil })
	if ok || err != nil {
		t.Fatalf("poll = %v, %v", ok, err)
	}
	var total time.Duration
	for _, d := range slept {
		total += d
	}
	if total != 2*time.Minute || calls != len(slept)+1 {
		t.Errorf("slept %s in %v, %d calls", total, slept, calls)
	}
	p.sleep = func(context.Context, time.Duration) error { return context.Canceled }
	if _, err := p.poll(context.Background(), time.Second, time.Minute, "", func() (bool, error) { return false, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled poll = %v", err)
	}
}

// An answer is read up to maxBody and not a byte further.
func TestLongAnswersAreCut(t *testing.T) {
	for _, tt := range []struct {
		size int
		ok   bool
	}{{0, true}, {maxBody, true}, {maxBody + 1, false}, {maxBody * 2, false}} {
		body := strings.NewReader(strings.Repeat("x", tt.size))
		req := httptest.NewRequest("GET", "https://host/", nil)
		b, err := io.ReadAll(&bounded{req: req, body: io.NopCloser(body), left: maxBody})
		var long *tooLong
		if (err == nil) != tt.ok || errors.As(err, &long) == tt.ok || tt.ok && len(b) != tt.size {
			t.Errorf("%d bytes: read %d, %v", tt.size, len(b), err)
		}
	}
}
