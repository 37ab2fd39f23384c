package azure_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	azlog "github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// logged is everything that azcore and azidentity log in all tests of this
// package, at every level that they have.
var logged struct {
	sync.Mutex
	bytes.Buffer
}

func TestMain(m *testing.M) {
	if ca := os.Getenv("AZS_TEST_BE_THE_BROWSER"); ca != "" {
		os.Exit(browse(ca, os.Args[len(os.Args)-1]))
	}
	azlog.SetListener(func(e azlog.Event, s string) {
		logged.Lock()
		defer logged.Unlock()
		fmt.Fprintln(&logged, e, s)
	})
	os.Exit(m.Run())
}

// watch is a clock that moves only when somebody sleeps.
type watch struct {
	sync.Mutex
	now   time.Time
	slept []time.Duration
	said  []string
}

func (w *watch) Now() time.Time {
	w.Lock()
	defer w.Unlock()
	return w.now
}

func (w *watch) sleep(ctx context.Context, d time.Duration) error {
	w.Lock()
	defer w.Unlock()
	w.now = w.now.Add(d)
	w.slept = append(w.slept, d)
	return ctx.Err()
}

func (w *watch) progress(s string) {
	w.Lock()
	defer w.Unlock()
	w.said = append(w.said, s)
}

func (w *watch) total() (sum time.Duration) {
	for _, d := range w.slept {
		sum += d
	}
	return sum
}

// site is a simulated Azure with the options that reach it.
type site struct {
	*azuretest.Server
	*watch
	options azure.Options
}

