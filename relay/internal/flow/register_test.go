package flow

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

const (
	registrations = "*/providers/Microsoft.AzureStack/registrations/*"
	locks         = "*/providers/Microsoft.Authorization/locks/*"
	keys          = "*/getActivationKey"
)

// The whole way: an empty subscription, the answer as the agent opens it, the
// same answer again, the receipt.
func TestFromARequestToItsReceipt(t *testing.T) {
	out := newOutside(t, azuretest.WithSubscription(azuretest.Subscription{Name: "Factory", Provider: "NotRegistered", ProviderPolls: 2}))
	raw := out.agent.request(t, spec(1), nil)
	received := out.clock.at
	o := out.mustRegister(t, raw)

	m, ans, key := out.agent.open(t, o.Answer)
	req, err := bundle.Split(raw)
	if err != nil {
		t.Fatal(err)
	}
	if m.Re != req.Digest() || m.Seq != 1 || !m.Expires.Equal(agentTime.Add(fortnight)) {
		t.Errorf("manifest %+v", m)
	}
	cloudID, yes := officialtest.CloudID(1), true
	want := &bundle.Answer{
		Label: "relay-1", Operation: bundle.Register, CloudID: cloudID, Cloud: "custom", Tenant: out.azure.Tenant, Subscription: out.azure.Subscription,
		ResourceGroup: "azurestack", Registration: "AzureStack-" + cloudID, RegistrationID: o.ID.String(), BillingModel: "Capacity",
		KeyExpires: ans.KeyExpires, KeySHA256: bundle.Sum([]byte(key)), Locked: &yes,
		RequestCreated: agentTime, RequestExpires: agentTime.Add(fortnight), Received: received,
	}
	if diff := cmp.Diff(want, ans); diff != "" || ans.KeyExpires == "" || key != o.Key.Text.Reveal() {
		t.Errorf("answer differs (-want +got):\n%s", diff)
	}
	st := out.azure.State()
	if len(st.Registrations) != 1 || st.Registrations[0].CloudID != cloudID || len(st.Locks) != 1 || st.Locks[0].Level != "CanNotDelete" {
		t.Errorf("state %+v", st)
	}

	// The same request again asks Azure nothing and gives the same bytes.
	calls := len(out.azure.Requests())
	again := out.mustRegister(t, raw)
	if !again.Again || !bytes.Equal(again.Answer.Text(), o.Answer.Text()) || len(out.azure.Requests()) != calls {
		t.Errorf("again: %+v after %d more calls", again, len(out.azure.Requests())-calls)
	}

	rec := &bundle.Receipt{Label: "site-a", Outcome: bundle.OutcomeWritten, CloudID: cloudID, Applied: agentTime.Add(time.Hour), KeySHA256: ans.KeySHA256, Journal: bundle.Sum(nil)}
	refuse := func(name string, kind fault.Kind, text string, raw []byte) {
		t.Helper()
		before := out.Ledger.Head()
		_, _, err := out.Close(raw)
		wantKind(t, err, kind, text)
		if out.Ledger.Head() != before || state(t, out.Ledger, o.Trip) != ledger.Answered {
			t.Errorf("%s: something was journaled", name)
		}
	}
	otherKey, otherStamp := *rec, *rec
	otherKey.KeySHA256, otherStamp.CloudID = bundle.Sum([]byte("another")), officialtest.CloudID(2)
	refuse("another key", fault.NotForUs, "another activation key or stamp", out.agent.receipt(t, o.Answer, &otherKey))
	refuse("another stamp", fault.NotForUs, "another activation key or stamp", out.agent.receipt(t, o.Answer, &otherStamp))
	refuse("no answer of ours", fault.NotForUs, "an answer that this relay did not make", out.agent.receipt(t, req, rec))
	refuse("a stranger", fault.NotForUs, "no pinned peer has that key", stranger(t, out).receipt(t, o.Answer, rec))
	refuse("a request", fault.NotForUs, "", raw)
	receipt := out.agent.receipt(t, o.Answer, rec)
	for range 2 {
		trip, got, err := out.Close(receipt)
		if err != nil || trip.State != ledger.Closed || got.Outcome != bundle.OutcomeWritten {
			t.Fatalf("closed %+v, %+v, %v", trip, got, err)
		}
	}
	if again := out.mustRegister(t, raw); !bytes.Equal(again.Answer.Text(), o.Answer.Text()) {
		t.Error("after the receipt the answer is another one")
	}
	wantNoSecret(t, out.dir, officialtest.Token(spec(1)), key, out.azure.ClientSecret)
	wantWholeJournal(t, out.dir, ledger.Relay)
	if said := strings.Join(out.said, "\n"); strings.Contains(said, key[:40]) || strings.Contains(said, officialtest.Token(spec(1))[:40]) {
		t.Error("a secret was said")
	}
}

