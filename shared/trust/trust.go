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
// In the state folder, or under the same names in a database (see [Files]):
// identity.age (or identity.key without a passphrase), a text of one OpenSSH
// private key, or the public key that an ssh-agent holds, and one age secret key,
// or what an age plugin needs (keys.go); card.azc; peers/LABEL.peer, a few lines
// about the pinning above the peer's card; and, while our own keys are changed,
// next.azc and former.azc (rekey.go).
package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/azs-courier/azs-courier/shared/ageplugin"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/sshkey"
)

const (
	sealedName = "identity.age"
	plainName  = "identity.key"
	cardName   = "card.azc"
	peersName  = "peers"

	maxIdentity = 64 << 10
)

// Store is the part of a side's state that holds identity and peers.
type Store struct {
	files Files
	ctx   context.Context // of what an ssh-agent or an age plugin is asked
	ui    ageplugin.UI
}

// At names the store in a state folder; nothing is read yet.
func At(dir string) Store { return In(folder(dir)) }

// In names the store in other files than those of a folder.
func In(files Files) Store {
	return Store{files, context.Background(), ageplugin.UI{
		Say: func(string) {},
		Ask: func(string, bool) (string, error) { return "", errors.New("there is nobody to ask") },
	}}
}

// Attended returns the store with a person beside it: whom an age plugin asks, and
// who may end the waiting for a touch.
func (s Store) Attended(ctx context.Context, ui ageplugin.UI) Store {
	s.ctx, s.ui = ctx, ui
	return s
}

// Create makes keys and card. A store that has a card already, even a damaged one,
// is left alone: fault.Usage, or what is wrong with the card.
func (s Store) Create(role, label string, p Protection, now time.Time, rand io.Reader) (*Card, error) {
	if err := CheckLabel(label); err != nil {
		return nil, err
	}
	if err := s.checkProtection(p); err != nil {
		return nil, err
	}
	switch _, err := s.Card(); {
	case err == nil:
		return nil, fault.New(fault.Usage, "%s has an identity already", s.files)
	case fault.KindOf(err) != fault.Locked:
		return nil, fmt.Errorf("%s has an identity already: %w", s.files, err)
	}
	keys, err := s.newKeys(label, p, rand)
	if err != nil {
		return nil, err
	}
	card, err := newCard(role, label, keys.signer, append(keys.recipients, p.Recovery...), nil, now, rand)
	if err != nil {
		return nil, err
	}
	if err := s.writeIdentity(keys.text, p); err != nil {
		return nil, err
	}
	// The card is last: a store without it has no identity yet, and is made anew.
	if err := s.files.WriteFile(cardName, card.Bundle.Text(), true); err != nil {
		return nil, storing("card", err)
	}
	return card, nil
}

// writeIdentity keeps the private half, under the passphrase if there is one.
func (s Store) writeIdentity(text []byte, p Protection) (err error) {
	name, other := plainName, sealedName
	if !p.Passphrase.Empty() {
		name, other = sealedName, plainName
		if text, err = lock(text, p); err != nil {
			return err
		}
	}
	if err := s.files.WriteFile(name, text, false); err != nil {
		return storing("identity", err)
	}
	// A run that was killed before its card may have kept its identity the other way.
	if err := s.files.RemoveFile(other); err != nil {
		return storing("identity", err)
	}
	return nil
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
	Card *Card
	*keys
	former *keys // of the card before a rekey, until the rekey is finished; or nil
}

// Unlock reads the identity. The passphrase is asked for only when there is one;
// a wrong one is fault.Locked, and so is a signing key that its ssh-agent does not
// hold.
func (s Store) Unlock(passphrase func() (secret.Text, error)) (*Identity, error) {
	card, err := s.Card()
	if err != nil {
		return nil, err
	}
	all, _, err := s.readIdentity(passphrase)
	if err != nil {
		return nil, err
	}
	id := &Identity{Card: card, keys: find(all, card)}
	if id.keys == nil {
		return nil, fault.New(fault.Locked, "identity and card of %s do not belong together", s.files)
	}
	if id.keys.agent {
		if err := sshkey.Held(s.ctx, card.Key); err != nil {
			return nil, err
		}
	}
	former, err := s.former(card)
	if err != nil {
		return nil, err
	}
	if former != nil {
		id.former = find(all, former)
	}
	return id, nil
}

