package trust

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// A change of our own keys takes these steps; a run that is killed between two of
// them is taken up by the next one, with the same new keys.
//
//  1. The identity file holds the new keys before the old ones.
//  2. next.azc holds the new card. Bundles for the peers are sealed and kept.
//  3. former.azc holds the old card, then card.azc the new one: the change.
//  4. Until it is finished, the old keys open and answer what was begun with them.
//  5. Finished: the identity file holds the new keys only, former.azc is gone.
const (
	nextName   = "next.azc"
	formerName = "former.azc"
)

// former returns the card before ours, while a rekey is not finished, or nil.
func (s Store) former(own *Card) (*Card, error) { return s.other(formerName, own) }

// other reads a card that is not ours, or nil.
func (s Store) other(name string, own *Card) (*Card, error) {
	raw, err := s.files.ReadFile(name, bundle.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, storing(name, err)
	}
	c, err := ReadCard(raw)
	if err != nil || c.Digest() == own.Digest() {
		return nil, err
	}
	return c, nil
}

// Former returns the card that a rekey replaced, while the rekey is not finished,
// or nil.
func (s Store) Former() (*Card, error) {
	own, err := s.Card()
	if err != nil {
		return nil, err
	}
	return s.former(own)
}

// Rekey is a change of our own keys that was begun.
type Rekey struct {
	Old, New *Card
	old, new *keys
}

// BeginRekey makes new keys and their card beside the present ones, or takes up
// those that a killed run made. The card of the store is still the old one. Without
// a passphrase in p the keys stay under the one that they stand under. A rekey that
// is not finished is fault.Usage.
func (s Store) BeginRekey(passphrase func() (secret.Text, error), p Protection, now time.Time, rand io.Reader) (*Rekey, error) {
	own, err := s.Card()
	if err != nil {
		return nil, err
	}
	switch former, err := s.former(own); {
	case err != nil:
		return nil, err
	case former != nil:
		return nil, fault.New(fault.Usage, "the keys were changed on %s already, and that is not finished", own.Created.Format(time.DateOnly))
	}
	all, pass, err := s.readIdentity(passphrase)
	if err != nil {
		return nil, err
	}
	r := &Rekey{Old: own, old: find(all, own)}
	if r.old == nil {
		return nil, fault.New(fault.Locked, "identity and card of %s do not belong together", s.files)
	}
	if r.New, err = s.other(nextName, own); err != nil {
		return nil, err
	}
	if r.New != nil {
		if r.new = find(all, r.New); r.new == nil {
			return nil, fault.New(fault.Locked, "identity and next card of %s do not belong together", s.files)
		}
		return r, nil
	}
	if p.Passphrase.Empty() && !p.Insecure {
		p.Passphrase = pass
		p.Insecure = pass.Empty() && !(r.old.agent && r.old.plugin) // it was spelt out before
	}
	if err := s.checkProtection(p); err != nil {
		return nil, err
	}
	if r.new, err = s.newKeys(own.Label, p, rand); err != nil {
		return nil, err
	}
	if bytes.Equal(r.new.signer.PublicKey().Marshal(), own.Key.Marshal()) {
		return nil, fault.New(fault.Usage, "the new signing key %s is the old one", own.Fingerprint())
	}
	if r.New, err = newCard(own.Role, own.Label, r.new.signer, append(r.new.recipients, p.Recovery...), own.Approvers, now, rand); err != nil {
		return nil, err
	}
	if err := s.writeIdentity(slices.Concat(r.new.text, r.old.text), p); err != nil {
		return nil, err
	}
	if err := s.files.WriteFile(nextName, r.New.Bundle.Text(), true); err != nil {
		return nil, storing("next card", err)
	}
	return r, nil
}

// Seal makes the bundle by which a peer takes the new card: signed by the old and
// by the new key, in the pair of the old card.
func (r *Rekey) Seal(to Peer, d bundle.Draft, rand io.Reader) (*bundle.Bundle, error) {
	d.Pair, d.Recipients, d.Content = to.Pair, to.Card.Recipients, &bundle.Rekey{Card: r.New.Bundle.Wire()}
	return d.Seal(rand, r.old.signer, r.new.signer)
}

// Change makes the new card ours.
func (s Store) Change(r *Rekey) error {
	if err := s.files.WriteFile(formerName, r.Old.Bundle.Text(), true); err != nil {
		return storing("former card", err)
	}
	if err := s.files.WriteFile(cardName, r.New.Bundle.Text(), true); err != nil {
		return storing("card", err)
	}
	if err := s.files.RemoveFile(nextName); err != nil {
		return storing("next card", err)
	}
	return nil
}

// FinishRekey removes the former keys. What was sealed to them is not opened by
// anybody any more, unless a recovery recipient was among them.
func (s Store) FinishRekey(passphrase func() (secret.Text, error), workFactor int) error {
	own, err := s.Card()
	if err != nil {
		return err
	}
	all, pass, err := s.readIdentity(passphrase)
	if err != nil {
		return err
	}
	k := find(all, own)
	if k == nil {
		return fault.New(fault.Locked, "identity and card of %s do not belong together", s.files)
	}
	if err := s.writeIdentity(k.text, Protection{Passphrase: pass, WorkFactor: workFactor}); err != nil {
		return err
	}
	if err := s.files.RemoveFile(formerName); err != nil {
		return storing("former card", err)
	}
	return nil
}

// NewCard returns the card that a rekey of a pinned peer carries: it verified by
// [Verify], so the old key signed it. The card is believed without words when the
// key that it carries is the second signer, and when nothing but keys changed.
func (id *Identity) NewCard(peer Peer, v *bundle.Verified) (*Card, error) {
	body, err := id.Open(v)
	if err != nil {
		return nil, err
	}
	in, ok := body.Content.(*bundle.Rekey)
	if !ok || body.Length != 0 {
		return nil, fault.New(fault.Refused, "bundle %s is not a rekey, or has a payload", v.Manifest.Bundle)
	}
	card, err := ReadCard(in.Card)
	switch old := peer.Card; {
	case err != nil:
		return nil, err
	case len(v.Signers) != 2 || !bytes.Equal(card.Key.Marshal(), v.Signers[1].Marshal()):
		return nil, fault.New(fault.Refused, "the card in rekey %s carries the key %s, which did not sign the rekey", v.Manifest.Bundle, card.Fingerprint())
	case card.Role != old.Role || card.Label != old.Label:
		return nil, fault.New(fault.NotForUs, "rekey %s is of %s %q and carries the card of %s %q", v.Manifest.Bundle, old.Role, old.Label, card.Role, card.Label)
	case !slices.Equal(card.Approvers, old.Approvers):
		return nil, fault.New(fault.NotForUs, "rekey %s changes the approvers of %q as well: they are believed by words only", v.Manifest.Bundle, old.Label).
			Hint("azs-%s pair CARD --replace", id.Card.Role)
	}
	return card, nil
}