// Threat: the relay's operator, or who took the host over, registers elsewhere.
// What stands in the way is found by reading; nothing is changed.
func TestAPlanThatIsRefused(t *testing.T) {
	other := officialtest.CloudID(500)
	two := []azuretest.Option{azuretest.WithSubscription(azuretest.Subscription{}), azuretest.WithSubscription(azuretest.Subscription{ID: other, Name: "Other"})}
	standing := func(name, group, cloudID string) azuretest.Option {
		return azuretest.WithRegistration(azuretest.Registration{Group: group, Name: name, CloudID: cloudID})
	}
	name := "AzureStack-" + officialtest.CloudID(1)
	for _, tt := range []struct {
		name   string
		opts   []azuretest.Option
		change func(*ask)
		order  Order
		kind   fault.Kind
		text   string
	}{
		{"nobody says where", nil, func(a *ask) { a.request.ExpectSubscription = "" }, Order{}, fault.Usage, "in which subscription"},
		{"another subscription by id", two, nil, Order{Subscription: other}, fault.NotForUs, "--subscription says " + other},
		{"another subscription by name", two, nil, Order{Subscription: "other"}, fault.NotForUs, `--subscription says ` + other + ` ("Other")`},
		{"no such subscription", nil, nil, Order{Subscription: "nowhere"}, fault.NotForUs, "nowhere"},
		{"another name", nil, nil, Order{Name: "elsewhere"}, fault.NotForUs, `the request expects registration "` + name + `", --name says "elsewhere"`},
		{"another group", nil, nil, Order{Group: "elsewhere"}, fault.NotForUs, `the request expects resource group "azurestack", --group says "elsewhere"`},
		{"a name that cannot be", nil, func(a *ask) { a.request.ExpectRegistration = "" }, Order{Name: "a/b"}, fault.Usage, ""},
		{"disabled", []azuretest.Option{azuretest.WithSubscription(azuretest.Subscription{State: "Disabled"})}, nil, Order{}, fault.Permanent, "takes no changes"},
		{"provider must not be registered", []azuretest.Option{azuretest.WithSubscription(azuretest.Subscription{Provider: "NotRegistered"})}, nil,
			Order{NoProviderRegister: true}, fault.Permanent, "--no-provider-register"},
		{"no such location", nil, nil, Order{Location: "moon"}, fault.Usage, "moon"},
		{"the stamp stands elsewhere", []azuretest.Option{standing("old", "legacy", officialtest.CloudID(1))}, nil, Order{}, fault.Permanent, "is registered already as"},
		{"the name is another stamp's", []azuretest.Option{standing(name, "azurestack", officialtest.CloudID(2))}, nil, Order{}, fault.Permanent, "is that of another stamp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := newOutside(t, tt.opts...)
			j := out.mustRead(t, out.agent.request(t, spec(1), tt.change))
			before := out.Ledger.Head()
			_, err := out.Plan(t.Context(), j, tt.order)
			wantKind(t, err, tt.kind, tt.text)
			if out.changes() != 0 || out.Ledger.Head() != before {
				t.Error("something was changed")
			}
		})
	}
}

