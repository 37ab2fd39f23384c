// Package trust holds who we are and whom we believe: the identity of this side,
// its pairing card, and the pinned peers.
//
// The security property: a peer is believed only after a person compared twelve
// words (132 bits over both cards) with the person on the other side, and from
// then on its key is pinned; a key that comes inside a bundle is only a hint to
// which pinned key to try. The private half stands under an age passphrase unless
// the operator spelt out that it shall not.
//
// The limit: who can write in the state can pin a peer. A folder is as trustworthy
// as the account that owns it, a database as every account that may write to it.
//
// In the state folder, or under the same names in a database (see [Files]): identity.age (or identity.key without a passphrase), a
// text of one OpenSSH private key and one age secret key; card.azc; and
// peers/LABEL.peer, a few lines about the pinning above the peer's card.
package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

const (
	sealedName = "identity.age"
	plainName  = "identity.key"
	cardName   = "card.azc"
	peersName  = "peers"

	maxIdentity = 64 << 10
)

// Store is the part of a side's state that holds identity and peers.
type Store struct{ files Files }

// At names the store in a state folder; nothing is read yet.
func At(dir string) Store { return Store{folder(dir)} }

// In names the store in other files than those of a folder.
func In(files Files) Store { return Store{files} }

// Protection says how the identity is kept.
type Protection struct {
	Passphrase secret.Text
	Insecure   bool // no passphrase, spelt out by the operator
	WorkFactor int  // log2 of scrypt's N; 0 is age's default
}

// Create makes keys and card. A store that has a card already, even a damaged one,
// is left alone: fault.Usage, or what is wrong with the card.
func (s Store) Create(role, label string, p Protection, now time.Time, rand io.Reader) (*Card, error) {
	if err := CheckLabel(label); err != nil {
		return nil, err
	}
	if p.Passphrase.Empty() != p.Insecure {
		return nil, fault.New(fault.Usage, "an identity has either a passphrase or, spelt out, none")
	}
	if p.Insecure && !s.files.Private() {
		return nil, fault.New(fault.Usage, "%s is shared: an identity stands in it under a passphrase only", s.files)
	}
	switch _, err := s.Card(); {
	case err == nil:
		return nil, fault.New(fault.Usage, "%s has an identity already", s.files)
	case fault.KindOf(err) != fault.Locked:
		return nil, fmt.Errorf("%s has an identity already: %w", s.files, err)
	}
	_, key, err := ed25519.GenerateKey(rand)
	if err != nil {
		return nil, fmt.Errorf("make the signing key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, fmt.Errorf("make the signing key: %w", err)
	}
	ageID, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, fmt.Errorf("make the age identity: %w", err)
	}
	card, err := newCard(role, label, signer, []string{ageID.Recipient().String()}, now, rand)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, label)
	if err != nil {
		return nil, fmt.Errorf("spell the signing key: %w", err)
	}
	text := append(pem.EncodeToMemory(block), ageID.String()+"\n"...)
	name, other := plainName, sealedName
	if !p.Insecure {
		name, other = sealedName, plainName
		if text, err = lock(text, p); err != nil {
			return nil, err
		}
	}
	if err := s.files.WriteFile(name, text, false); err != nil {
		return nil, storing("identity", err)
	}
	// A run that was killed before its card may have kept its identity the other way.
	if err := s.files.RemoveFile(other); err != nil {
		return nil, storing("identity", err)
	}
	// The card is last: a store without it has no identity yet, and is made anew.
	if err := s.files.WriteFile(cardName, card.Bundle.Text(), true); err != nil {
		return nil, storing("card", err)
	}
	return card, nil
}

