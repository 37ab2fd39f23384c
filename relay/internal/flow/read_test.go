package flow

import (
	"bytes"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// stranger is an agent that nobody here pinned.
func stranger(t testing.TB, out *outside) *farAgent {
	t.Helper()
	far := t.TempDir()
	id := newIdentity(t, far, bundle.RoleAgent, "site-z")
	return &farAgent{Identity: id, relay: pin(t, far, out.Identity.Card), subscription: out.azure.Subscription}
}

// Everything that is wrong with a request is said before anything is written
// here or asked there.
func TestARequestThatIsRefused(t *testing.T) {
	out := newOutside(t)
	elsewhere := newOutside(t)
	token2 := officialtest.Token(spec(2))
	change := func(f func(*ask)) func(t *testing.T) []byte {
		return func(t *testing.T) []byte { return out.agent.request(t, spec(1), f) }
	}
	for _, tt := range []struct {
		name string
		raw  func(t *testing.T) []byte
		kind fault.Kind
		text string
	}{
		{"unknown agent", func(t *testing.T) []byte { return stranger(t, out).request(t, spec(1), nil) }, fault.NotForUs, "no pinned peer has that key"},
		{"for another relay", change(func(a *ask) { a.to = elsewhere.agent.relay }), fault.NotForUs, ""},
		{"a removal with a token", change(func(a *ask) { a.request.Operation = bundle.Unregister }), fault.Refused, "asks to unregister and holds"},
		{"a removal of nobody", change(func(a *ask) {
			a.request.Operation, a.request.CloudID, a.draft.Payload = bundle.Unregister, "", nil
		}), fault.Refused, "names no cloud id"},
		{"another token", change(func(a *ask) { a.draft.Payload = []byte(token2) }), fault.Refused, "the request says"},
		{"token of another stamp", change(func(a *ask) { a.draft.Payload = []byte(token2); a.request.TokenSHA256 = bundle.Sum([]byte(token2)) }), fault.NotForUs, "its registration token for"},
		{"token with a line end", change(func(a *ask) {
			a.draft.Payload = append(a.draft.Payload, '\n')
			a.request.TokenSHA256 = bundle.Sum(a.draft.Payload)
		}), fault.Refused, "SHA-256"},
		{"token cut", change(func(a *ask) {
			a.draft.Payload = a.draft.Payload[:1022]
			a.request.TokenSHA256 = bundle.Sum(a.draft.Payload)
		}), fault.Refused, "1022"},
		{"a receipt", func(t *testing.T) []byte {
			b, err := bundle.Split(out.agent.request(t, spec(1), nil))
			if err != nil {
				t.Fatal(err)
			}
			return out.agent.receipt(t, b, &bundle.Receipt{Label: "site-a", Outcome: bundle.OutcomeWritten, CloudID: "c", Applied: agentTime, KeySHA256: bundle.Sum(nil), Journal: bundle.Sum(nil)})
		}, fault.NotForUs, "receipt"},
		{"a card", func(*testing.T) []byte { return out.agent.Card.Bundle.Text() }, fault.NotForUs, ""},
		{"nothing", func(*testing.T) []byte { return nil }, fault.Refused, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := tt.raw(t)
			before, calls := out.Ledger.Head(), len(out.azure.Requests())
			_, err := out.Read(raw)
			wantKind(t, err, tt.kind, tt.text)
			if out.Ledger.Head() != before || len(out.azure.Requests()) != calls {
				t.Error("something was written or asked")
			}
		})
	}
	t.Run("a flipped byte", func(t *testing.T) {
		raw := out.agent.request(t, spec(1), nil)
		for at := 40; at < len(raw); at += 997 {
			bad := bytes.Clone(raw)
			bad[at] ^= 1
			if _, err := out.Read(bad); fault.KindOf(err) != fault.Refused && fault.KindOf(err) != fault.NotForUs {
				t.Errorf("byte %d: %v", at, err)
			}
		}
	})
	t.Run("revoked", func(t *testing.T) {
		raw := out.agent.request(t, spec(1), nil)
		out.mustRead(t, raw)
		if _, err := trust.At(out.dir).Revoke("site-a"); err != nil {
			t.Fatal(err)
		}
		var err error
		if out.Peers, err = trust.At(out.dir).Peers(); err != nil {
			t.Fatal(err)
		}
		_, err = out.Read(raw)
		wantKind(t, err, fault.NotForUs, "no pinned peer has that key")
	})
}