// A plan changes nothing and lists exactly what Run sends.
func TestAPlanIsWhatRunSends(t *testing.T) {
	for name, opts := range map[string][]azuretest.Option{
		"empty subscription": {azuretest.WithSubscription(azuretest.Subscription{Provider: "NotRegistered", ProviderPolls: 1})},
		"group is there":     {azuretest.WithGroup(azuretest.Group{Name: "azurestack", Tags: map[string]string{"owner": "plant"}})},
		"registered before":  {azuretest.WithRegistration(azuretest.Registration{Name: "AzureStack-" + officialtest.CloudID(1), Token: officialtest.Token(spec(1))})},
	} {
		t.Run(name, func(t *testing.T) {
			out := newOutside(t, opts...)
			j := out.mustRead(t, out.agent.request(t, spec(1), nil))
			p, err := out.Plan(t.Context(), j, Order{})
			if err != nil {
				t.Fatal(err)
			}
			if out.changes() != 0 || len(out.Ledger.Trips()) != 0 {
				t.Fatal("the plan changed something")
			}
			var want, got []string
			for _, w := range p.Writes() {
				path, _, _ := strings.Cut(strings.TrimPrefix(w.URL, out.azure.URL), "?")
				want = append(want, w.Method+" "+strings.ToLower(path))
			}
			if _, err := out.Run(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			for _, r := range out.azure.Requests() {
				if path := strings.ToLower(r.Path); strings.HasPrefix(path, "/subscriptions") && r.Method != "GET" && r.Method != "HEAD" {
					got = append(got, r.Method+" "+path)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("planned and sent differ (-planned +sent):\n%s", diff)
			}
			for _, g := range out.azure.State().Groups {
				if name == "group is there" && g.Tags["owner"] != "plant" {
					t.Error("the group's tags are gone")
				}
			}
		})
	}
}

// A lock that fails never loses the registration.
func TestALockThatFails(t *testing.T) {
	out := newOutside(t)
	out.azure.Fail(azuretest.Fault{Method: "PUT", Path: locks, Code: "AuthorizationFailed"})
	raw := out.agent.request(t, spec(1), nil)
	o := out.mustRegister(t, raw)
	if o.Unlocked == nil || o.Answer == nil || !out.Unfinished(o.Trip) {
		t.Fatalf("outcome %+v", o)
	}
	if _, ans, _ := out.agent.open(t, o.Answer); ans.Locked == nil || *ans.Locked {
		t.Error("the answer says that the registration is locked")
	}
	out.azure.ClearFaults()
	again := out.mustRegister(t, raw)
	if err := out.Relock(t.Context(), again, Order{}); err != nil || again.Unlocked != nil || out.Unfinished(o.Trip) {
		t.Errorf("locked again: %v, %v", err, again.Unlocked)
	}
	if st := out.azure.State(); len(st.Locks) != 1 || len(st.Registrations) != 1 {
		t.Errorf("state %+v", st)
	}
	if !bytes.Equal(again.Answer.Text(), o.Answer.Text()) {
		t.Error("the answer is another one")
	}
}

func TestWithoutALock(t *testing.T) {
	out := newOutside(t)
	o, err := out.register(out.agent.request(t, spec(1), nil), Order{NoLock: true})
	if err != nil || len(out.azure.State().Locks) != 0 || out.Unfinished(o.Trip) {
		t.Errorf("outcome %+v, %v, locks %+v", o, err, out.azure.State().Locks)
	}
	if _, ans, _ := out.agent.open(t, o.Answer); ans.Locked == nil || *ans.Locked {
		t.Error("the answer says that the registration is locked")
	}
}

// What Azure refuses for good stands in the journal; what it refuses for now is
// done by the same command.
func TestAFailureAndTheNextRun(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  azuretest.Fault
		kind   fault.Kind
		failed bool
		puts   int
	}{
		{"forbidden", azuretest.Fault{Method: "PUT", Path: registrations, Code: "AuthorizationFailed", Times: 1}, fault.Permanent, true, 2},
		{"cloud id taken", azuretest.Fault{Method: "PUT", Path: registrations, Status: 409, Code: azuretest.CodeCloudIDRegistered, Times: 1}, fault.Permanent, true, 2},
		{"no key yet", azuretest.Fault{Method: "POST", Path: keys, Status: 503}, fault.Unreachable, false, 1},
		{"key forbidden", azuretest.Fault{Method: "POST", Path: keys, Code: "AuthorizationFailed", Times: 1}, fault.Permanent, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := newOutside(t)
			raw := out.agent.request(t, spec(1), nil)
			out.azure.Fail(tt.fault)
			_, err := out.register(raw, Order{})
			wantKind(t, err, tt.kind)
			trip := out.Ledger.Trips()[0]
			failed := false
			for _, e := range trip.Entries {
				failed = failed || e.Event == "failed"
			}
			if failed != tt.failed {
				t.Errorf("journaled as failed: %v", failed)
			}
			out.azure.ClearFaults()
			o := out.mustRegister(t, raw)
			st := out.azure.State()
			if n := out.azure.Count("PUT", "*/registrations/AzureStack-"+officialtest.CloudID(1)); len(st.Registrations) != 1 || n != tt.puts || o.Again {
				t.Errorf("%d PUTs, want %d; state %+v", n, tt.puts, st.Registrations)
			}
		})
	}
}

