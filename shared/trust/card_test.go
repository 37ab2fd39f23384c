package trust

import (
	"bytes"
	"crypto/rand"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// resign changes a card and signs it again by the same key.
func resign(t testing.TB, id *Identity, change func(*bundle.Card)) *bundle.Bundle {
	t.Helper()
	c := &bundle.Card{Role: id.Card.Role, Label: id.Card.Label, Key: id.Card.Key.Marshal(), Recipients: id.Card.Recipients}
	change(c)
	b, err := cardDraft(c).Seal(rand.Reader, id.signer)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestACardInBothSpellings(t *testing.T) {
	_, id := newStore(t, bundle.RoleRelay, "relay-1")
	for name, raw := range map[string][]byte{"text": id.Card.Bundle.Text(), "wire": id.Card.Bundle.Wire()} {
		c, err := ReadCard(raw)
		if err != nil {
			t.Fatal(err)
		}
		if c.Digest() != id.Card.Digest() || c.Fingerprint() != id.Card.Fingerprint() || c.Label != "relay-1" {
			t.Errorf("%s: read as %+v", name, c)
		}
	}
}

// Threat: a card is edited or put together by somebody on the way. Everything
// that is not one key's own word about itself is refused; what a thief signs by
// his own key is another card, and has other words.
func TestAForgedCardIsRefused(t *testing.T) {
	_, victim := newStore(t, bundle.RoleRelay, "relay-1")
	_, thief := newStore(t, bundle.RoleRelay, "relay-1")
	good := func() *bundle.Card {
		return &bundle.Card{Role: bundle.RoleRelay, Label: "relay-1", Key: victim.Card.Key.Marshal(), Recipients: victim.Card.Recipients}
	}
	seal := func(d bundle.Draft, by ...ssh.Signer) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			b, err := d.Seal(rand.Reader, by...)
			if err != nil {
				t.Fatal(err)
			}
			return b.Text()
		}
	}
	card := func(change func(*bundle.Card), by ...ssh.Signer) func(t *testing.T) []byte {
		c := good()
		change(c)
		return seal(cardDraft(c), by...)
	}
	edit := func(old, new string) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			text := victim.Card.Bundle.Text()
			if !bytes.Contains(text, []byte(old)) {
				t.Fatalf("the card has no %q", old)
			}
			return bytes.Replace(text, []byte(old), []byte(new), 1)
		}
	}
	withPayload := cardDraft(good())
	withPayload.Payload = []byte("payload")
	none := func(*bundle.Card) {}
	for _, tt := range []struct {
		name string
		raw  func(t *testing.T) []byte
		kind fault.Kind
		text string
	}{
		{"signed by another key", card(none, thief.signer), fault.Refused, "not signed by the key that it carries"},
		{"key swapped", card(func(c *bundle.Card) { c.Key = thief.Card.Key.Marshal() }, victim.signer), fault.Refused, "not signed by the key that it carries"},
		{"edited manifest", edit("seq: 1\n", "seq: 2\n"), fault.Refused, ""},
		{"no recipient", card(func(c *bundle.Card) { c.Recipients = nil }, victim.signer), fault.Refused, ""},
		{"five recipients", card(func(c *bundle.Card) {
			c.Recipients = []string{newAge(t).Recipient().String(), newAge(t).Recipient().String(), newAge(t).Recipient().String(), newAge(t).Recipient().String(), newAge(t).Recipient().String()}
		}, victim.signer), fault.Refused, "5 age recipients"},
		{"recipient is a plugin", card(func(c *bundle.Card) { c.Recipients = []string{"age1evil1qqqqqqqq"} }, victim.signer), fault.Refused, ""},
		{"label climbs", card(func(c *bundle.Card) { c.Label = "../../x" }, victim.signer), fault.Refused, "label"},
		{"label acts on a terminal", card(func(c *bundle.Card) { c.Label = "relay\x1b[2J" }, victim.signer), fault.Refused, ""},
		{"payload", seal(withPayload, victim.signer), fault.Refused, ""},
		{"not a card", func(t *testing.T) []byte {
			agent, _, atAgent, _ := newPair(t)
			return requestFor(t, agent, atAgent, nil).Text()
		}, fault.NotForUs, ""},
		{"nothing", func(t *testing.T) []byte { return nil }, fault.Refused, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ReadCard(tt.raw(t))
			if err == nil {
				t.Fatalf("read as %+v", c)
			}
			wantKind(t, err, tt.kind, tt.text)
		})
	}
	t.Run("two signatures", func(t *testing.T) {
		text := string(victim.Card.Bundle.Text())
		sig := text[strings.Index(text, "-----BEGIN SSH"):]
		sig = sig[:strings.Index(sig, "-----BEGIN AZS")]
		_, err := ReadCard([]byte(strings.Replace(text, sig, sig+sig, 1)))
		wantKind(t, err, fault.Refused)
	})
	// What the same key says anew is a good card, and another one.
	for name, b := range map[string]*bundle.Bundle{
		"recipients swapped": resign(t, victim, func(c *bundle.Card) { c.Recipients = thief.Card.Recipients }),
		"label changed":      resign(t, victim, func(c *bundle.Card) { c.Label = "relay-2" }),
	} {
		c, err := ReadCard(b.Text())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if CardWords(c) == CardWords(victim.Card) {
			t.Errorf("%s: the words are the same", name)
		}
	}
}

