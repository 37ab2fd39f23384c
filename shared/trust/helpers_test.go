package trust

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

const vectors = "../../testdata/vectors"

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// quick is a protection that costs a test no time.
var quick = Protection{Passphrase: secret.New("correct horse battery staple"), WorkFactor: 10}

func knows(p string) func() (secret.Text, error) {
	return func() (secret.Text, error) { return secret.New(p), nil }
}

func unasked() (secret.Text, error) { panic("a passphrase was asked for") }

func newStore(t testing.TB, role, label string) (Store, *Identity) {
	t.Helper()
	s := At(filepath.Join(t.TempDir(), label))
	if _, err := s.Create(role, label, Protection{Insecure: true}, noon, rand.Reader); err != nil {
		t.Fatal(err)
	}
	id, err := s.Unlock(unasked)
	if err != nil {
		t.Fatal(err)
	}
	return s, id
}

// newPair makes an agent and a relay that pinned each other.
func newPair(t testing.TB) (agent, relay *Identity, atAgent, atRelay Peer) {
	t.Helper()
	as, agent := newStore(t, bundle.RoleAgent, "site-a")
	rs, relay := newStore(t, bundle.RoleRelay, "relay-1")
	return agent, relay, pin(t, as, relay.Card), pin(t, rs, agent.Card)
}

func pin(t testing.TB, s Store, c *Card) Peer {
	t.Helper()
	p, _, err := s.Pin(c, "words of the pair", noon, false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustRead(t testing.TB, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustWrite(t testing.TB, data []byte, parts ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(parts...), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// testKey reads one of the published test keys.
func testKey(t testing.TB, name string) (ssh.Signer, []string) {
	t.Helper()
	s, err := ssh.ParsePrivateKey(mustRead(t, vectors, "keys", name))
	if err != nil {
		t.Fatal(err)
	}
	return s, []string{strings.TrimSpace(string(mustRead(t, vectors, "keys", name+".age.pub")))}
}

// fixedCard is a card that is the same in every run.
func fixedCard(t testing.TB, role, name, label string) *Card {
	t.Helper()
	signer, recipients := testKey(t, name)
	b := cardDraft(&bundle.Card{Role: role, Label: label, Key: signer.PublicKey().Marshal(), Recipients: recipients})
	sealed, err := b.Seal(nil, signer) // Ed25519 draws no randomness
	if err != nil {
		t.Fatal(err)
	}
	c, err := ReadCard(sealed.Wire())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func cardDraft(c *bundle.Card) bundle.Draft {
	return bundle.Draft{Bundle: bundle.ID{1: 7}, Seq: 1, Created: noon, Expires: noon.AddDate(100, 0, 0), Content: c}
}

func newAge(t testing.TB) *age.HybridIdentity {
	t.Helper()
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func wantKind(t testing.TB, err error, kind fault.Kind, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v with %q", kind, texts)
	}
	if fault.KindOf(err) != kind {
		t.Errorf("kind %v, want %v: %v", fault.KindOf(err), kind, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
}

// home is the state folder of a store that [At] made.
func home(s Store) string { return string(s.files.(folder)) }
