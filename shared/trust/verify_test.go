package trust

import (
	"crypto/rand"
	"testing"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// requestFor seals a request with a card in it, or none.
func requestFor(t testing.TB, from *Identity, to Peer, card []byte) *bundle.Bundle {
	t.Helper()
	id, err := bundle.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := from.Seal(to, bundle.Draft{Bundle: id, Seq: 1, Created: noon, Expires: noon.AddDate(0, 0, 14),
		Content: &bundle.Request{Label: from.Card.Label, Operation: bundle.Register, CloudID: "c", TokenSHA256: bundle.Sum([]byte("token")), Card: card}, Payload: []byte("token")}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVerifyByThePinnedPeer(t *testing.T) {
	agent, relay, atAgent, atRelay := newPair(t)
	b := requestFor(t, agent, atAgent, nil)

	peer, v, err := Verify(relay.Card, []Peer{atRelay}, b, bundle.KindRequest)
	if err != nil || peer.Pair != atRelay.Pair {
		t.Fatalf("verified for %+v, %v", peer, err)
	}
	body, err := relay.Open(v)
	if err != nil || body.Content.(*bundle.Request).Label != "site-a" {
		t.Fatalf("opened %+v, %v", body, err)
	}
	if _, err := agent.Open(v); fault.KindOf(err) != fault.Refused {
		t.Errorf("the sender can open what it sealed: %v", err)
	}

	_, stranger := newStore(t, bundle.RoleAgent, "site-a")
	_, elsewhere := newStore(t, bundle.RoleRelay, "relay-2")
	wrongPair := atRelay
	wrongPair.Pair[3] ^= 1
	for _, tt := range []struct {
		name  string
		own   *Card
		peers []Peer
		b     *bundle.Bundle
		kinds []bundle.Kind
		kind  fault.Kind
		text  string
	}{
		{"our own", agent.Card, []Peer{atAgent}, b, []bundle.Kind{bundle.KindRequest}, fault.NotForUs, "was made here"},
		{"unknown signer", relay.Card, []Peer{atRelay}, requestFor(t, stranger, atAgent, nil), []bundle.Kind{bundle.KindRequest}, fault.NotForUs, "no pinned peer has that key"},
		{"revoked peer", relay.Card, nil, b, []bundle.Kind{bundle.KindRequest}, fault.NotForUs, "no pinned peer has that key"},
		{"right peer, another pair", relay.Card, []Peer{wrongPair}, b, []bundle.Kind{bundle.KindRequest}, fault.NotForUs, "pair"},
		{"for another relay", elsewhere.Card, []Peer{atRelay}, b, []bundle.Kind{bundle.KindRequest}, fault.NotForUs, ""},
		{"another kind", relay.Card, []Peer{atRelay}, b, []bundle.Kind{bundle.KindReceipt}, fault.NotForUs, "request"},
		{"a card", relay.Card, []Peer{atRelay}, agent.Card.Bundle, []bundle.Kind{bundle.KindRequest}, fault.NotForUs, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, v, err := Verify(tt.own, tt.peers, tt.b, tt.kinds...)
			if v != nil {
				t.Error("there is something to decrypt")
			}
			wantKind(t, err, tt.kind, tt.text)
		})
	}
}

func TestCardInside(t *testing.T) {
	as, agent := newStore(t, bundle.RoleAgent, "site-a")
	_, relay := newStore(t, bundle.RoleRelay, "relay-1")
	_, elsewhere := newStore(t, bundle.RoleRelay, "relay-2")
	_, thief := newStore(t, bundle.RoleAgent, "site-a")
	atAgent := pin(t, as, relay.Card)
	own := agent.Card.Bundle.Wire()

	c, err := relay.CardInside(requestFor(t, agent, atAgent, own))
	if err != nil || c.Digest() != agent.Card.Digest() {
		t.Fatalf("card %+v, %v", c, err)
	}
	wrongPair := atAgent
	wrongPair.Pair[3] ^= 1
	for _, tt := range []struct {
		name string
		to   *Identity
		b    *bundle.Bundle
		kind fault.Kind
		text string
	}{
		{"none", relay, requestFor(t, agent, atAgent, nil), fault.NotForUs, "carries no card"},
		{"card of another key", relay, requestFor(t, agent, atAgent, thief.Card.Bundle.Wire()), fault.Refused, "signed the request"},
		{"a thief sends the right card", relay, requestFor(t, thief, atAgent, own), fault.Refused, "signed the request"},
		{"another pair", relay, requestFor(t, agent, wrongPair, own), fault.NotForUs, "its card and ours make pair"},
		{"card of a relay", relay, requestFor(t, agent, atAgent, elsewhere.Card.Bundle.Wire()), fault.NotForUs, "a pair is an agent and a relay"},
		{"no card at all", relay, requestFor(t, agent, atAgent, []byte("card")), fault.Refused, ""},
		{"for another relay", elsewhere, requestFor(t, agent, atAgent, own), fault.NotForUs, ""},
		{"not a request", relay, agent.Card.Bundle, fault.NotForUs, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.to.CardInside(tt.b)
			wantKind(t, err, tt.kind, tt.text)
		})
	}
}
