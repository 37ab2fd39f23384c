package trust

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

func TestCreateAndUnlock(t *testing.T) {
	for _, tt := range []struct {
		name      string
		p         Protection
		file      string
		protected bool
	}{
		{"passphrase", quick, sealedName, true},
		{"spelt out", Protection{Insecure: true}, plainName, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "home")
			s := At(dir)
			card, err := s.Create(bundle.RoleAgent, "site-a", tt.p, noon, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if s.Protected() != tt.protected {
				t.Errorf("protected is %v", s.Protected())
			}
			ask := unasked
			if tt.protected {
				ask = knows(tt.p.Passphrase.Reveal())
			}
			id, err := s.Unlock(ask)
			if err != nil {
				t.Fatal(err)
			}
			if id.Card.Digest() != card.Digest() || card.Label != "site-a" || card.Role != bundle.RoleAgent || !card.Created.Equal(noon) {
				t.Errorf("card %+v", card)
			}
			if !strings.HasPrefix(card.Recipients[0], "age1pq1") {
				t.Errorf("recipient %.20s… is not hybrid post-quantum", card.Recipients[0])
			}
			// Nobody reads the identity without the passphrase.
			raw := mustRead(t, dir, tt.file)
			clear := bytes.Contains(raw, []byte("AGE-SECRET-KEY")) || bytes.Contains(raw, []byte("OPENSSH PRIVATE KEY"))
			if clear == tt.protected {
				t.Errorf("the identity file holds keys in clear: %v", clear)
			}
			if info, err := os.Stat(filepath.Join(dir, tt.file)); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
				t.Errorf("identity file: %v, %v", info, err)
			}
			if _, err := s.Create(bundle.RoleAgent, "site-b", tt.p, noon, rand.Reader); fault.KindOf(err) != fault.Usage {
				t.Errorf("made twice: %v", err)
			}
		})
	}
}

func TestCreateRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, label string
		p           Protection
	}{
		{"neither", "x", Protection{}},
		{"both", "x", Protection{Passphrase: secret.New("p"), Insecure: true}},
		{"empty passphrase", "x", Protection{Passphrase: secret.New("")}},
		{"label", "site a", Protection{Insecure: true}},
		{"label climbs", "../x", Protection{Insecure: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "home")
			_, err := At(dir).Create(bundle.RoleAgent, tt.label, tt.p, noon, rand.Reader)
			wantKind(t, err, fault.Usage)
			if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something was made: %v", err)
			}
		})
	}
}

// A damaged card is no reason to overwrite the keys that belong to it.
func TestCreateLeavesADamagedCardAlone(t *testing.T) {
	s, _ := newStore(t, bundle.RoleAgent, "site-a")
	key := mustRead(t, home(s), plainName)
	mustWrite(t, []byte("damaged"), home(s), cardName)
	_, err := s.Create(bundle.RoleAgent, "site-a", Protection{Insecure: true}, noon, rand.Reader)
	wantKind(t, err, fault.Refused, "has an identity already")
	if !bytes.Equal(key, mustRead(t, home(s), plainName)) {
		t.Error("the identity was overwritten")
	}
}

// A creation that was killed before the card is made anew, with the other
// protection too.
func TestCreateAfterAKill(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, second Protection
		ask           func() (secret.Text, error)
	}{
		{"passphrase then none", quick, Protection{Insecure: true}, unasked},
		{"none then passphrase", Protection{Insecure: true}, quick, knows(quick.Passphrase.Reveal())},
		{"passphrase twice", Protection{Passphrase: secret.New("first"), WorkFactor: 10}, quick, knows(quick.Passphrase.Reveal())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := At(t.TempDir())
			if _, err := s.Create(bundle.RoleAgent, "a", tt.first, noon, rand.Reader); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(home(s), cardName)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Unlock(unasked); fault.KindOf(err) != fault.Locked {
				t.Errorf("without a card: %v", err)
			}
			if _, err := s.Create(bundle.RoleAgent, "a", tt.second, noon, rand.Reader); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Unlock(tt.ask); err != nil {
				t.Error(err)
			}
			_, sealed := os.Lstat(filepath.Join(home(s), sealedName))
			_, plain := os.Lstat(filepath.Join(home(s), plainName))
			if (sealed == nil) == (plain == nil) {
				t.Errorf("identity.age: %v, identity.key: %v, want one of them", sealed, plain)
			}
		})
	}
}

