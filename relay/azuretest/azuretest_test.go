package azuretest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// start serves until the test ends.
func start(t *testing.T, opts ...azuretest.Option) *azuretest.Server {
	t.Helper()
	srv := azuretest.NewServer(opts...)
	t.Cleanup(srv.Close)
	return srv
}

// caller is a client of plain net/http: what it sees is what is on the wire.
type caller struct {
	t      *testing.T
	srv    *azuretest.Server
	http   *http.Client
	bearer string
}

// answer is an HTTP answer; body is nil when it was empty.
type answer struct {
	status int
	header http.Header
	body   map[string]any
}

func (a answer) code() string    { return a.errorField("code") }
func (a answer) message() string { return a.errorField("message") }
func (a answer) errorField(name string) string {
	e, _ := a.body["error"].(map[string]any)
	s, _ := e[name].(string)
	return s
}

func anonymous(t *testing.T, srv *azuretest.Server) *caller {
	c := &caller{t: t, srv: srv, http: srv.Client()}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// signIn gets a bearer with the first client's secret.
func signIn(t *testing.T, srv *azuretest.Server) *caller {
	t.Helper()
	c := anonymous(t, srv)
	a := c.token(srv.Tenant, secretForm(srv))
	c.bearer, _ = a.body["access_token"].(string)
	if c.bearer == "" {
		t.Fatalf("token answer %d: %v", a.status, a.body)
	}
	return c
}

func secretForm(srv *azuretest.Server, with ...string) url.Values {
	v := url.Values{"grant_type": {"client_credentials"}, "client_id": {srv.ClientID}, "client_secret": {srv.ClientSecret}, "scope": {srv.Audience + "/.default"}}
	for i := 0; i < len(with); i += 2 {
		v.Set(with[i], with[i+1])
	}
	return v
}

func (c *caller) token(tenant string, form url.Values) answer {
	c.t.Helper()
	return c.send("POST", c.srv.Authority+tenant+"/oauth2/v2.0/token", strings.NewReader(form.Encode()), "application/x-www-form-urlencoded")
}

// do calls Resource Manager; {s} in path is the subscription, {r} a registration
// r1 in group azurestack. body is JSON text or nothing.
func (c *caller) do(method, path, body string) answer {
	c.t.Helper()
	path = strings.NewReplacer("{r}", "/subscriptions/{s}/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/r1").Replace(path)
	path = strings.ReplaceAll(path, "{s}", c.srv.Subscription)
	return c.send(method, c.srv.URL+path, strings.NewReader(body), "application/json")
}

func (c *caller) send(method, target string, body io.Reader, kind string) answer {
	c.t.Helper()
	a, err := c.try(method, target, body, kind)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c *caller) try(method, target string, body io.Reader, kind string) (answer, error) {
	req, err := http.NewRequestWithContext(c.t.Context(), method, target, body)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", kind)
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, header: res.Header}
	if len(bytes.TrimSpace(raw)) > 0 && raw[0] == '{' {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			return answer{}, err
		}
	}
	return a, nil
}

// expect fails the test when the status or the code differ.
func (c *caller) expect(status int, code string, a answer) answer {
	c.t.Helper()
	if a.status != status || a.code() != code {
		c.t.Errorf("answer %d %q (%v), want %d %q", a.status, a.code(), a.body, status, code)
	}
	return a
}

func registrationBody(token string) string {
	return `{"location":"global","properties":{"registrationToken":"` + token + `"}}`
}

func token(seed uint64) string { return officialtest.Token(officialtest.Spec{Seed: seed}) }

// lever is a clock that stands still until it is moved.
type lever struct {
	mu sync.Mutex
	t  time.Time
}

func newLever() *lever { return &lever{t: time.Date(2026, 8, 28, 15, 0, 0, 0, time.UTC)} }

func (l *lever) Now() time.Time { l.mu.Lock(); defer l.mu.Unlock(); return l.t }
func (l *lever) move(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t = l.t.Add(d)
}

func names(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
