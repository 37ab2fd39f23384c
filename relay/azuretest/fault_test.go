package azuretest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
)

const getSub = "/subscriptions/{s}?api-version=2022-12-01"

// TestDocumentedFaults: a code alone brings its status and a text that names
// what the call was about.
func TestDocumentedFaults(t *testing.T) {
	srv := start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	c := signIn(t, srv)
	for _, test := range []struct {
		code   string
		status int
		text   string
		header string // NAME=VALUE
	}{
		{"AuthorizationFailed", 403, "'" + srv.ClientID + "' with object id", ""},
		{"AuthorizationFailed", 403, "perform action 'Microsoft.AzureStack/registrations/write' over scope '/subscriptions/" + srv.Subscription + "/", ""},
		{"LinkedAuthorizationFailed", 403, "linked scope(s)", ""},
		{"RequestDisallowedByPolicy", 403, "Resource 'r1' was disallowed by policy. Policy identifiers: ", ""},
		{"ReadOnlyDisabledSubscription", 409, "'" + srv.Subscription + "' is disabled", ""},
		{"MissingSubscriptionRegistration", 409, "'Microsoft.AzureStack'", ""},
		{"MissingRegistrationForResourceProvider", 409, "'Microsoft.AzureStack'", ""},
		{"SubscriptionNotRegistered", 409, "not registered", ""},
		{"ScopeLocked", 409, "cannot perform write operation", ""},
		{"SubscriptionNotFound", 404, srv.Subscription, ""},
		{"ResourceGroupNotFound", 404, "'azurestack'", ""},
		{"ResourceNotFound", 404, "registrations/r1'", ""},
		{"InvalidRegistrationToken", 400, "The registration token is malformed.", ""},
		{"CloudIdUpdateNotAllowed", 400, "'r1'", ""},
		{azuretest.CodeCloudIDRegistered, 409, "is already registered. Reusing cloud identifiers isn't allowed.", ""},
		{"NoRegisteredProviderFound", 400, "2022-06-01", ""},
		{"InvalidApiVersionParameter", 400, "'2017-06-01'", ""},
		{"SubscriptionRequestsThrottled", 429, "", "Retry-After=17"},
		{"ServiceUnavailable", 503, "", ""},
		{"ExpiredAuthenticationToken", 401, "", "WWW-Authenticate=Bearer authorization_uri="},
		{"InvalidAuthenticationTokenTenant", 401, "wrong issuer", ""},
	} {
		t.Run(test.code, func(t *testing.T) {
			srv.Fail(azuretest.Fault{Method: "put", Path: "*/REGISTRATIONS/r1", Times: 1, Code: test.code})
			a := c.expect(test.status, test.code, c.do("PUT", "{r}?api-version=2017-06-01", registrationBody(token(1))))
			if !strings.Contains(a.message(), test.text) {
				t.Errorf("message %q has no %q", a.message(), test.text)
			}
			if name, value, _ := strings.Cut(test.header, "="); !strings.HasPrefix(a.header.Get(name), value) {
				t.Errorf("%s is %q, want %q", name, a.header.Get(name), value)
			}
			if azuretest.Documented(test.code) != test.status {
				t.Errorf("documented status %d, want %d", azuretest.Documented(test.code), test.status)
			}
		})
	}
	if n := len(srv.State().Registrations); n != 0 {
		t.Errorf("%d registrations, want none: every PUT failed", n)
	}
}

func TestFaultsTakeTheirTurn(t *testing.T) {
	srv := start(t)
	c := signIn(t, srv)
	srv.Fail(azuretest.Fault{Method: "GET", Path: "/subscriptions/*", After: 1, Times: 2, Status: 502})
	srv.Fail(azuretest.Fault{Path: "/subscriptions/*", Status: 429, Code: "Custom", Message: "slow down", Header: map[string]string{"retry-after": "3"}})
	var got []int
	for range 5 {
		got = append(got, c.do("GET", getSub, "").status)
	}
	if diff := cmp.Diff([]int{429, 502, 502, 429, 429}, got); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	a := c.expect(429, "Custom", c.do("GET", getSub, ""))
	if a.message() != "slow down" || a.header.Get("Retry-After") != "3" {
		t.Errorf("message %q, Retry-After %q", a.message(), a.header.Get("Retry-After"))
	}
	srv.ClearFaults()
	c.expect(200, "", c.do("GET", getSub, ""))
}

func TestFaultOnEntraHasEntrasForm(t *testing.T) {
	srv := start(t)
	srv.Fail(azuretest.Fault{Path: "*/oauth2/v2.0/token", Status: 503, Code: "temporarily_unavailable", Message: "busy"})
	a := anonymous(t, srv).token(srv.Tenant, secretForm(srv))
	if text, _ := a.body["error_description"].(string); a.status != 503 || a.body["error"] != "temporarily_unavailable" || !strings.Contains(text, "busy") {
		t.Errorf("answer %d %v", a.status, a.body)
	}
}