func lock(text []byte, p Protection) ([]byte, error) {
	r, err := age.NewScryptRecipient(p.Passphrase.Reveal())
	if err != nil {
		return nil, fmt.Errorf("lock the identity: %w", err)
	}
	if p.WorkFactor != 0 {
		r.SetWorkFactor(p.WorkFactor)
	}
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, r)
	if err != nil {
		return nil, fmt.Errorf("lock the identity: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("lock the identity: %w", err)
	}
	if err := errors.Join(w.Close(), a.Close()); err != nil {
		return nil, fmt.Errorf("lock the identity: %w", err)
	}
	return out.Bytes(), nil
}

// Card reads our own card. Where there is none: fault.Locked.
func (s Store) Card() (*Card, error) {
	raw, err := s.files.ReadFile(cardName, bundle.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Locked, "%s holds no identity", s.files)
	}
	if err != nil {
		return nil, storing("own card", err)
	}
	return ReadCard(raw)
}

// Identity is our unlocked private half.
type Identity struct {
	Card   *Card
	signer ssh.Signer
	ages   []age.Identity
}

// Unlock reads the identity. The passphrase is asked for only when there is one;
// a wrong one is fault.Locked.
func (s Store) Unlock(passphrase func() (secret.Text, error)) (*Identity, error) {
	card, err := s.Card()
	if err != nil {
		return nil, err
	}
	text, err := s.files.ReadFile(sealedName, maxIdentity)
	switch {
	case err == nil:
		if text, err = unlock(text, passphrase); err != nil {
			return nil, err
		}
	case errors.Is(err, fs.ErrNotExist):
		if text, err = s.files.ReadFile(plainName, maxIdentity); err != nil {
			return nil, fault.New(fault.Locked, "identity: %w", err)
		}
	case fault.KindOf(err) == fault.Unreachable:
		return nil, err
	default:
		return nil, fault.New(fault.Locked, "identity: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, fault.New(fault.Locked, "identity holds no signing key")
	}
	signer, err := ssh.ParsePrivateKey(pem.EncodeToMemory(block))
	if err != nil {
		return nil, fault.New(fault.Locked, "signing key of the identity is damaged")
	}
	ages, err := age.ParseIdentities(bytes.NewReader(rest))
	if err != nil {
		return nil, fault.New(fault.Locked, "age key of the identity is damaged")
	}
	if !bytes.Equal(signer.PublicKey().Marshal(), card.Key.Marshal()) {
		return nil, fault.New(fault.Locked, "identity and card of %s do not belong together", s.files)
	}
	return &Identity{Card: card, signer: signer, ages: ages}, nil
}

// Protected reports whether the identity stands under a passphrase.
func (s Store) Protected() bool {
	_, err := s.files.ReadFile(sealedName, maxIdentity)
	return err == nil
}

func unlock(text []byte, passphrase func() (secret.Text, error)) ([]byte, error) {
	pass, err := passphrase()
	if err != nil {
		return nil, err
	}
	if pass.Empty() {
		return nil, fault.New(fault.Locked, "the passphrase is empty")
	}
	id, err := age.NewScryptIdentity(pass.Reveal())
	if err != nil {
		return nil, fault.New(fault.Locked, "passphrase: %w", err)
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(text)), id)
	if err != nil {
		return nil, fault.New(fault.Locked, "the passphrase does not open the identity")
	}
	out, err := io.ReadAll(io.LimitReader(r, maxIdentity))
	if err != nil {
		return nil, fault.New(fault.Locked, "identity is damaged")
	}
	return out, nil
}

// Peer is a pinned other side.
type Peer struct {
	Card   *Card
	Pair   bundle.ID
	Pinned time.Time // our clock
	By     string    // how it was confirmed
}

// Label names the peer on this side.
func (p Peer) Label() string { return p.Card.Label }

const peerMagic = "azs-courier-peer/v1"

func peerName(label string) string { return peersName + "/" + label + ".peer" }

