package flow

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// removal makes the request of azs-agent deactivate, behind the endpoint.
func (in *inside) removal(t *testing.T, seed uint64) *Request {
	t.Helper()
	id := officialtest.CloudID(seed)
	r, err := in.Agent.request(in.Peers[0], &bundle.Request{Operation: bundle.Unregister, CloudID: id, ExpectSubscription: subscription,
		ExpectResourceGroup: "azurestack", ExpectRegistration: "AzureStack-" + id}, nil, order())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// removed seals the relay's answer to it.
func (far *farRelay) removed(t *testing.T, r *Request, payload []byte, change func(*bundle.Answer)) []byte {
	t.Helper()
	far.seq++
	id, err := bundle.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &bundle.Answer{Label: "relay-1", Operation: bundle.Unregister, CloudID: r.Content.CloudID, Cloud: "AzureCloud", Subscription: subscription,
		ResourceGroup: "elsewhere", Registration: "found-by-its-cloud-id", RequestCreated: r.Manifest.Created, RequestExpires: r.Manifest.Expires, Received: relayTime}
	if len(payload) > 0 {
		a.KeySHA256 = bundle.Sum(payload)
	}
	if change != nil {
		change(a)
	}
	b, err := far.Seal(far.agent, bundle.Draft{Bundle: id, Seq: far.seq, Re: r.Bundle.Digest(), Created: relayTime, Expires: r.Manifest.Expires,
		Content: a, Payload: payload}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return b.Text()
}

// The answer to a removal ends its trip with no sink, and makes a receipt that
// names no key.
func TestARemovalEndsWithItsAnswer(t *testing.T) {
	in := newInside(t)
	r := in.removal(t, 1)
	raw := in.relay.removed(t, r, nil, nil)
	sealed, err := bundle.Split(raw)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := sealed.Peek(); err != nil || !Removal(in.Ledger, m) {
		t.Errorf("not known as the answer to a removal: %v", err)
	}
	act := mustActivate(t, in, raw, nil)
	if act.Key != nil || act.Receipt == nil || state(t, in.Ledger, r.Trip) != ledger.Confirmed {
		t.Errorf("activation %+v, trip %s", act, state(t, in.Ledger, r.Trip))
	}
	if _, _, known := Remembered(in.Ledger, r.Content.CloudID); known {
		t.Error("a removal is remembered as a registration")
	}
	if _, err := in.Ledger.Append("deactivated", "", map[string]string{dataCloudID: r.Content.CloudID}); err != nil {
		t.Fatal(err)
	}
	again := in.removal(t, 1)
	mustActivate(t, in, in.relay.removed(t, again, nil, nil), nil)
	if !deactivated(in.Ledger, r.Content.CloudID) {
		t.Error("the answer to a removal counts as an activation")
	}
	_, err = in.Activate(context.Background(), raw, nil)
	wantKind(t, err, fault.Replay, "was already used")
}

// Threat: an answer that is not what was asked for is taken for the end of a
// removal, or the other way round.
func TestAnswersThatDoNotFitARemoval(t *testing.T) {
	in := newInside(t)
	r := in.removal(t, 1)
	for name, tt := range map[string]struct {
		raw  []byte
		kind fault.Kind
		text string
	}{
		"a key":             {in.relay.removed(t, r, []byte("a key"), nil), fault.Refused, "is for a removal and holds a key"},
		"another stamp":     {in.relay.removed(t, r, nil, func(a *bundle.Answer) { a.CloudID = officialtest.CloudID(2) }), fault.NotForUs, "cloud id"},
		"another operation": {in.relay.removed(t, r, nil, func(a *bundle.Answer) { a.Operation = bundle.Register }), fault.NotForUs, "operation"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := in.Activate(context.Background(), tt.raw, nil)
			wantKind(t, err, tt.kind, tt.text)
			if s := state(t, in.Ledger, r.Trip); s == ledger.Opened || s == ledger.Confirmed {
				t.Errorf("the trip is %s", s)
			}
		})
	}
	other := in.request(t, spec(3), order())
	_, err := in.Activate(context.Background(), in.relay.answer(t, other, spec(3), nil), nil)
	wantKind(t, err, fault.Usage, "holds an activation key")
	mustActivate(t, in, in.relay.answer(t, other, spec(3), nil), keyFile(t)) // it is not used up by that
}

// A renewal may come back under a new unique name, which begins with the expected
// one; any other name, and the same for a first registration, is refused.
func TestARenewalMayHaveANewUniqueName(t *testing.T) {
	for _, tt := range []struct {
		operation, name string
		kind            fault.Kind
	}{
		{bundle.Renew, "AzureStack-" + officialtest.CloudID(1) + "-2027", 0},
		{bundle.Renew, "AzureStack-" + officialtest.CloudID(1) + "2027", fault.NotForUs},
		{bundle.Renew, "elsewhere", fault.NotForUs},
		{bundle.Register, "AzureStack-" + officialtest.CloudID(1) + "-2027", fault.NotForUs},
	} {
		t.Run(tt.operation+" "+tt.name, func(t *testing.T) {
			in := newInside(t)
			o := order()
			o.Operation = tt.operation
			r := in.request(t, spec(1), o)
			raw := in.relay.answer(t, r, spec(1), func(a *reply) {
				a.answer.Operation, a.answer.Registration, a.place.RegistrationName = tt.operation, tt.name, tt.name
			})
			act, err := in.Activate(context.Background(), raw, keyFile(t))
			if fault.KindOf(err) != tt.kind {
				t.Fatalf("kind %v, want %v: %v", fault.KindOf(err), tt.kind, err)
			}
			if tt.kind != 0 {
				return
			}
			if !strings.Contains(strings.Join(act.Warnings, "\n"), "new unique name") {
				t.Errorf("warnings %q", act.Warnings)
			}
			if known, _, _ := Remembered(in.Ledger, r.Content.CloudID); known.Registration != tt.name {
				t.Errorf("remembered as %q", known.Registration)
			}
		})
	}
}
