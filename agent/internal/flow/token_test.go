package flow

import (
	"context"
	"encoding/base64"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// opaque is a token of a layout that nobody published: base64 of bytes.
var opaque = func() string {
	raw := make([]byte, 1500)
	_, _ = rand.NewChaCha8([32]byte{}).Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}()

// What the relay finds in a request.
func TestARequestAsTheRelayOpensIt(t *testing.T) {
	in := newInside(t)
	o := order()
	o.Note, o.WithCard = "rack 4", true
	r := in.request(t, spec(1), o)

	sealed, err := bundle.Split(r.Bundle.Text())
	if err != nil {
		t.Fatal(err)
	}
	_, v, err := trust.Verify(in.relay.Card, []trust.Peer{in.relay.agent}, sealed, bundle.KindRequest)
	if err != nil {
		t.Fatal(err)
	}
	if m := v.Manifest; m.Seq != 1 || !m.Created.Equal(noon) || !m.Expires.Equal(noon.Add(fortnight)) || m.Bundle.String() != r.Trip {
		t.Errorf("manifest %+v", m)
	}
	body, err := in.relay.Open(v)
	if err != nil {
		t.Fatal(err)
	}
	token := officialtest.Token(spec(1))
	if payload, err := body.Payload(); err != nil || string(payload) != token {
		t.Errorf("the payload has %d bytes, %v; the token has %d", len(payload), err, len(token))
	}
	no, cloudID := false, officialtest.CloudID(1)
	want := &bundle.Request{
		Label: "site-a", Operation: bundle.Register, CloudID: cloudID, Nodes: 1, BillingModel: "Capacity",
		AgreementNumber: body.Content.(*bundle.Request).AgreementNumber, UsageReporting: &no, MarketplaceSyndication: &no,
		TokenSHA256: bundle.Sum([]byte(token)), ExpectSubscription: subscription, ExpectResourceGroup: "azurestack",
		ExpectRegistration: "AzureStack-" + cloudID, Note: "rack 4", Card: in.Identity.Card.Bundle.Wire(),
	}
	if diff := cmp.Diff(want, body.Content); diff != "" || want.AgreementNumber == "" {
		t.Errorf("content differs (-want +got):\n%s", diff)
	}
	kept, err := in.Ledger.Kept(r.File)
	if err != nil || string(kept) != string(r.Bundle.Text()) {
		t.Errorf("kept %d bytes, %v", len(kept), err)
	}
	wantNoSecret(t, in.dir, token)
}

func TestANewRequestSupersedesTheOldOneOfTheStamp(t *testing.T) {
	in := newInside(t)
	first, other := in.request(t, spec(1), order()), in.request(t, spec(2), order())
	if err := in.Exported(first.Trip, "/media/usb"); err != nil {
		t.Fatal(err)
	}
	second := in.request(t, spec(1), order())
	if diff := cmp.Diff([]string{first.Trip}, second.Superseded); diff != "" {
		t.Errorf("superseded differ (-want +got):\n%s", diff)
	}
	for trip, want := range map[string]string{first.Trip: ledger.Superseded, other.Trip: ledger.Requested, second.Trip: ledger.Requested} {
		if got := state(t, in.Ledger, trip); got != want {
			t.Errorf("request %s is %s, want %s", trip, got, want)
		}
	}
	if a, b, c := first.Manifest.Seq, other.Manifest.Seq, second.Manifest.Seq; a != 1 || b != 2 || c != 3 {
		t.Errorf("numbers %d, %d, %d", a, b, c)
	}
	_, err := in.Activate(context.Background(), in.relay.answer(t, first, spec(1), nil), keyFile(t))
	wantKind(t, err, fault.Replay, "is for request "+first.Trip+", which is superseded since 2026-11-23T12:00:00Z")
	mustActivate(t, in, in.relay.answer(t, other, spec(2), nil), keyFile(t))
	mustActivate(t, in, in.relay.answer(t, second, spec(1), nil), keyFile(t))
}

// What is known to be wrong is refused before anything is sealed or journaled.
func TestAnOrderThatContradictsTheToken(t *testing.T) {
	yes := true
	for _, tt := range []struct {
		name   string
		spec   officialtest.Spec
		raw    string // instead of the spec's token
		change func(*TokenOrder)
		kind   fault.Kind
		text   string
	}{
		{"cloud id", spec(1), "", func(o *TokenOrder) { o.CloudID = officialtest.CloudID(2) }, fault.Usage, officialtest.CloudID(2)},
		{"billing model", spec(1), "", func(o *TokenOrder) { o.BillingModel = "Development" }, fault.Usage, `"Development" by --billing-model and "Capacity"`},
		{"agreement", spec(1), "", func(o *TokenOrder) { o.AgreementNumber = "E1" }, fault.Usage, "agreement number"},
		{"usage reporting", spec(1), "", func(o *TokenOrder) { o.UsageReporting = &yes }, fault.Usage, "usage reporting"},
		{"connected model", officialtest.Spec{Seed: 1, BillingModel: "PayAsYouUse"}, "", nil, fault.Usage, "connected"},
		{"custom without a tag", officialtest.Spec{Seed: 1, BillingModel: "Custom"}, "", nil, fault.Usage, "asset tag"},
		{"opaque without a cloud id", officialtest.Spec{}, opaque, nil, fault.Usage, "does not tell the cloud id"},
		{"cut at 1022", officialtest.Spec{}, officialtest.Token(spec(1))[:1022], nil, fault.Refused, "1022"},
		{"no such relay", spec(1), "", func(o *TokenOrder) { o.Relay = "relay-9" }, fault.Usage, `["relay-1"]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := newInside(t)
			o := order()
			if tt.change != nil {
				tt.change(&o)
			}
			file := tokenFile(t, tt.spec)
			if tt.raw != "" {
				file = textFile(t, tt.raw)
			}
			before := in.Ledger.Head()
			_, err := in.Token(context.Background(), file, o)
			wantKind(t, err, tt.kind, tt.text)
			names, _ := in.Ledger.KeptNames()
			if in.Ledger.Head() != before || len(names) != 0 {
				t.Errorf("something was done: %q", names)
			}
		})
	}
}

func TestAnOpaqueTokenWithACloudID(t *testing.T) {
	in := newInside(t)
	file := textFile(t, opaque)
	o := order()
	o.CloudID, o.ExpectSubscription = "edge-7", ""
	r, err := in.Token(context.Background(), file, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Content.ExpectRegistration != "AzureStack-edge-7" || len(r.Warnings) < 2 {
		t.Errorf("registration %q, warnings %q", r.Content.ExpectRegistration, r.Warnings)
	}
}

func TestWhichRelay(t *testing.T) {
	in := newInside(t)
	file := tokenFile(t, spec(1))
	in.pairAnother(t, "relay-2")
	_, err := in.Token(context.Background(), file, order())
	wantKind(t, err, fault.Usage, `["relay-1" "relay-2"]`)
	o := order()
	o.Relay = "relay-2"
	if r, err := in.Token(context.Background(), file, o); err != nil || r.Relay != "relay-2" || r.Manifest.Pair != in.Peers[1].Pair {
		t.Errorf("request %+v, %v", r, err)
	}
	in.Peers = nil
	_, err = in.Token(context.Background(), file, order())
	wantKind(t, err, fault.NothingYet, "no relay is paired")
}

func TestCancel(t *testing.T) {
	in := newInside(t)
	r, other := in.request(t, spec(1), order()), in.request(t, spec(2), order())
	answer := in.relay.answer(t, r, spec(1), nil)
	if got, err := Cancel(in.Ledger, r.Manifest.Bundle.Short()); err != nil || got.ID != r.Trip || got.State != ledger.Cancelled {
		t.Fatalf("cancelled %+v, %v", got, err)
	}
	if _, err := Cancel(in.Ledger, r.Trip); err != nil {
		t.Errorf("cancelled again: %v", err)
	}
	before := in.Ledger.Head()
	_, err := in.Activate(context.Background(), answer, keyFile(t))
	wantKind(t, err, fault.Replay, "is for request "+r.Trip+", which is cancelled since")
	if in.Ledger.Head() != before {
		t.Error("the answer was opened before it was refused")
	}
	for _, id := range []string{"", "!", "ZZZZZZZZZZZZZZ"} {
		_, err := Cancel(in.Ledger, id)
		wantKind(t, err, fault.Usage)
	}
	mustActivate(t, in, in.relay.answer(t, other, spec(2), nil), keyFile(t))
	_, err = Cancel(in.Ledger, other.Trip)
	wantKind(t, err, fault.Replay, "cannot be cancelled")
	if left := Pending(in.Ledger); len(left) != 0 {
		t.Errorf("pending %+v", left)
	}
}

func TestCheckClock(t *testing.T) {
	for _, tt := range []struct {
		name string
		by   time.Duration
		back bool
	}{
		{"three days back", -72 * time.Hour, true},
		{"a little over the tolerance", -ledger.Tolerance - time.Second, true},
		{"set by a time server", -time.Minute, false},
		{"five years on", 5 * 365 * 24 * time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := newInside(t)
			in.request(t, spec(1), order())
			in.clock.at = noon.Add(tt.by)
			err := in.Ledger.CheckClock(false)
			if !tt.back {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantKind(t, err, fault.Expired, "the clock went back by")
			if err := in.Ledger.CheckClock(true); err != nil {
				t.Fatal(err)
			}
			if err := in.Ledger.CheckClock(false); err != nil {
				t.Errorf("after it was accepted: %v", err)
			}
		})
	}
}