// TestDropped: the client sees the same broken connection; the difference is in
// the state.
func TestDropped(t *testing.T) {
	for when, want := range map[azuretest.When]int{azuretest.BeforeActing: 0, azuretest.AfterActing: 1} {
		t.Run(string(when), func(t *testing.T) {
			srv := start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
			c := signIn(t, srv)
			srv.Fail(azuretest.Fault{Method: "PUT", Path: "*/registrations/*", Drop: when, Times: 1})
			url := srv.URL + "/subscriptions/" + srv.Subscription + "/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/r1?api-version=2017-06-01"
			if a, err := c.try("PUT", url, strings.NewReader(registrationBody(token(1))), ""); err == nil {
				t.Fatalf("answer %d, want a broken connection", a.status)
			}
			if err := srv.Wait(t.Context(), "PUT", "*/registrations/r1", 1); err != nil {
				t.Fatal(err)
			}
			if n := len(srv.State().Registrations); n != want {
				t.Errorf("%d registrations, want %d", n, want)
			}
			log := srv.Requests()
			if last := log[len(log)-1]; last.Status != 0 || last.Acted != (want == 1) || last.Fault != 1 {
				t.Errorf("log says %+v", last)
			}
			if a := c.do("PUT", "{r}?api-version=2017-06-01", registrationBody(token(1))); a.status != 201-want {
				t.Errorf("second PUT: answer %d, want %d", a.status, 201-want)
			}
		})
	}
}

func TestFailureAnsweredAfterActing(t *testing.T) {
	srv := start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	c := signIn(t, srv)
	srv.Fail(azuretest.Fault{Method: "PUT", Code: "GatewayTimeout", Acted: true, Times: 1})
	c.expect(504, "GatewayTimeout", c.do("PUT", "{r}?api-version=2017-06-01", registrationBody(token(1))))
	c.expect(200, "", c.do("GET", "{r}?api-version=2017-06-01", ""))
}

// TestHeld lets the client leave, or releases the call, at both sides of the act.
func TestHeld(t *testing.T) {
	for _, test := range []struct {
		when      azuretest.When
		leave     bool
		held, end int // registrations while it is held, and in the end
	}{
		{azuretest.BeforeActing, true, 0, 0},
		{azuretest.AfterActing, true, 1, 1},
		{azuretest.BeforeActing, false, 0, 1},
		{azuretest.AfterActing, false, 1, 1},
	} {
		t.Run(fmt.Sprintf("%s, client leaves %v", test.when, test.leave), func(t *testing.T) {
			srv := start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
			c := signIn(t, srv)
			srv.Fail(azuretest.Fault{Method: "PUT", Path: "*/registrations/*", Hold: test.when})
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			done := make(chan error, 1)
			go func() {
				req, err := http.NewRequestWithContext(ctx, "PUT", srv.URL+"/subscriptions/"+srv.Subscription+
					"/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/r1?api-version=2017-06-01", strings.NewReader(registrationBody(token(1))))
				if err != nil {
					done <- err
					return
				}
				req.Header.Set("Authorization", "Bearer "+c.bearer)
				res, err := c.http.Do(req)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				done <- err
			}()
			if err := srv.Wait(t.Context(), "PUT", "*", 1); err != nil {
				t.Fatal(err)
			}
			if n := len(srv.State().Registrations); n != test.held {
				t.Errorf("%d registrations while held, want %d", n, test.held)
			}
			if test.leave {
				leave()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("the client got %v, want its own cancellation", err)
				}
				for last := len(srv.Requests()) - 1; srv.Requests()[last].Ended.IsZero(); { // the call ends without Release and Close
					runtime.Gosched()
				}
			} else {
				if n := srv.Release(); n != 1 {
					t.Errorf("%d calls released, want 1", n)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			srv.Close() // waits for the call
			if n := len(srv.State().Registrations); n != test.end {
				t.Errorf("%d registrations in the end, want %d", n, test.end)
			}
		})
	}
}

func TestCloseDropsWhatIsHeld(t *testing.T) {
	srv := start(t)
	c := signIn(t, srv)
	srv.Fail(azuretest.Fault{Hold: azuretest.BeforeActing})
	done := make(chan error, 1)
	go func() {
		_, err := c.try("GET", srv.URL+"/subscriptions?api-version=2022-12-01", nil, "")
		done <- err
	}()
	if err := srv.Wait(t.Context(), "GET", "*", 1); err != nil {
		t.Fatal(err)
	}
	srv.Close()
	srv.Close()
	if err := <-done; err == nil {
		t.Error("the held call was answered")
	}
}

func TestWaitEnds(t *testing.T) {
	srv := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.Wait(ctx, "PUT", "*", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("wait ended with %v", err)
	}
	srv.Close()
	if err := srv.Wait(t.Context(), "PUT", "*", 1); err == nil {
		t.Error("wait on a closed server ended well")
	}
}

func TestInvalidFaults(t *testing.T) {
	for _, test := range []struct {
		fault azuretest.Fault
		want  string
	}{
		{azuretest.Fault{Path: "*"}, "needs a status, a code, drop or hold"},
		{azuretest.Fault{Code: "MadeUp"}, `code "MadeUp" is not a documented one`},
		{azuretest.Fault{Drop: "later"}, `"later" is neither`},
		{azuretest.Fault{Hold: "never"}, `"never" is neither`},
		{azuretest.Fault{Status: 99}, "status 99"},
		{azuretest.Fault{Status: 500, After: -1}, "must not be negative"},
	} {
		if err := test.fault.Valid(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.fault, err, test.want)
		}
	}
}