// Peers reads the pinned peers in the order of their labels.
func (s Store) Peers() ([]Peer, error) {
	own, err := s.Card()
	if err != nil {
		return nil, err
	}
	names, err := s.files.FileNames()
	if err != nil {
		return nil, storing("pinned peers", err)
	}
	var out []Peer
	for _, name := range names {
		if !strings.HasSuffix(name, ".peer") {
			continue
		}
		p, err := s.readPeer(name, own)
		if err != nil {
			return nil, fmt.Errorf("pinned peer %s: %w", path.Base(name), err)
		}
		out = append(out, p)
	}
	return out, nil
}

func (s Store) readPeer(name string, own *Card) (Peer, error) {
	raw, err := s.files.ReadFile(name, bundle.MaxFile)
	if err != nil {
		return Peer{}, storing("record", err)
	}
	head, rest, ok := bytes.Cut(raw, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !ok || len(lines) != 3 || lines[0] != peerMagic {
		return Peer{}, fault.New(fault.Refused, "the record is damaged")
	}
	pinned, ok1 := strings.CutPrefix(lines[1], "pinned: ")
	by, ok2 := strings.CutPrefix(lines[2], "by: ")
	at, err := clock.Parse(pinned)
	if !ok1 || !ok2 || err != nil {
		return Peer{}, fault.New(fault.Refused, "the record is damaged")
	}
	card, err := ReadCard(rest)
	if err != nil {
		return Peer{}, err
	}
	if name != peerName(card.Label) {
		return Peer{}, fault.New(fault.Refused, "the record holds the card of %q", card.Label)
	}
	pair, err := PairID(own, card)
	if err != nil {
		return Peer{}, err
	}
	return Peer{Card: card, Pair: pair, Pinned: at, By: by}, nil
}

// Pin believes a card from now on. The same card again is fine; another card
// under the same label, or the same key under another one, needs replace. The
// replaced peer, if any, is returned.
func (s Store) Pin(card *Card, by string, now time.Time, replace bool) (Peer, *Peer, error) {
	own, err := s.Card()
	if err != nil {
		return Peer{}, nil, err
	}
	pair, err := PairID(own, card)
	if err != nil {
		return Peer{}, nil, err
	}
	peers, err := s.Peers()
	if err != nil {
		return Peer{}, nil, err
	}
	p := Peer{Card: card, Pair: pair, Pinned: now.UTC().Truncate(time.Second), By: by}
	var old *Peer
	for i, q := range peers {
		switch {
		case q.Pair == pair:
			return q, nil, nil
		case q.Card.Label == card.Label:
			old = &peers[i]
		case bytes.Equal(q.Card.Key.Marshal(), card.Key.Marshal()):
			return Peer{}, nil, fault.New(fault.Usage, "the key of %q is pinned already under the label %q", card.Label, q.Card.Label)
		}
	}
	if old != nil && !replace {
		return Peer{}, old, fault.New(fault.Usage, "another card is pinned under the label %q since %s", card.Label, clock.Format(old.Pinned))
	}
	text := fmt.Appendf(nil, "%s\npinned: %s\nby: %s\n\n%s", peerMagic, clock.Format(p.Pinned), by, card.Bundle.Text())
	if err := s.files.WriteFile(peerName(card.Label), text, false); err != nil {
		return Peer{}, nil, storing("pin "+card.Label, err)
	}
	return p, old, nil
}

// Revoke stops believing a peer. Its record is kept as LABEL.revoked.
func (s Store) Revoke(label string) (Peer, error) {
	peers, err := s.Peers()
	if err != nil {
		return Peer{}, err
	}
	for _, p := range peers {
		if p.Label() != label {
			continue
		}
		if err := s.files.RenameFile(peerName(label), peersName+"/"+label+".revoked"); err != nil {
			return Peer{}, storing("revoke "+label, err)
		}
		return p, nil
	}
	return Peer{}, fault.New(fault.Usage, "no peer %q is pinned", label)
}

// Signers spells an allowed_signers file for a kiosk: us and every pinned peer.
func (s Store) Signers() ([]byte, error) {
	own, err := s.Card()
	if err != nil {
		return nil, err
	}
	peers, err := s.Peers()
	if err != nil {
		return nil, err
	}
	out := []byte(own.SignersLine())
	for _, p := range peers {
		out = append(out, p.Card.SignersLine()...)
	}
	return out, nil
}

// Verify finds the pinned peer that signed a bundle and verifies the bundle
// against that peer's pinned key. The key inside the bundle only chooses which
// pinned key to try. A signer who is not pinned is fault.NotForUs.
func Verify(own *Card, peers []Peer, b *bundle.Bundle, kinds ...bundle.Kind) (Peer, *bundle.Verified, error) {
	keys, err := b.Signers()
	if err != nil {
		return Peer{}, nil, err
	}
	if bytes.Equal(keys[0].Marshal(), own.Key.Marshal()) {
		return Peer{}, nil, fault.New(fault.NotForUs, "the bundle was made here: it is for the other side")
	}
	for _, p := range peers {
		if !bytes.Equal(keys[0].Marshal(), p.Card.Key.Marshal()) {
			continue
		}
		v, err := b.Verify(bundle.Expect{Signer: p.Card.Key, Pair: p.Pair, To: bundle.RecipientsFingerprint(own.Recipients), Kinds: kinds})
		return p, v, err
	}
	return Peer{}, nil, fault.New(fault.NotForUs, "the bundle is signed by %s, and no pinned peer has that key", bundle.KeyFingerprint(keys[0])).
		Hint("azs-%s pair CARD", own.Role)
}

// Open decrypts a bundle that [Verify] accepted.
func (id *Identity) Open(v *bundle.Verified) (*bundle.Body, error) { return v.Decrypt(id.ages...) }

// Seal makes a bundle for a peer; pair and recipients of the draft are set here.
func (id *Identity) Seal(to Peer, d bundle.Draft, rand io.Reader) (*bundle.Bundle, error) {
	d.Pair, d.Recipients = to.Pair, to.Card.Recipients
	return d.Seal(rand, id.signer)
}

// CardInside returns the agent's card that rides inside its first request. The
// request is signed by a key that is not pinned yet and is opened for this one
// purpose: the card must carry that very key, the pair must be the one that it
// makes with our card, and nothing else of the inside is used. Nothing is
// believed until the words are compared.
func (id *Identity) CardInside(b *bundle.Bundle) (*Card, error) {
	keys, err := b.Signers()
	if err != nil {
		return nil, err
	}
	peek, err := b.Peek()
	if err != nil {
		return nil, fault.New(fault.Refused, "%w", err)
	}
	v, err := b.Verify(bundle.Expect{Signer: keys[0], Pair: peek.Pair, To: bundle.RecipientsFingerprint(id.Card.Recipients), Kinds: []bundle.Kind{bundle.KindRequest}})
	if err != nil {
		return nil, err
	}
	body, err := id.Open(v)
	if err != nil {
		return nil, err
	}
	inside := body.Content.(*bundle.Request).Card
	if len(inside) == 0 {
		return nil, fault.New(fault.NotForUs, "request %s carries no card", v.Manifest.Bundle).Hint("azs-agent token --with-card …")
	}
	card, err := ReadCard(inside)
	if err != nil {
		return nil, err
	}
	pair, err := PairID(card, id.Card)
	switch {
	case err != nil:
		return nil, err
	case !bytes.Equal(card.Key.Marshal(), keys[0].Marshal()):
		return nil, fault.New(fault.Refused, "the card in request %s carries the key %s, but %s signed the request", v.Manifest.Bundle, card.Fingerprint(), v.Manifest.From)
	case pair != v.Manifest.Pair:
		return nil, fault.New(fault.NotForUs, "request %s is for pair %s, its card and ours make pair %s", v.Manifest.Bundle, v.Manifest.Pair, pair)
	}
	return card, nil
}