// Flipping any byte of a card changes its words or makes it unreadable.
func TestEveryFlippedByteOfACard(t *testing.T) {
	card := fixedCard(t, bundle.RoleRelay, "relay", "relay-1")
	wire := card.Bundle.Wire()
	words := CardWords(card)
	for i := range wire {
		bad := bytes.Clone(wire)
		bad[i] ^= 1
		if c, err := ReadCard(bad); err == nil && CardWords(c) == words {
			t.Errorf("byte %d: accepted with the same words", i)
		}
	}
}

func TestPairIDIsOneOnBothSides(t *testing.T) {
	agent := fixedCard(t, bundle.RoleAgent, "agent", "site-a")
	relay := fixedCard(t, bundle.RoleRelay, "relay", "relay-1")
	a, err := PairID(agent, relay)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := PairID(relay, agent); err != nil || a != b {
		t.Errorf("the relay names the pair %v, %v, the agent %v", b, err, a)
	}
	for name, other := range map[string][2]*Card{
		"other agent":  {fixedCard(t, bundle.RoleAgent, "agent", "site-b"), relay},
		"other relay":  {agent, fixedCard(t, bundle.RoleRelay, "relay", "relay-2")},
		"roles change": {fixedCard(t, bundle.RoleAgent, "relay", "relay-1"), fixedCard(t, bundle.RoleRelay, "agent", "site-a")},
	} {
		if b, err := PairID(other[0], other[1]); err != nil || a == b {
			t.Errorf("%s: %v, %v", name, b, err)
		}
	}
	for _, c := range []*Card{agent, relay} {
		if _, err := PairID(c, c); fault.KindOf(err) != fault.NotForUs {
			t.Errorf("a %s with itself: %v", c.Role, err)
		}
		if _, err := PairWords(c, c); fault.KindOf(err) != fault.NotForUs {
			t.Errorf("words of a %s with itself: %v", c.Role, err)
		}
	}
}

// OpenSSH itself takes the exported signers and a bundle's signature.
func TestSignersLineAtOpenSSH(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skipf("no ssh-keygen here: %v", err)
	}
	s, agent := newStore(t, bundle.RoleAgent, "site-a")
	_, relay := newStore(t, bundle.RoleRelay, "relay-1")
	atAgent := pin(t, s, relay.Card)
	signers, err := s.Signers()
	if err != nil || bytes.Count(signers, []byte("\n")) != 2 {
		t.Fatalf("signers %q, %v", signers, err)
	}
	dir := t.TempDir()
	mustWrite(t, signers, dir, "allowed_signers")
	text := string(requestFor(t, agent, atAgent, nil).Text())
	manifest, rest, _ := strings.Cut(text, "\n\n")
	sig := rest[:strings.Index(rest, "-----END SSH SIGNATURE-----")+len("-----END SSH SIGNATURE-----\n")]
	mustWrite(t, []byte(sig), dir, "sig")
	verify := func(principal, namespace, message string) (string, error) {
		cmd := exec.Command(keygen, "-Y", "verify", "-f", filepath.Join(dir, "allowed_signers"), "-I", principal, "-n", namespace, "-s", filepath.Join(dir, "sig"))
		cmd.Stdin = strings.NewReader(message)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := verify("site-a", bundle.Namespace, manifest+"\n"); err != nil {
		t.Errorf("ssh-keygen: %v: %s", err, out)
	}
	for name, c := range map[string][3]string{
		"another principal":                {"relay-1", bundle.Namespace, manifest + "\n"},
		"another namespace":                {"site-a", "git", manifest + "\n"},
		"an edited manifest":               {"site-a", bundle.Namespace, manifest + " \n"},
		"the namespace of the approvals":   {"site-a", bundle.NamespaceApproval, manifest + "\n"},
		"a principal that nobody exported": {"site-z", bundle.Namespace, manifest + "\n"},
	} {
		if out, err := verify(c[0], c[1], c[2]); err == nil {
			t.Errorf("%s: ssh-keygen says %s", name, out)
		}
	}
}