func newSite(t testing.TB, opts ...azuretest.Option) *site {
	t.Helper()
	s := &site{Server: azuretest.NewServer(opts...), watch: &watch{now: time.Now()}}
	t.Cleanup(s.Close)
	s.options = azure.Options{
		ARMEndpoint: s.URL, CAFile: write(t, "ca.pem", s.CAPEM),
		Auth: "client-secret", Tenant: s.Tenant, ClientID: s.ClientID, ClientSecret: secret.New(s.ClientSecret),
		Clock: s.watch, Sleep: s.watch.sleep, Progress: s.watch.progress,
	}
	return s
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *site) connect(t testing.TB) *azure.Client {
	t.Helper()
	c, err := azure.Connect(t.Context(), s.options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *site) id(t testing.TB, group, name string) azure.RegistrationID {
	t.Helper()
	sub, err := azure.ParseSubscriptionID(s.Subscription)
	if err != nil {
		t.Fatal(err)
	}
	g, err := sub.Group(group)
	if err != nil {
		t.Fatal(err)
	}
	id, err := g.Registration(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func token(seed uint64) secret.Text {
	return secret.New(officialtest.Token(officialtest.Spec{Seed: seed, BillingModel: "Development"}))
}

const regs = "*/providers/Microsoft.AzureStack/registrations/*"

// The whole way of azure.md's table, and back.
func TestRegisterAndUnregister(t *testing.T) {
	s := newSite(t, azuretest.WithSubscription(azuretest.Subscription{Name: "Factory", Provider: "NotRegistered", ProviderPolls: 3}))
	c, ctx := s.connect(t), t.Context()
	id := s.id(t, "azurestack", "AzureStack-"+officialtest.CloudID(1))
	sub := id.Subscription()

	who, err := c.WhoAmI(ctx)
	if err != nil || who.AppID != s.ClientID || who.Tenant != s.Tenant || who.ObjectID == "" || who.Name != "" {
		t.Fatalf("WhoAmI = %+v, %v", who, err)
	}
	want := azure.Subscription{ID: sub, Name: "Factory", TenantID: s.Tenant, State: "Enabled", QuotaID: "EnterpriseAgreement_2014-09-01"}
	for _, by := range []string{s.Subscription, strings.ToUpper(s.Subscription), "factory"} {
		got, err := c.Subscription(ctx, by)
		if err != nil {
			t.Fatal(err)
		}
		if got != want || !got.Enabled() {
			t.Errorf("Subscription(%q) = %+v", by, got)
		}
	}

	if state, err := c.Provider(ctx, sub); err != nil || state != azure.NotRegistered {
		t.Fatalf("Provider = %s, %v", state, err)
	}
	if err := c.WaitProvider(ctx, sub); fault.KindOf(err) != fault.Permanent {
		t.Errorf("waiting for a provider that nobody registers = %v", err)
	}
	if state, err := c.RegisterProvider(ctx, sub); err != nil || state != azure.Registering {
		t.Fatalf("RegisterProvider = %s, %v", state, err)
	}
	if err := c.WaitProvider(ctx, sub); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second}, s.slept); d != "" {
		t.Errorf("polls: %s", d)
	}

	if _, found, err := c.Group(ctx, id.Group()); err != nil || found {
		t.Fatalf("Group before it exists = %v, %v", found, err)
	}
	locations, err := c.Locations(ctx, sub)
	if err != nil {
		t.Fatal(err)
	}
	location, err := azure.ChooseLocation(locations, "West Central US")
	if err != nil || location != "westcentralus" {
		t.Fatalf("ChooseLocation = %q, %v", location, err)
	}
	if g, err := c.CreateGroup(ctx, id.Group(), location); err != nil || g.Location != location {
		t.Fatalf("CreateGroup = %+v, %v", g, err)
	}
	if g, found, err := c.Group(ctx, id.Group()); err != nil || !found || g.Location != location || g.ID != id.Group() {
		t.Fatalf("Group = %+v, %v, %v", g, found, err)
	}

	if all, err := c.Registrations(ctx, sub); err != nil || len(all) != 0 {
		t.Fatalf("Registrations = %v, %v", all, err)
	}
	if _, found, err := c.Registration(ctx, id); err != nil || found {
		t.Fatalf("Registration before it exists = %v, %v", found, err)
	}
	put, err := c.PutRegistration(ctx, id, token(1))
	if err != nil {
		t.Fatal(err)
	}
	if put.ID != id || put.CloudID != officialtest.CloudID(1) || put.BillingModel != "Development" || put.ObjectID == "" || put.ETag == "" {
		t.Errorf("PutRegistration = %+v", put)
	}
	if _, found, err := c.Lock(ctx, id); err != nil || found {
		t.Fatalf("Lock before it exists = %v, %v", found, err)
	}
	lock, err := c.PutLock(ctx, id)
	if err != nil || lock.Level != "CanNotDelete" || !strings.Contains(lock.Notes, id.Name()) {
		t.Fatalf("PutLock = %+v, %v", lock, err)
	}
	if got, found, err := c.Lock(ctx, id); err != nil || !found || got != lock {
		t.Fatalf("Lock = %+v, %v, %v", got, found, err)
	}
	key, err := c.ActivationKey(ctx, id)
	if err != nil || strings.Count(key.Reveal(), ".") != 2 {
		t.Fatalf("ActivationKey of %d bytes, %v", key.Len(), err)
	}
	back, err := c.ReadBack(ctx, id, strings.ToUpper(put.CloudID))
	if err != nil || back != put {
		t.Fatalf("ReadBack = %+v, %v", back, err)
	}
	if _, err := c.ReadBack(ctx, id, officialtest.CloudID(2)); fault.KindOf(err) != fault.NotForUs {
		t.Errorf("ReadBack for another stamp = %v", err)
	}
	if all, err := c.Registrations(ctx, sub); err != nil || len(all) != 1 || all[0] != put {
		t.Errorf("Registrations = %v, %v", all, err)
	}

	if err := c.DeleteRegistration(ctx, id); fault.KindOf(err) != fault.Permanent || !strings.Contains(err.Error(), "ScopeLocked") {
		t.Errorf("deletion of a locked registration = %v", err)
	}
	for range 2 { // the second finds nothing and is content
		if err := c.DeleteLock(ctx, id); err != nil {
			t.Fatal(err)
		}
		if err := c.DeleteRegistration(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if _, found, err := c.Registration(ctx, id); err != nil || found {
		t.Errorf("Registration after its deletion = %v, %v", found, err)
	}
}

// What was printed is what the server saw.
func TestDryRunAsksForNothingAndNamesTheSameRequests(t *testing.T) {
	s := newSite(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	requests, err := azure.NewRequests(s.options)
	if err != nil || len(s.Requests()) != 0 {
		t.Fatalf("NewRequests: %v, %d requests", err, len(s.Requests()))
	}
	c, id := s.connect(t), s.id(t, "azurestack", "stamp")
	if c.Requests != requests {
		t.Errorf("Connect makes %+v, NewRequests %+v", c.Requests, requests)
	}
	before := len(s.Requests())
	if _, err := c.PutRegistration(t.Context(), id, token(1)); err != nil {
		t.Fatal(err)
	}
	seen := s.Requests()[before:]
	q := requests.PutRegistration(id, token(1))
	if len(seen) != 1 || seen[0].Method != q.Method || s.URL+seen[0].Path+"?api-version="+seen[0].APIVersion != q.URL {
		t.Errorf("printed %s, sent %+v", q, seen)
	}
}

// Every answer of the table that is injected at every call ends at once, with
// its kind, when it is permanent: fault 21 of the official flow asks again.
func TestPermanentRefusalsAreNotRetried(t *testing.T) {
	codes := map[string]fault.Kind{
		"AuthorizationFailed": fault.Permanent, "LinkedAuthorizationFailed": fault.Permanent, "RequestDisallowedByPolicy": fault.Permanent,
		"ReadOnlyDisabledSubscription": fault.Permanent, "ScopeLocked": fault.Permanent, "SubscriptionNotFound": fault.NotForUs,
		"InvalidRegistrationToken": fault.Permanent, azuretest.CodeCloudIDRegistered: fault.Permanent, "CloudIdUpdateNotAllowed": fault.Permanent,
		"InvalidResourceGroupLocation": fault.Permanent, "ExpiredAuthenticationToken": fault.Permanent,
		"InvalidAuthenticationToken": fault.Permanent, "InvalidAuthenticationTokenTenant": fault.NotForUs,
	}
	s := newSite(t, azuretest.WithRegistration(azuretest.Registration{Name: "stamp", Token: token(1).Reveal()}))
	c, id := s.connect(t), s.id(t, "azurestack", "stamp")
	for code, kind := range codes {
		for name, call := range allCalls(c, id) {
			t.Run(code+"/"+name, func(t *testing.T) {
				s.ClearFaults()
				s.Fail(azuretest.Fault{Code: code})
				before, slept := len(s.Requests()), len(s.slept)
				err := call(t.Context())
				if fault.KindOf(err) != kind {
					t.Errorf("kind %s, want %s: %v", fault.KindOf(err), kind, err)
				}
				if n := len(s.Requests()) - before; n != 1 || len(s.slept) != slept {
					t.Errorf("%d requests and %d sleeps for a permanent refusal", n, len(s.slept)-slept)
				}
				var r *azure.Refusal
				if !errors.As(err, &r) || r.Code != code || r.Status != azuretest.Documented(code) || r.RequestID == "" {
					t.Errorf("refusal %+v", r)
				}
				if fault.HintOf(err) == "" || !strings.Contains(err.Error(), code) {
					t.Errorf("%v, hint %q", err, fault.HintOf(err))
				}
			})
		}
	}
}

func allCalls(c *azure.Client, id azure.RegistrationID) map[string]func(context.Context) error {
	sub := id.Subscription()
	return map[string]func(context.Context) error{
		"subscriptions": func(ctx context.Context) error { _, err := c.Subscriptions(ctx); return err },
		"subscription":  func(ctx context.Context) error { _, err := c.Subscription(ctx, sub.String()); return err },
		"provider":      func(ctx context.Context) error { _, err := c.Provider(ctx, sub); return err },
		"register":      func(ctx context.Context) error { _, err := c.RegisterProvider(ctx, sub); return err },
		"locations":     func(ctx context.Context) error { _, err := c.Locations(ctx, sub); return err },
		"group":         func(ctx context.Context) error { _, _, err := c.Group(ctx, id.Group()); return err },
		"create group":  func(ctx context.Context) error { _, err := c.CreateGroup(ctx, id.Group(), "westcentralus"); return err },
		"list":          func(ctx context.Context) error { _, err := c.Registrations(ctx, sub); return err },
		"get":           func(ctx context.Context) error { _, _, err := c.Registration(ctx, id); return err },
		"put":           func(ctx context.Context) error { _, err := c.PutRegistration(ctx, id, token(1)); return err },
		"key":           func(ctx context.Context) error { _, err := c.ActivationKey(ctx, id); return err },
		"read back":     func(ctx context.Context) error { _, err := c.ReadBack(ctx, id, ""); return err },
		"lock":          func(ctx context.Context) error { _, _, err := c.Lock(ctx, id); return err },
		"put lock":      func(ctx context.Context) error { _, err := c.PutLock(ctx, id); return err },
		"delete lock":   func(ctx context.Context) error { return c.DeleteLock(ctx, id) },
		"delete":        func(ctx context.Context) error { return c.DeleteRegistration(ctx, id) },
	}
}

// Answers that say nothing about the request, and answers that do not arrive
// before or after Azure acted, are asked for again; the end is the same.
func TestTransientFailuresEndInTheSameSingleRegistration(t *testing.T) {
	tests := map[string]azuretest.Fault{
		"throttled":                     azuretest.Throttle("PUT", regs, 61, 2),
		"500":                           {Method: "PUT", Path: regs, Times: 3, Code: "InternalServerError"},
		"502":                           {Method: "PUT", Path: regs, Times: 3, Code: "BadGateway"},
		"503":                           {Method: "PUT", Path: regs, Times: 3, Code: "ServerTimeout"},
		"504 after it acted":            {Method: "PUT", Path: regs, Times: 1, Code: "GatewayTimeout", Acted: true},
		"408":                           {Method: "PUT", Path: regs, Times: 1, Status: 408},
		"dropped":                       {Method: "PUT", Path: regs, Times: 2, Drop: azuretest.BeforeActing},
		"dropped after acted":           {Method: "PUT", Path: regs, Times: 2, Drop: azuretest.AfterActing},
		"provider not known everywhere": {Method: "PUT", Path: regs, Times: 2, Code: "MissingSubscriptionRegistration"},
		"api-version retired":           {Method: "PUT", Path: regs, Times: 1, Code: "NoRegisteredProviderFound"},
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
			c, id := s.connect(t), s.id(t, "azurestack", "stamp")
			s.Fail(f)
			put, err := c.PutRegistration(t.Context(), id, token(1))
			if err != nil {
				t.Fatal(err)
			}
			all, err := c.Registrations(t.Context(), id.Subscription())
			if err != nil || len(all) != 1 || all[0] != put {
				t.Errorf("registrations %+v, %v", all, err)
			}
			if n := s.Count("PUT", regs); n != f.Times+1 {
				t.Errorf("%d PUTs for %d failures", n, f.Times)
			}
			if name == "throttled" && !cmp.Equal(s.slept, []time.Duration{61 * time.Second, 61 * time.Second}) {
				t.Errorf("slept %v", s.slept)
			}
			if len(s.said) == 0 {
				t.Error("nobody was told about the wait")
			}
		})
	}
}

// Patience has an end, and then the operator is told to try again.
func TestTransientFailuresThatDoNotEnd(t *testing.T) {
	tests := []struct {
		name  string
		fault azuretest.Fault
		puts  int
	}{
		{"throttled", azuretest.Throttle("PUT", regs, 17, 0), 9},
		{"throttled for an hour", azuretest.Throttle("PUT", regs, 3600, 0), 1},
		{"503", azuretest.Fault{Method: "PUT", Path: regs, Code: "ServiceUnavailable"}, 9},
		{"dropped", azuretest.Fault{Method: "PUT", Path: regs, Drop: azuretest.BeforeActing}, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
			c, id := s.connect(t), s.id(t, "azurestack", "stamp")
			s.Fail(tt.fault)
			_, err := c.PutRegistration(t.Context(), id, token(1))
			if fault.KindOf(err) != fault.Unreachable {
				t.Errorf("kind %s: %v", fault.KindOf(err), err)
			}
			if n := s.Count("PUT", regs); n != tt.puts {
				t.Errorf("%d PUTs, want %d", n, tt.puts)
			}
		})
	}
}

func TestCancelledWhileWaiting(t *testing.T) {
	s := newSite(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	ctx, cancel := context.WithCancel(t.Context())
	s.options.Sleep = func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
	c, id := s.connect(t), s.id(t, "azurestack", "stamp")
	s.Fail(azuretest.Fault{Method: "PUT", Path: regs, Code: "ServiceUnavailable"})
	_, err := c.PutRegistration(ctx, id, token(1))
	if fault.KindOf(err) != fault.Cancelled || s.Count("PUT", regs) != 1 {
		t.Errorf("%v after %d PUTs", err, s.Count("PUT", regs))
	}
}

// A key is not everywhere at once: 404 is waited out for two minutes, and other
// absences are not.
func TestActivationKeyWaitsForReplication(t *testing.T) {
	s := newSite(t, azuretest.WithRegistration(azuretest.Registration{Name: "stamp", Token: token(1).Reveal()}))
	c, id := s.connect(t), s.id(t, "azurestack", "stamp")
	s.Fail(azuretest.Fault{Method: "POST", Path: "*/getActivationKey", Times: 3, Code: "ResourceNotFound"})
	key, err := c.ActivationKey(t.Context(), id)
	if err != nil || key.Empty() {
		t.Fatal(err)
	}
	if d := cmp.Diff([]time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second}, s.slept); d != "" {
		t.Error(d)
	}
	again, err := c.ActivationKey(t.Context(), id)
	if err != nil || again.Reveal() != key.Reveal() {
		t.Error("the key fetched again is another one")
	}

	s.slept = nil
	s.Fail(azuretest.Fault{Method: "POST", Path: "*/getActivationKey", Code: "ResourceNotFound"})
	if _, err := c.ActivationKey(t.Context(), id); fault.KindOf(err) != fault.Unreachable || s.total() != 2*time.Minute {
		t.Errorf("%v after %s", err, s.total())
	}
	s.ClearFaults()
	s.slept = nil
	s.Fail(azuretest.Fault{Method: "POST", Path: "*/getActivationKey", Code: "ResourceGroupNotFound"})
	if _, err := c.ActivationKey(t.Context(), id); fault.KindOf(err) != fault.Permanent || s.total() != 0 {
		t.Errorf("%v after %s", err, s.total())
	}
	s.ClearFaults()
	s.Fail(azuretest.Fault{Method: "POST", Path: "*/getActivationKey", Status: 200})
	if _, err := c.ActivationKey(t.Context(), id); fault.KindOf(err) != fault.Refused {
		t.Errorf("an empty answer = %v", err)
	}
}

func TestWaitProviderGivesUp(t *testing.T) {
	s := newSite(t, azuretest.WithSubscription(azuretest.Subscription{Provider: "Registering", ProviderPolls: 1 << 20}))
	c := s.connect(t)
	err := c.WaitProvider(t.Context(), s.id(t, "g", "n").Subscription())
	if fault.KindOf(err) != fault.Unreachable || s.total() != 10*time.Minute {
		t.Errorf("%v after %s", err, s.total())
	}
}

// A provider that is gone while a call needs it is not registered unasked.
func TestMissingProviderIsNotRegisteredUnasked(t *testing.T) {
	s := newSite(t, azuretest.WithSubscription(azuretest.Subscription{Provider: "NotRegistered"}), azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	c := s.connect(t)
	_, err := c.PutRegistration(t.Context(), s.id(t, "azurestack", "stamp"), token(1))
	if fault.KindOf(err) != fault.Permanent || s.Count("POST", "*/register") != 0 {
		t.Errorf("%v, %d registrations of the provider", err, s.Count("POST", "*/register"))
	}
	// One that Azure calls registered and still misses is given up on.
	s2 := newSite(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	c2 := s2.connect(t)
	s2.Fail(azuretest.Fault{Method: "PUT", Path: regs, Code: "MissingSubscriptionRegistration"})
	_, err = c2.PutRegistration(t.Context(), s2.id(t, "azurestack", "stamp"), token(1))
	if fault.KindOf(err) != fault.Permanent || s2.Count("PUT", regs) != 6 {
		t.Errorf("%v after %d PUTs", err, s2.Count("PUT", regs))
	}
}

func TestListsReadAllPages(t *testing.T) {
	var opts []azuretest.Option
	for i := range 7 {
		opts = append(opts, azuretest.WithRegistration(azuretest.Registration{Name: fmt.Sprint("stamp-", i), CloudID: officialtest.CloudID(uint64(i))}))
	}
	opts = append(opts, azuretest.WithPageSize(3), azuretest.WithRegistration(azuretest.Registration{Name: "zz-no-cloud-id"}))
	s := newSite(t, opts...)
	c := s.connect(t)
	all, err := c.Registrations(t.Context(), s.id(t, "g", "n").Subscription())
	if err != nil || len(all) != 8 || s.Count("GET", "*/registrations") != 3 {
		t.Fatalf("%d registrations in %d pages, %v", len(all), s.Count("GET", "*/registrations"), err)
	}
	for i, r := range all[:7] {
		if r.CloudID != officialtest.CloudID(uint64(i)) || r.ID.Name() != fmt.Sprint("stamp-", i) {
			t.Errorf("%d: %+v", i, r)
		}
	}
	if all[7].CloudID != "" {
		t.Errorf("a cloud id out of nothing: %+v", all[7])
	}
	// No cloud id is no mismatch.
	if _, err := c.ReadBack(t.Context(), all[7].ID, officialtest.CloudID(1)); err != nil {
		t.Error(err)
	}
}

func TestSubscriptionByName(t *testing.T) {
	s := newSite(t,
		azuretest.WithSubscription(azuretest.Subscription{Name: "Factory"}), azuretest.WithSubscription(azuretest.Subscription{Name: "Twin"}),
		azuretest.WithSubscription(azuretest.Subscription{Name: "twin", State: "Disabled"}))
	c := s.connect(t)
	if got, err := c.Subscription(t.Context(), "FACTORY"); err != nil || got.ID.String() != s.Subscription {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Subscription(t.Context(), "Twin"); fault.KindOf(err) != fault.Usage {
		t.Errorf("two of a name = %v", err)
	}
	if _, err := c.Subscription(t.Context(), "Mill"); fault.KindOf(err) != fault.NotForUs || !strings.Contains(err.Error(), `"Factory"`) {
		t.Errorf("none of a name = %v", err)
	}
	if _, err := c.Subscription(t.Context(), "00000000-0000-0000-0000-000000000000"); fault.KindOf(err) != fault.NotForUs {
		t.Errorf("unknown id = %v", err)
	}
	all, err := c.Subscriptions(t.Context())
	if err != nil || len(all) != 3 || slices.ContainsFunc(all, func(x azure.Subscription) bool { return x.Enabled() == (x.State == "Disabled") }) {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestCallsThatTheStateForbids(t *testing.T) {
	const other = "22222222-2222-4222-8222-222222222222"
	s := newSite(t,
		azuretest.WithSubscription(azuretest.Subscription{}),
		azuretest.WithSubscription(azuretest.Subscription{ID: "33333333-3333-4333-8333-333333333333", State: "Disabled"}),
		azuretest.WithSubscription(azuretest.Subscription{ID: "44444444-4444-4444-8444-444444444444", TenantID: other}),
		azuretest.WithRegistration(azuretest.Registration{Name: "theirs", CloudID: officialtest.CloudID(9)}),
		azuretest.WithRegistration(azuretest.Registration{Name: "readonly", CloudID: officialtest.CloudID(8), LockLevel: "ReadOnly"}),
		azuretest.WithTakenCloudID(officialtest.CloudID(5)))
	c := s.connect(t)
	in := func(sub, group, name string) azure.RegistrationID {
		p, _ := azure.ParseSubscriptionID(sub)
		g, _ := p.Group(group)
		id, err := g.Registration(name)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	put := func(id azure.RegistrationID, token secret.Text) error {
		_, err := c.PutRegistration(t.Context(), id, token)
		return err
	}
	group := func(sub, location string) error {
		_, err := c.CreateGroup(t.Context(), in(sub, "azurestack", "x").Group(), location)
		return err
	}
	tests := []struct {
		name     string
		err      error
		kind     fault.Kind
		sentence string
	}{
		{"malformed token", put(s.id(t, "azurestack", "a"), secret.New("eyJhIjoxfQ==")), fault.Permanent, "does not understand the registration token of 12 bytes"},
		{"no token", put(s.id(t, "azurestack", "a"), secret.Text{}), fault.Refused, "is empty"},
		{"name of another stamp", put(s.id(t, "azurestack", "theirs"), token(1)), fault.Permanent, `the name "theirs" belongs to the registration of another stamp`},
		{"registered elsewhere", put(s.id(t, "azurestack", "mine"), token(5)), fault.Permanent, "cloud id " + officialtest.CloudID(5) + " is already registered"},
		{"no group", put(s.id(t, "nowhere", "mine"), token(1)), fault.Permanent, `resource group "nowhere" does not exist`},
		{"read-only lock", put(s.id(t, "azurestack", "readonly"), token(8)), fault.Permanent, "a lock at /subscriptions/"},
		{"disabled", group("33333333-3333-4333-8333-333333333333", "westcentralus"), fault.Permanent, "is disabled"},
		{"other tenant", group("44444444-4444-4444-8444-444444444444", "westcentralus"), fault.NotForUs, "whose tenant is " + other},
		{"location unknown to Azure", group(s.Subscription, "atlantis"), fault.Permanent, "westcentralus,eastus"},
		{"group elsewhere", group(s.Subscription, "eastus"), fault.Permanent, "in location westcentralus"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.err == nil || fault.KindOf(tt.err) != tt.kind || !strings.Contains(tt.err.Error(), tt.sentence) {
				t.Errorf("kind %s: %v\nwant %s: %s", fault.KindOf(tt.err), tt.err, tt.kind, tt.sentence)
			}
		})
	}
	if len(s.slept) != 0 {
		t.Errorf("slept %v", s.slept)
	}
}

// A role that is too narrow is told by the action that it lacks, and the lock is
// another action than the registration.
func TestMissingRightsAreNamed(t *testing.T) {
	s := newSite(t, azuretest.WithClient(azuretest.Client{Secret: "narrow-role-secret", Actions: []string{"*"}, NotActions: []string{"Microsoft.Authorization/*"}}),
		azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	c, id := s.connect(t), s.id(t, "azurestack", "stamp")
	if _, err := c.PutRegistration(t.Context(), id, token(1)); err != nil {
		t.Fatal(err)
	}
	_, err := c.PutLock(t.Context(), id)
	if fault.KindOf(err) != fault.Permanent || !strings.Contains(err.Error(), "lacks the action Microsoft.Authorization/locks/write at scope /subscriptions/") ||
		fault.HintOf(err) != "azs-relay role --for register --subscription "+s.Subscription {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
	if _, found, err := c.Lock(t.Context(), id); found || fault.KindOf(err) != fault.Permanent {
		t.Errorf("a lock that may not be read = %v, %v", found, err)
	}
}

// Fault 26 of the official flow: a deletion is reported that was not done.
func TestDeletionThatDidNotHappen(t *testing.T) {
	s := newSite(t, azuretest.WithRegistration(azuretest.Registration{Name: "stamp", CloudID: officialtest.CloudID(1)}))
	c, id := s.connect(t), s.id(t, "azurestack", "stamp")
	s.Fail(azuretest.Fault{Method: "DELETE", Path: regs, Times: 1, Status: http.StatusOK})
	if err := c.DeleteRegistration(t.Context(), id); fault.KindOf(err) != fault.Unreachable || s.total() != 2*time.Minute {
		t.Errorf("%v after %s", err, s.total())
	}
}

// Fault 24 of the official flow: locations were compared with their letter case.
func TestChooseLocation(t *testing.T) {
	all := []azure.Location{{Name: "chinaeast", DisplayName: "China East"}, {Name: "chinanorth", DisplayName: "China North"}}
	for want, got := range map[string]string{"": "chinaeast", "ChinaEast": "chinaeast", "china north": "chinanorth"} {
		if l, err := azure.ChooseLocation(all, want); err != nil || l != got {
			t.Errorf("ChooseLocation(%q) = %q, %v", want, l, err)
		}
	}
	if _, err := azure.ChooseLocation(all, "westus"); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), "chinaeast, chinanorth") {
		t.Errorf("unknown location = %v", err)
	}
	if _, err := azure.ChooseLocation(nil, ""); fault.KindOf(err) != fault.Permanent {
		t.Errorf("no locations = %v", err)
	}
}