// readIdentity reads all keys that there are, the newest first, and the passphrase
// under which they stood.
func (s Store) readIdentity(passphrase func() (secret.Text, error)) ([]*keys, secret.Text, error) {
	var pass secret.Text
	text, err := s.files.ReadFile(sealedName, maxIdentity)
	switch {
	case err == nil:
		if pass, err = passphrase(); err != nil {
			return nil, pass, err
		}
		if text, err = unlock(text, pass); err != nil {
			return nil, pass, err
		}
	case errors.Is(err, fs.ErrNotExist):
		if text, err = s.files.ReadFile(plainName, maxIdentity); err != nil {
			return nil, pass, fault.New(fault.Locked, "identity: %w", err)
		}
	case fault.KindOf(err) == fault.Unreachable:
		return nil, pass, err
	default:
		return nil, pass, fault.New(fault.Locked, "identity: %w", err)
	}
	all, err := s.parseKeys(text)
	return all, pass, err
}

// Protected reports whether the identity stands under a passphrase.
func (s Store) Protected() bool {
	_, err := s.files.ReadFile(sealedName, maxIdentity)
	return err == nil
}

func unlock(text []byte, pass secret.Text) ([]byte, error) {
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
	Own    *Card     // our card of this pair: the present one, or that before a rekey

	former *Peer // the pair of our former card, until a rekey is finished; or nil
}

// In returns the peer in one of the pairs that this side has with it: the present
// one, or that of our former card. What was begun in a pair, ends in it.
func (p Peer) In(pair bundle.ID) (Peer, bool) {
	if p.former != nil && p.former.Pair == pair {
		return *p.former, true
	}
	return p, p.Pair == pair
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
	former, err := s.former(own)
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
		if former != nil {
			pair, err := PairID(former, p.Card)
			if err != nil {
				return nil, err
			}
			p.former = &Peer{Card: p.Card, Pair: pair, Pinned: p.Pinned, By: p.By, Own: former}
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
	return Peer{Card: card, Pair: pair, Pinned: at, By: by, Own: own}, nil
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
	p := Peer{Card: card, Pair: pair, Pinned: now.UTC().Truncate(time.Second), By: by, Own: own}
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

// Signers spells an allowed_signers file for a kiosk: us, every pinned peer, and the
// approvers, who may sign in the namespace of approvals only.
func (s Store) Signers() ([]byte, error) {
	own, err := s.Card()
	if err != nil {
		return nil, err
	}
	peers, err := s.Peers()
	if err != nil {
		return nil, err
	}
	former, err := s.former(own)
	if err != nil {
		return nil, err
	}
	out := []byte(own.SignersLine())
	if former != nil { // its key signs a rekey, and what was begun before it
		out = append(out, former.SignersLine()...)
	}
	for _, p := range peers {
		out = append(out, p.Card.SignersLine()...)
	}
	approvers, err := s.Approvers()
	if err != nil {
		return nil, err
	}
	for _, p := range approvers.All {
		out = append(out, p.signersLine()...)
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
		to := own
		// Which of our two pairs to hold it against, the manifest may say.
		if m, err := b.Peek(); err == nil && p.former != nil && m.Pair == p.former.Pair {
			p, to = *p.former, p.former.Own
		}
		v, err := b.Verify(bundle.Expect{Signer: p.Card.Key, Pair: p.Pair, To: bundle.RecipientsFingerprint(to.Recipients), Kinds: kinds})
		return p, v, err
	}
	return Peer{}, nil, fault.New(fault.NotForUs, "the bundle is signed by %s, and no pinned peer has that key", bundle.KeyFingerprint(keys[0])).
		Hint("azs-%s pair CARD", own.Role)
}

// Open decrypts a bundle that [Verify] accepted.
func (id *Identity) Open(v *bundle.Verified) (*bundle.Body, error) {
	ages := id.keys.ages
	if id.former != nil {
		ages = append(slices.Clone(ages), id.former.ages...)
	}
	return v.Decrypt(ages...)
}

// Seal makes a bundle for a peer; pair and recipients of the draft are set here.
// In the pair of our former card it is signed by the former key: the peer that
// asked there knows no other.
func (id *Identity) Seal(to Peer, d bundle.Draft, rand io.Reader) (*bundle.Bundle, error) {
	signer := id.signer
	if id.former != nil && find([]*keys{id.former}, to.Own) != nil {
		signer = id.former.signer
	}
	d.Pair, d.Recipients = to.Pair, to.Card.Recipients
	return d.Seal(rand, signer)
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