func TestPathPatterns(t *testing.T) {
	srv := start(t)
	c := signIn(t, srv)
	c.do("GET", "/subscriptions/{s}/resourcegroups/Abc?api-version=2021-04-01", "")
	c.do("PUT", "{r}/providers/Microsoft.Authorization/locks/L?api-version=2016-09-01", "{}")
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{"", "", 3}, {"*", "*", 3}, {"get", "*", 1}, {"PUT", "*/locks/*", 1}, {"PUT", "*/locks/l", 1}, {"PUT", "*/locks/", 0},
		{"", "/subscriptions/*/resourcegroups/abc", 1}, {"", "/subscriptions/*/resourcegroups/*", 2}, {"", "subscriptions*", 0},
		{"", "*/oauth2/v2.0/token", 1}, {"", "*abc*abc", 0}, {"", "*providers*providers*", 1}, {"DELETE", "", 0},
	} {
		if got := srv.Count(test.method, test.path); got != test.want {
			t.Errorf("%q %q: %d requests, want %d", test.method, test.path, got, test.want)
		}
	}
}

// TestControl drives a server over HTTP as scripts do.
func TestControl(t *testing.T) {
	srv := start(t, azuretest.WithRegistration(azuretest.Registration{Name: "r1", Token: token(1), LockLevel: "CanNotDelete"}))
	web := httptest.NewServer(srv.Control())
	t.Cleanup(web.Close)
	c := signIn(t, srv)
	call := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, web.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := web.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(raw)
	}
	if status, out := call("POST", "/faults", `{"method":"GET","path":"*/subscriptions/*","status":403,"code":"AuthorizationFailed"}`); status != 204 {
		t.Fatalf("POST /faults: %d %s", status, out)
	}
	c.expect(403, "AuthorizationFailed", c.do("GET", getSub, ""))
	if status, out := call("GET", "/wait?method=GET&path=/subscriptions/*&count=1", ""); status != 200 {
		t.Errorf("GET /wait: %d %s", status, out)
	}
	if status, _ := call("GET", "/wait?method=DELETE&timeout=1ms", ""); status != 408 {
		t.Errorf("GET /wait for what does not come: %d, want 408", status)
	}
	if status, _ := call("DELETE", "/faults", ""); status != 204 {
		t.Errorf("DELETE /faults: %d", status)
	}
	c.expect(200, "", c.do("GET", getSub, ""))
	if status, out := call("POST", "/release", ""); status != 200 || strings.TrimSpace(out) != `{"released":0}` {
		t.Errorf("POST /release: %d %s", status, out)
	}
	for _, bad := range []string{`{"method":"GET"}`, `{"status":"x"}`, `{"status":500,"typo":1}`, ``} {
		if status, out := call("POST", "/faults", bad); status != 400 || !strings.Contains(out, `"error"`) {
			t.Errorf("POST /faults %s: %d %s", bad, status, out)
		}
	}
	_, log := call("GET", "/log", "")
	_, state := call("GET", "/state", "")
	if !strings.Contains(log, `"status":403`) || !strings.Contains(state, `"level":"CanNotDelete"`) {
		t.Errorf("log %s\nstate %s", log, state)
	}
	for _, secret := range []string{c.bearer, srv.ClientSecret, token(1)} {
		if strings.Contains(log+state, secret) {
			t.Errorf("log or state holds a secret of %d characters", len(secret))
		}
	}
}

func TestStartRefusesOtherMachines(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "192.0.2.1:0", ":0", "example.com:443", "127.0.0.1"} {
		if srv, err := azuretest.Start(addr); err == nil {
			srv.Close()
			t.Errorf("%q was accepted", addr)
		}
	}
}

func TestWaitWakesForALateRequest(t *testing.T) {
	srv := start(t)
	c := signIn(t, srv)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- srv.Wait(ctx, "GET", "/subscriptions/*", 2) }()
	c.do("GET", getSub, "")
	c.do("GET", getSub, "")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