// A registration that stands is not registered a second time in another place.
func TestTheNextRunGoesToTheSamePlace(t *testing.T) {
	out := newOutside(t)
	raw := out.agent.request(t, spec(1), func(a *ask) { a.request.ExpectRegistration, a.request.ExpectResourceGroup = "", "" })
	out.azure.Fail(azuretest.Fault{Method: "POST", Path: keys, Code: "AuthorizationFailed", Times: 1})
	if _, err := out.register(raw, Order{}); err == nil {
		t.Fatal("registered in spite of the fault")
	}
	_, err := out.register(raw, Order{Name: "elsewhere"})
	wantKind(t, err, fault.Permanent, "is registered already as")
	o := out.mustRegister(t, raw)
	for flag, order := range map[string]Order{
		"--name": {Name: "elsewhere"}, "--group": {Group: "elsewhere"}, "--subscription": {Subscription: officialtest.CloudID(9)},
	} {
		_, err := out.register(raw, order)
		wantKind(t, err, fault.NotForUs, "was registered already with "+flag)
	}
	if same, err := out.register(raw, Order{Name: o.ID.Name(), Group: "AzureStack", Subscription: strings.ToUpper(out.azure.Subscription)}); err != nil || !same.Again {
		t.Errorf("the same place in capitals: %v", err)
	}
	if len(out.azure.State().Registrations) != 1 {
		t.Errorf("registrations %+v", out.azure.State().Registrations)
	}
}

// A request that was registered in one place does not go to another, not even when
// the registration was deleted by hand meanwhile.
func TestARequestHasOnePlace(t *testing.T) {
	out := newOutside(t)
	raw := out.agent.request(t, spec(1), func(a *ask) { a.request.ExpectRegistration = "" })
	out.azure.Fail(azuretest.Fault{Method: "POST", Path: keys, Code: "AuthorizationFailed", Times: 1})
	if _, err := out.register(raw, Order{NoLock: true}); err == nil {
		t.Fatal("registered in spite of the fault")
	}
	id, err := azure.ParseRegistrationID(out.azure.State().Registrations[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Azure.(*azure.Client).DeleteRegistration(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, err = out.register(raw, Order{Name: "elsewhere"})
	wantKind(t, err, fault.NotForUs, "was registered already as "+id.String())
	if st := out.azure.State(); len(st.Registrations) != 0 {
		t.Errorf("registrations %+v", st.Registrations)
	}
}

// A key that is not what was asked for is not sealed.
func TestAKeyThatDoesNotFit(t *testing.T) {
	t.Run("expired", func(t *testing.T) {
		out := newOutside(t, azuretest.WithKeyExpires(agentTime))
		_, err := out.register(out.agent.request(t, spec(1), nil), Order{})
		wantKind(t, err, fault.Expired, "the activation key expired")
		if names, _ := out.Ledger.KeptNames(); len(names) != 0 {
			t.Errorf("kept %q", names)
		}
	})
	t.Run("of another billing model", func(t *testing.T) {
		out := newOutside(t)
		_, err := out.register(out.agent.request(t, spec(1), func(a *ask) { a.request.BillingModel = "Development" }), Order{})
		wantKind(t, err, fault.NotForUs, `billing model is "Capacity", expected "Development"`)
	})
	t.Run("flags", func(t *testing.T) {
		out, yes := newOutside(t), true
		_, err := out.register(out.agent.request(t, spec(1), func(a *ask) { a.request.MarketplaceSyndication = &yes }), Order{})
		wantKind(t, err, fault.NotForUs, "marketplace syndication is false, expected true")
	})
}

// Threat: somebody puts another bundle where the kept answer stood.
func TestAKeptAnswerThatWasSwapped(t *testing.T) {
	out := newOutside(t)
	a, b := out.agent.request(t, spec(1), nil), out.agent.request(t, spec(2), nil)
	toA, toB := out.mustRegister(t, a), out.mustRegister(t, b)
	swap := func(text []byte) {
		t.Helper()
		if err := replace(out.dir, toA.File, text); err != nil {
			t.Fatal(err)
		}
	}
	swap(toB.Answer.Text())
	_, err := out.register(a, Order{})
	wantKind(t, err, fault.Refused, "is not for request")
	forged := bytes.Clone(toA.Answer.Text())
	forged[len(forged)-80] ^= 1
	swap(forged)
	_, err = out.register(a, Order{})
	wantKind(t, err, fault.Refused)
	swap(a)
	_, err = out.register(a, Order{})
	wantKind(t, err, fault.NotForUs, "not by the pinned peer")
	swap(toA.Answer.Text())
	out.mustRegister(t, a)
}