// The cloud id of the token and of the operator may differ in letter case.
func TestACloudIDInCapitals(t *testing.T) {
	out := newOutside(t)
	j := out.mustRead(t, out.agent.request(t, spec(1), func(a *ask) { a.request.CloudID = upper(a.request.CloudID) }))
	if j.Ask.CloudID == j.Token.Claims.CloudID {
		t.Fatal("the spellings are the same")
	}
}

func upper(s string) string { return string(bytes.ToUpper([]byte(s))) }

// Threat: an old request is brought again after a newer one.
func TestAnOldRequestIsRefused(t *testing.T) {
	out := newOutside(t)
	first, second := out.agent.request(t, spec(1), nil), out.agent.request(t, spec(1), nil)
	out.mustRegister(t, second)
	_, err := out.Read(first)
	wantKind(t, err, fault.Replay, "has the number 1; for stamp")
	if got := out.mustRead(t, out.agent.request(t, spec(2), func(a *ask) { a.draft.Seq = 1 })); got.Known.State != "" {
		t.Error("another stamp's request was seen")
	}
	_, err = out.Read(out.agent.request(t, spec(2), func(a *ask) { a.draft.Seq = 2 }))
	wantKind(t, err, fault.Replay, "has the number 2, which request")
	// What was seen is welcome again, however old.
	out.mustRegister(t, out.agent.request(t, spec(2), nil))
	if got := out.mustRegister(t, second); !got.Again {
		t.Error("the answer was made twice")
	}
}

// Threat: a request that failed is taken up again after a newer one for the same
// stamp was registered; the older token would replace the newer.
func TestAFailedRequestIsNotTakenUpOverANewerOne(t *testing.T) {
	out := newOutside(t)
	older, other := out.agent.request(t, spec(1), nil), out.agent.request(t, spec(2), nil)
	for _, raw := range [][]byte{older, other} {
		j := out.mustRead(t, raw)
		if err := out.admit(&Plan{Job: j}); err != nil { // as after a kill before the registration
			t.Fatal(err)
		}
	}
	out.mustRegister(t, out.agent.request(t, spec(1), nil))
	_, err := out.Read(older)
	wantKind(t, err, fault.Replay, "it was replaced by request")
	out.mustRegister(t, other) // another stamp's request is taken up
}

func TestThePlainToken(t *testing.T) {
	out := newOutside(t)
	token := officialtest.Token(spec(1))
	j, err := out.ReadToken([]byte(token + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for range 2 {
		p, err := out.Plan(t.Context(), j, Order{Subscription: out.azure.Subscription})
		if err != nil {
			t.Fatal(err)
		}
		o, err := out.Run(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if o.Answer != nil || o.Key == nil || state(t, out.Ledger, j.Trip) != ledger.Answered {
			t.Errorf("outcome %+v", o)
		}
		keys = append(keys, o.Key.Text.Reveal())
		if j, err = out.ReadToken([]byte(token)); err != nil {
			t.Fatal(err)
		}
	}
	if n := out.azure.Count("PUT", "*/registrations/AzureStack-"+officialtest.CloudID(1)); len(out.azure.State().Registrations) != 1 || n != 1 {
		t.Errorf("%d PUTs, state %+v", n, out.azure.State().Registrations)
	}
	wantNoSecret(t, out.dir, token, keys[0], keys[1])
	_, err = out.ReadToken([]byte("not a token"))
	wantKind(t, err, fault.Refused)
	if j.Token.Text.Reveal() != token {
		t.Error("the token changed on the way")
	}
}

func TestClockThatWentBack(t *testing.T) {
	out := newOutside(t)
	out.mustRegister(t, out.agent.request(t, spec(1), nil))
	out.clock.at = out.clock.at.Add(-72 * time.Hour)
	wantKind(t, out.Ledger.CheckClock(false), fault.Expired, "the clock went back by 72h")
	if err := out.Ledger.CheckClock(true); err != nil {
		t.Fatal(err)
	}
	if err := out.Ledger.CheckClock(false); err != nil {
		t.Errorf("after it was accepted: %v", err)
	}
}