func TestUnlockRefuses(t *testing.T) {
	sealed := func(t *testing.T) Store {
		s := At(t.TempDir())
		if _, err := s.Create(bundle.RoleAgent, "a", quick, noon, rand.Reader); err != nil {
			t.Fatal(err)
		}
		return s
	}
	plain := func(t *testing.T) Store {
		s, _ := newStore(t, bundle.RoleAgent, "a")
		return s
	}
	right := knows(quick.Passphrase.Reveal())
	asked := errors.New("nobody at the terminal")
	edit := func(name string, f func([]byte) []byte) func(t *testing.T, s Store) {
		return func(t *testing.T, s Store) { mustWrite(t, f(mustRead(t, home(s), name)), home(s), name) }
	}
	for _, tt := range []struct {
		name  string
		store func(t *testing.T) Store
		spoil func(t *testing.T, s Store)
		ask   func() (secret.Text, error)
		text  string
	}{
		{"wrong passphrase", sealed, nil, knows("wrong"), "does not open the identity"},
		{"empty passphrase", sealed, nil, knows(""), "the passphrase is empty"},
		{"nobody knows", sealed, nil, func() (secret.Text, error) { return secret.Text{}, asked }, "nobody at the terminal"},
		{"cut", sealed, edit(sealedName, func(b []byte) []byte { return b[:len(b)/2] }), right, ""},
		{"empty file", sealed, edit(sealedName, func([]byte) []byte { return nil }), right, ""},
		{"not armored", sealed, edit(sealedName, func([]byte) []byte { return []byte("keys\n") }), right, ""},
		{"too long", sealed, edit(sealedName, func(b []byte) []byte { return append(b, make([]byte, maxIdentity)...) }), right, "at most"},
		{"no PEM", plain, edit(plainName, func(b []byte) []byte { return b[40:] }), unasked, "no signing key"},
		{"no age key", plain, edit(plainName, func(b []byte) []byte { return b[:bytes.Index(b, []byte("AGE-"))] }), unasked, "age key of the identity is damaged"},
		{"damaged age key", plain, edit(plainName, func(b []byte) []byte {
			return bytes.Replace(b, []byte("AGE-SECRET-KEY-PQ-1"), []byte("AGE-SECRET-KEY-PQ-1A"), 1)
		}), unasked, "age key of the identity is damaged"},
		{"identity gone", plain, func(t *testing.T, s Store) { os.Remove(filepath.Join(home(s), plainName)) }, unasked, "identity"},
		{"card gone", plain, func(t *testing.T, s Store) { os.Remove(filepath.Join(home(s), cardName)) }, unasked, "holds no identity"},
		{"card of another", plain, func(t *testing.T, s Store) {
			other, _ := newStore(t, bundle.RoleAgent, "a")
			mustWrite(t, mustRead(t, home(other), cardName), home(s), cardName)
		}, unasked, "do not belong together"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.store(t)
			if tt.spoil != nil {
				tt.spoil(t, s)
			}
			_, err := s.Unlock(tt.ask)
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error %v, want %q", err, tt.text)
			}
			if !errors.Is(err, asked) && fault.KindOf(err) != fault.Locked {
				t.Errorf("kind %v: %v", fault.KindOf(err), err)
			}
			if strings.Contains(err.Error(), "AGE-SECRET") || strings.Contains(err.Error(), "wrong") && tt.name == "wrong passphrase" {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

func TestALinkIsNoIdentity(t *testing.T) {
	s, _ := newStore(t, bundle.RoleAgent, "a")
	other, _ := newStore(t, bundle.RoleAgent, "b")
	path := filepath.Join(home(s), cardName)
	os.Remove(path)
	if err := os.Symlink(filepath.Join(home(other), cardName), path); err != nil {
		t.Skipf("no links here: %v", err)
	}
	_, err := s.Card()
	wantKind(t, err, fault.Medium, "not a regular file")
}

func TestLabels(t *testing.T) {
	for _, ok := range []string{"a", "A9", "site-a", "x.y_z-1", strings.Repeat("a", 63)} {
		if err := CheckLabel(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", ".", "..", ".a", "-a", "_a", "a/b", `a\b`, "a b", "a:b", "ä", "a\n", "a\x1b[2J", strings.Repeat("a", 64)} {
		wantKind(t, CheckLabel(bad), fault.Usage)
	}
}

func TestPinReplaceRevoke(t *testing.T) {
	s, own := newStore(t, bundle.RoleAgent, "site-a")
	_, relay := newStore(t, bundle.RoleRelay, "relay-1")
	_, impostor := newStore(t, bundle.RoleRelay, "relay-1")
	_, second := newStore(t, bundle.RoleRelay, "relay-2")

	first := pin(t, s, relay.Card)
	pair, err := PairID(own.Card, relay.Card)
	if err != nil || first.Pair != pair || first.Label() != "relay-1" || first.By != "words of the pair" || !first.Pinned.Equal(noon) {
		t.Errorf("pinned %+v, %v", first, err)
	}
	// The same card again changes nothing, not even the day.
	again, old, err := s.Pin(relay.Card, "other words", noon.Add(time.Hour), true)
	if err != nil || old != nil || !again.Pinned.Equal(noon) || again.By != first.By {
		t.Errorf("pinned again: %+v, %v, %v", again, old, err)
	}
	// Another key under the same label takes the operator's word.
	_, old, err = s.Pin(impostor.Card, "w", noon, false)
	wantKind(t, err, fault.Usage, "another card is pinned under the label", "2026-11-23T12:00:00Z")
	if old == nil || old.Pair != pair {
		t.Errorf("the old peer is %+v", old)
	}
	pin(t, s, second.Card)
	peers, err := s.Peers()
	if err != nil || len(peers) != 2 || peers[0].Label() != "relay-1" || peers[1].Label() != "relay-2" || peers[0].Pair != pair {
		t.Fatalf("peers %+v, %v", peers, err)
	}
	replaced, old, err := s.Pin(impostor.Card, "w", noon.Add(time.Hour), true)
	if err != nil || old == nil || old.Pair != pair || replaced.Pair == pair {
		t.Fatalf("replaced %+v by %+v, %v", old, replaced, err)
	}
	// One key has one label.
	relabelled := resign(t, relay, func(c *bundle.Card) { c.Label = "relay-3" })
	pin(t, s, mustCard(t, relabelled))
	if _, _, err := s.Pin(mustCard(t, resign(t, relay, func(c *bundle.Card) { c.Label = "relay-4" })), "w", noon, true); fault.KindOf(err) != fault.Usage {
		t.Errorf("one key under two labels: %v", err)
	}
	// Two agents are no pair.
	_, agent := newStore(t, bundle.RoleAgent, "site-b")
	_, _, err = s.Pin(agent.Card, "w", noon, false)
	wantKind(t, err, fault.NotForUs, "a pair is an agent and a relay")

	gone, err := s.Revoke("relay-1")
	if err != nil || gone.Pair != replaced.Pair {
		t.Fatalf("revoked %+v, %v", gone, err)
	}
	_, err = s.Revoke("relay-1")
	wantKind(t, err, fault.Usage, `no peer "relay-1"`)
	for _, label := range []string{"", "../relay-2", "relay-2.peer"} {
		_, err = s.Revoke(label)
		wantKind(t, err, fault.Usage)
	}
	left, err := s.Peers()
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, p := range left {
		labels = append(labels, p.Label())
	}
	if diff := cmp.Diff([]string{"relay-2", "relay-3"}, labels); diff != "" {
		t.Errorf("left peers differ (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(home(s), peersName, "relay-1.revoked")); err != nil {
		t.Errorf("the record of the revoked peer: %v", err)
	}
}

func mustCard(t *testing.T, b *bundle.Bundle) *Card {
	t.Helper()
	c, err := ReadCard(b.Text())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestADamagedPeerStopsEverything(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(string) string
		text string
	}{
		{"cut", func(s string) string { return s[:len(s)-40] }, ""},
		{"empty", func(string) string { return "" }, "damaged"},
		{"other version", func(s string) string { return strings.Replace(s, "/v1", "/v2", 1) }, "damaged"},
		{"no day", func(s string) string { return strings.Replace(s, "pinned: 2026", "pinned: x026", 1) }, "damaged"},
		{"a line more", func(s string) string { return strings.Replace(s, "by: ", "by: x\nto: ", 1) }, "damaged"},
		{"fields swapped", func(s string) string { return strings.Replace(s, "by: ", "at: ", 1) }, "damaged"},
		{"edited card", func(s string) string { return strings.Replace(s, "seq: 1\n", "seq: 2\n", 1) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newStore(t, bundle.RoleAgent, "site-a")
			_, relay := newStore(t, bundle.RoleRelay, "relay-1")
			pin(t, s, relay.Card)
			path := filepath.Join(home(s), peersName, "relay-1.peer")
			mustWrite(t, []byte(tt.edit(string(mustRead(t, path)))), path)
			_, err := s.Peers()
			wantKind(t, err, fault.Refused, "pinned peer relay-1.peer", tt.text)
		})
	}
	t.Run("renamed", func(t *testing.T) {
		s, _ := newStore(t, bundle.RoleAgent, "site-a")
		_, relay := newStore(t, bundle.RoleRelay, "relay-1")
		pin(t, s, relay.Card)
		if err := os.Rename(filepath.Join(home(s), peersName, "relay-1.peer"), filepath.Join(home(s), peersName, "relay-9.peer")); err != nil {
			t.Fatal(err)
		}
		_, err := s.Peers()
		wantKind(t, err, fault.Refused, `the record holds the card of "relay-1"`)
	})
}
