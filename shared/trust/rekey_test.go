package trust

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
)

var later = noon.Add(time.Hour)

// rekey changes the keys of a store and returns the bundle for its one peer.
func rekey(t *testing.T, s Store, p Protection) (*Rekey, *bundle.Bundle) {
	t.Helper()
	peers, err := s.Peers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.BeginRekey(unasked, p, later, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := sealRekey(t, r, peers[0])
	if err := s.Change(r); err != nil {
		t.Fatal(err)
	}
	return r, b
}

func sealRekey(t *testing.T, r *Rekey, to Peer) *bundle.Bundle {
	t.Helper()
	id, err := bundle.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Seal(to, bundle.Draft{Bundle: id, Seq: 1, Created: later, Expires: later.AddDate(100, 0, 0)}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// state is what a side has: its store and its present identity and peers.
type state struct {
	Store
	id    *Identity
	peers []Peer
}

func (s *state) read(t *testing.T) {
	t.Helper()
	var err error
	if s.id, err = s.Unlock(unasked); err != nil {
		t.Fatal(err)
	}
	if s.peers, err = s.Peers(); err != nil {
		t.Fatal(err)
	}
}

func pairOf(t *testing.T) (agent, relay *state) {
	t.Helper()
	as, a := newStore(t, bundle.RoleAgent, "site-a")
	rs, r := newStore(t, bundle.RoleRelay, "relay-1")
	pin(t, as, r.Card)
	pin(t, rs, a.Card)
	agent, relay = &state{Store: as}, &state{Store: rs}
	agent.read(t)
	relay.read(t)
	return agent, relay
}

// takes verifies and opens a bundle at a side.
func (s *state) takes(b *bundle.Bundle, kind bundle.Kind) (Peer, error) {
	p, v, err := Verify(s.id.Card, s.peers, b, kind)
	if err == nil {
		_, err = s.id.Open(v)
	}
	return p, err
}

func (s *state) takesRekey(t *testing.T, b *bundle.Bundle) error {
	t.Helper()
	p, v, err := Verify(s.id.Card, s.peers, b, bundle.KindRekey)
	if err != nil {
		return err
	}
	card, err := s.id.NewCard(p, v)
	if err != nil {
		return err
	}
	if _, _, err = s.Pin(card, "key before it", later, true); err != nil {
		return err
	}
	s.read(t)
	return nil
}

func TestAChangeOfKeys(t *testing.T) {
	agent, relay := pairOf(t)
	before := request(t, relay.id, relay.peers[0]) // sealed to the old keys, on its way
	old := request(t, agent.id, agent.peers[0])
	r, b := rekey(t, agent.Store, Protection{})
	agent.read(t)

	// Where the change was not taken yet: what is on its way is opened, and answered
	// in the pair and with the key that the peer knows; the new keys are unknown.
	p, err := agent.takes(before, bundle.KindRequest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := relay.takes(request(t, agent.id, p), bundle.KindRequest); err != nil {
		t.Errorf("an answer with the old key: %v", err)
	}
	_, err = relay.takes(request(t, agent.id, agent.peers[0]), bundle.KindRequest)
	wantKind(t, err, fault.NotForUs, "no pinned peer has that key")

	if err := relay.takesRekey(t, b); err != nil {
		t.Fatal(err)
	}
	// Taken: the new keys, both ways, and the old ones no more.
	for i := range 2 {
		if _, err := relay.takes(request(t, agent.id, agent.peers[0]), bundle.KindRequest); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		if _, err := agent.takes(request(t, relay.id, relay.peers[0]), bundle.KindRequest); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		_, err = relay.takes(old, bundle.KindRequest)
		wantKind(t, err, fault.NotForUs, "no pinned peer has that key")
		wantKind(t, relay.takesRekey(t, b), fault.NotForUs, "no pinned peer has that key")
		if i == 1 {
			break
		}
		// Finished: the same, but what was sealed to the old keys.
		if _, err := agent.takes(before, bundle.KindRequest); err != nil {
			t.Error(err)
		}
		if err := agent.FinishRekey(unasked, 10); err != nil {
			t.Fatal(err)
		}
		agent.read(t)
	}
	_, err = agent.takes(before, bundle.KindRequest)
	wantKind(t, err, fault.NotForUs, "is for")
	text := mustRead(t, home(agent.Store), plainName)
	if all, err := agent.parseKeys(text); err != nil || len(all) != 1 || find(all, r.New) == nil {
		t.Errorf("%d generations are left, %v", len(all), err)
	}
	w1, err1 := PairWords(agent.id.Card, agent.peers[0].Card)
	w2, err2 := PairWords(relay.id.Card, relay.peers[0].Card)
	if err := errors.Join(err1, err2); err != nil || w1 != w2 {
		t.Errorf("words %q and %q, %v", w1, w2, err)
	}
}

// Both sides change their keys before either hears of the other.
func TestBothSidesChangeTheirKeys(t *testing.T) {
	agent, relay := pairOf(t)
	_, ofAgent := rekey(t, agent.Store, Protection{})
	_, ofRelay := rekey(t, relay.Store, Protection{})
	agent.read(t)
	relay.read(t)
	if err := errors.Join(agent.takesRekey(t, ofRelay), relay.takesRekey(t, ofAgent)); err != nil {
		t.Fatal(err)
	}
	if agent.peers[0].Pair != relay.peers[0].Pair {
		t.Errorf("pairs %s and %s", agent.peers[0].Pair, relay.peers[0].Pair)
	}
	if _, err := relay.takes(request(t, agent.id, agent.peers[0]), bundle.KindRequest); err != nil {
		t.Error(err)
	}
}

// Threat: who holds one of the two keys changes more than keys, or forges a change.
func TestAForgedRekeyIsRefused(t *testing.T) {
	agent, relay := pairOf(t)
	thief, _ := testKey(t, "agent")
	made := func(card *bundle.Card, signer ssh.Signer) *Card {
		b, err := cardDraft(card).Seal(rand.Reader, signer)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ReadCard(b.Wire())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	card := func(change func(*bundle.Card)) *Card {
		c := &bundle.Card{Role: bundle.RoleAgent, Label: "site-a", Key: thief.PublicKey().Marshal(), Recipients: agent.id.Card.Recipients}
		change(c)
		return made(c, thief)
	}
	same := func(*bundle.Card) {}
	other, _ := testKey(t, "relay")
	mallory := &keys{signer: thief}
	for name, c := range map[string]struct {
		old, new *keys
		card     *Card
		kind     fault.Kind
		want     string
	}{
		"by the new key alone":    {mallory, &keys{signer: other}, card(same), fault.NotForUs, "no pinned peer has that key"},
		"card of a third key":     {agent.id.keys, &keys{signer: other}, card(same), fault.Refused, "did not sign the rekey"},
		"another label":           {agent.id.keys, mallory, card(func(c *bundle.Card) { c.Label = "site-b" }), fault.NotForUs, `card of agent "site-b"`},
		"another role":            {agent.id.keys, mallory, card(func(c *bundle.Card) { c.Role = bundle.RoleRelay }), fault.NotForUs, "card of relay"},
		"the approvers changed":   {agent.id.keys, mallory, card(func(c *bundle.Card) { c.Approvers = []string{string(bundle.KeyFingerprint(other.PublicKey()))} }), fault.NotForUs, "changes the approvers"},
		"as it should be, behind": {agent.id.keys, mallory, card(same), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Rekey{Old: agent.id.Card, New: c.card, old: c.old, new: c.new}
			b := sealRekey(t, r, agent.peers[0])
			p, v, err := Verify(relay.id.Card, relay.peers, b, bundle.KindRekey)
			if err == nil {
				_, err = relay.id.NewCard(p, v)
			}
			if c.kind == 0 && err == nil {
				return
			}
			wantKind(t, err, c.kind, c.want)
		})
	}
}

// A rekey that a run left at any write is taken up by the next one with the same
// keys, once a peer may have its bundle; and at no moment is there no identity.
func TestARekeyKilledAtEveryWrite(t *testing.T) {
	killed := errors.New("killed")
	for n := 0; ; n++ {
		agent, relay := pairOf(t)
		left := n
		dying := In(dyingFiles{folder(home(agent.Store)), &left, killed})
		var sent []*bundle.Bundle
		run := func(s Store) error {
			peers, err := s.Peers()
			if err != nil {
				return err
			}
			if former, err := s.Former(); err != nil {
				return err
			} else if former == nil {
				r, err := s.BeginRekey(unasked, Protection{}, later, rand.Reader)
				if err != nil {
					return err
				}
				if p, ok := peers[0].In(peers[0].Pair); ok { // kept before the change, as the program does
					sent = append(sent, sealRekey(t, r, p))
				}
				if err := s.Change(r); err != nil {
					return err
				}
			}
			return s.FinishRekey(unasked, 10)
		}
		err := run(dying)
		if err != nil && !errors.Is(err, killed) {
			t.Fatal(err)
		}
		if _, uerr := agent.Unlock(unasked); uerr != nil {
			t.Fatalf("killed at write %d: %v", n, uerr)
		}
		if again := run(agent.Store); err != nil && again != nil {
			t.Fatalf("killed at write %d, then: %v", n, again)
		}
		agent.read(t)
		// The first bundle that could have left leads to the keys that there are,
		// unless the first run was whole and the second began a second change.
		if err == nil {
			if n < 5 {
				t.Errorf("only %d writes", n)
			}
			return
		}
		if err := relay.takesRekey(t, sent[0]); err != nil {
			t.Fatalf("killed at write %d: %v", n, err)
		}
		if _, err := relay.takes(request(t, agent.id, agent.peers[0]), bundle.KindRequest); err != nil {
			t.Errorf("killed at write %d: %v", n, err)
		}
	}
}

// dyingFiles is a folder in which a run dies at its n-th write.
type dyingFiles struct {
	folder
	left *int
	err  error
}

func (d dyingFiles) die() error {
	if *d.left == 0 {
		return d.err
	}
	*d.left--
	return nil
}

func (d dyingFiles) WriteFile(name string, data []byte, public bool) error {
	if err := d.die(); err != nil {
		return err
	}
	return d.folder.WriteFile(name, data, public)
}

func (d dyingFiles) RemoveFile(name string) error {
	if err := d.die(); err != nil {
		return err
	}
	return d.folder.RemoveFile(name)
}

func TestARekeyKeepsHowTheKeysStand(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "site-a"))
	safe := newAge(t).Recipient().String()
	p := quick
	p.Recovery = []string{safe}
	first, err := s.Create(bundle.RoleAgent, "site-a", p, noon, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ask := knows(quick.Passphrase.Reveal())
	r, err := s.BeginRekey(ask, Protection{WorkFactor: 10, Recovery: first.Recipients[1:]}, later, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Change(r); err != nil {
		t.Fatal(err)
	}
	if !s.Protected() {
		t.Error("the new keys stand in clear")
	}
	if !slices.Equal(r.New.Recipients[1:], []string{safe}) || r.New.Recipients[0] == first.Recipients[0] {
		t.Errorf("recipients %d", len(r.New.Recipients))
	}
	_, err = s.BeginRekey(ask, Protection{}, later, rand.Reader)
	wantKind(t, err, fault.Usage, "not finished")
	if err := s.FinishRekey(knows("wrong"), 10); fault.KindOf(err) != fault.Locked {
		t.Error(err)
	}
	if err := s.FinishRekey(ask, 10); err != nil {
		t.Fatal(err)
	}
	if !s.Protected() {
		t.Error("the new keys stand in clear after the end")
	}
	if _, err := s.Unlock(ask); err != nil {
		t.Error(err)
	}
	signers, err := s.Signers()
	if err != nil || fmt.Sprint(string(signers)) != r.New.SignersLine() {
		t.Errorf("%q, %v", signers, err)
	}
}
