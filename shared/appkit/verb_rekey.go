package appkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/ageplugin"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/sshkey"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// keyFlags say where new keys are made; init and rekey have them.
func keyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "sign-with", Usage: "sign with a key of the ssh-agent instead of a new one; `KEY` is its SHA256:… fingerprint, its comment or the file of its public half, FILE.pub"},
		&cli.StringFlag{Name: "age-plugin", Usage: "decrypt with the age plugin at this absolute `PATH`; without it no plugin is ever started"},
		&cli.StringFlag{Name: "age-identity", Usage: "the `FILE` that the plugin made, with its AGE-PLUGIN-… line"},
		&cli.StringFlag{Name: "age-recipient", Usage: "the plugin's `RECIPIENT`, age1tag1… or age1tagpq1…, when the comments of that file do not name it"},
		&cli.StringFlag{Name: "recovery", Usage: "seal what comes here to `RECIPIENT` too, age1pq1… or a file with one: an offline key in a safe; rekey keeps it, and drops it by none"},
	}
}

// readKeyFlags reads the flags of [keyFlags].
func readKeyFlags(ctx context.Context, e *Env, c *cli.Context, p *trust.Protection) (err error) {
	if name := c.String("sign-with"); name != "" {
		if p.Agent, err = sshkey.Find(ctx, name); err != nil {
			return err
		}
	}
	path, file := c.String("age-plugin"), c.String("age-identity")
	switch {
	case (path == "") != (file == ""):
		return fault.New(fault.Usage, "--age-plugin and --age-identity stand together: the program, by its absolute path, and the file that it made")
	case path == "" && c.String("age-recipient") != "":
		return fault.New(fault.Usage, "--age-recipient is the recipient of an --age-plugin, and there is none")
	case path != "":
		if p.Plugin, err = readPluginFile(file); err != nil {
			return err
		}
		p.Plugin.Path = path
		if r := c.String("age-recipient"); r != "" {
			p.Plugin.Recipient = r
		}
		if p.Plugin.Recipient == "" {
			return fault.New(fault.Usage, "no comment of %q names a recipient age1tag1…, age1tagpq1…, age1pq1… or age1…", file).Hint("add --age-recipient RECIPIENT")
		}
	}
	switch r := c.String("recovery"); {
	case r == "none":
		p.Recovery = nil
	case r != "":
		if !strings.HasPrefix(r, "age1") {
			if r, err = readRecipient(r); err != nil {
				return err
			}
		}
		p.Recovery = []string{r}
	}
	return nil
}

// readPluginFile reads the identity file of a plugin: one line AGE-PLUGIN-…, and
// comments, of which one may hold the recipient.
func readPluginFile(file string) (*trust.Plugin, error) {
	raw, err := medium.ReadText(file, 64<<10)
	if err != nil {
		return nil, err
	}
	p := &trust.Plugin{}
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
			for _, word := range strings.Fields(line) {
				if _, err := bundle.ParseRecipient(word); err == nil {
					p.Recipient = word
				}
			}
		case line == "":
		case p.Identity != "" || !strings.HasPrefix(line, "AGE-PLUGIN-"):
			return nil, fault.New(fault.Usage, "file %q holds more than the one line AGE-PLUGIN-… of an age plugin", file)
		default:
			p.Identity = line
		}
	}
	if p.Identity == "" {
		return nil, fault.New(fault.Usage, "file %q holds no line AGE-PLUGIN-… of an age plugin", file)
	}
	return p, nil
}

// readRecipient reads the one recipient of a file as `age -R` reads it.
func readRecipient(file string) (string, error) {
	raw, err := medium.ReadText(file, 64<<10)
	if err != nil {
		return "", err
	}
	var found []string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			found = append(found, line)
		}
	}
	if len(found) != 1 || !strings.HasPrefix(found[0], "age1") {
		return "", fault.New(fault.Usage, "file %q holds %d lines and has to hold one recipient age1…", file, len(found)).Hint("age-keygen -y recovery.key > %s", file)
	}
	return found[0], nil
}

// attended lets a plugin speak with the operator. What it says is foreign text.
func (e *Env) attended(ctx context.Context, s trust.Store) trust.Store {
	return s.Attended(ctx, ageplugin.UI{
		Say: func(text string) { e.Console.Say("the age plugin says: %q", text) },
		Ask: func(prompt string, hidden bool) (string, error) {
			prompt = fmt.Sprintf("the age plugin asks: %q ", prompt)
			if hidden {
				t, err := e.Console.Secret(prompt, "a terminal")
				return t.Reveal(), err
			}
			return e.Console.Ask(prompt, "a terminal")
		},
	})
}

// passphrase returns the passphrase of the identity, from its file or by asking.
func (e *Env) passphrase() (secret.Text, error) {
	return e.passphraseOf("the " + e.Role + "'s identity")
}

// passphraseOf returns a passphrase, from --passphrase-file or by asking.
func (e *Env) passphraseOf(what string) (secret.Text, error) {
	if e.PassphraseFile != "" {
		return e.LoadSecretFile(e.PassphraseFile)
	}
	return e.Console.Passphrase("passphrase of " + what)
}

// The notes of a change of keys in the journal.
const (
	noteKeys      = "keys"
	noteRekeying  = "rekeying"
	noteRekeyed   = "rekeyed"
	noteForgotten = "keys-forgotten"
)

func rekeyVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "rekey", Usage: "change the keys of this side",
		Description: "Makes new keys and, for every pinned peer, a bundle that the old and the new key sign; the peer takes it with `pair BUNDLE`, " +
			"without words. The peer knows this side by the old keys until then: bring the bundle first. What was begun with the old keys " +
			"is still opened and answered here, until --finish removes them. The same command again, or after a crash, gives the same bundles again.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "write the bundle to `FILE`; with one peer only"},
			&cli.StringFlag{Name: "put", Usage: "write the bundles to the stick or folder `DIR`"},
			&cli.BoolFlag{Name: "finish", Usage: "remove the old keys, once every peer used the new ones"},
			&cli.BoolFlag{Name: "force", Usage: "with --finish: although a peer has not, or a trip of the old keys is open"},
			&cli.BoolFlag{Name: "insecure-no-passphrase", Usage: "keep the new keys in clear, where the old ones were in hardware and had no passphrase"},
		}, keyFlags()...),
		Action: Run(runRekey),
	}, Help{
		Examples: []string{p.Name + " rekey --out rekey.azc", p.Name + " rekey --put /media/stick --sign-with SHA256:j2JkzJ2WRGtmzgtIVC8OfpGi4VNeRzbLxmLMYSbwmNA", p.Name + " rekey --finish"},
		Exit:     []fault.Kind{fault.Usage, fault.Refused, fault.Medium, fault.Locked, fault.NothingYet},
	})
}

func runRekey(ctx context.Context, e *Env, c *cli.Context) error {
	if _, err := Args(c); err != nil {
		return err
	}
	s, err := e.Station()
	if err != nil {
		return err
	}
	defer s.Close()
	_, release, err := s.Ledger.Claim(ctx, claimIdentity)
	if err != nil {
		return err
	}
	defer release()
	releasePeers, err := s.claimPeers(ctx)
	if err != nil {
		return err
	}
	defer releasePeers()
	if c.Bool("finish") {
		return s.finishRekey(ctx, c.Bool("force"))
	}
	if c.Bool("force") {
		return fault.New(fault.Usage, "--force is of --finish")
	}
	out := Out{File: c.String("out"), Dir: c.String("put")}
	if out.File != "" && len(s.Peers) > 1 {
		return fault.New(fault.Usage, "--out is one file, and %d peers are to get a bundle each", len(s.Peers)).Hint("%s rekey --put DIR", e.Program)
	}
	former, err := s.Store.Former()
	if err != nil {
		return err
	}
	if former == nil {
		if former, err = s.changeKeys(ctx, c); err != nil {
			return err
		}
	} else {
		e.Console.Say("the keys were changed on %s already: these are the bundles of then", clock.Format(s.Card.Created))
	}
	return s.reportRekey(former, out)
}

// changeKeys makes the new keys ours and returns the former card.
func (s *Station) changeKeys(ctx context.Context, c *cli.Context) (former *trust.Card, err error) {
	e := s.Env
	p := trust.Protection{Insecure: c.Bool("insecure-no-passphrase"), Recovery: s.Card.Recipients[1:]}
	if err := readKeyFlags(ctx, e, c, &p); err != nil {
		return nil, err
	}
	if e.PassphraseFile != "" && !s.Store.Protected() && !p.Insecure {
		if p.Passphrase, err = e.LoadSecretFile(e.PassphraseFile); err != nil {
			return nil, err
		}
	}
	r, err := e.attended(ctx, s.Store).BeginRekey(e.passphrase, p, e.Clock.Now(), Random)
	if err != nil {
		return nil, err
	}
	for _, peer := range s.Peers {
		if _, err := s.rekeyFor(peer, r); err != nil {
			return nil, err
		}
	}
	key := string(r.New.Fingerprint())
	if _, ok := s.note(noteKeys, "card", r.New.Digest().String()); !ok {
		if _, err := s.Ledger.Append(noteKeys, "", map[string]string{"label": r.New.Label, "key": key, "card": r.New.Digest().String(),
			"replaced-key": string(r.Old.Fingerprint())}); err != nil {
			return nil, err
		}
	}
	if err := s.Store.Change(r); err != nil {
		return nil, err
	}
	s.Card = r.New
	s.Peers, err = s.Store.Peers()
	return r.Old, err
}

// note returns the last line of the journal of an event whose data has the values.
func (s *Station) note(event string, pairs ...string) (ledger.Entry, bool) {
	for _, x := range slices.Backward(s.Ledger.Entries()) {
		fits := x.Event == event
		for i := 0; i < len(pairs); i += 2 {
			fits = fits && x.Data[pairs[i]] == pairs[i+1]
		}
		if fits {
			return x, true
		}
	}
	return ledger.Entry{}, false
}

// keptRekey returns the bundle for a peer that was sealed and kept for a new card.
func (s *Station) keptRekey(label string, card *trust.Card) (name string, raw []byte, err error) {
	x, ok := s.note(noteRekeying, "label", label, "card", card.Digest().String())
	if !ok {
		return "", nil, fs.ErrNotExist
	}
	raw, err = s.Ledger.Kept(x.Data["file"])
	return x.Data["file"], raw, err
}

// rekeyFor seals and keeps the bundle for a peer, unless a run before did. The
// number is journaled before it is used.
func (s *Station) rekeyFor(peer trust.Peer, r *trust.Rekey) (name string, err error) {
	if name, _, err := s.keptRekey(peer.Label(), r.New); !errors.Is(err, fs.ErrNotExist) {
		return name, err
	}
	id, err := bundle.NewID(Random)
	if err != nil {
		return "", err
	}
	name = medium.Name(string(bundle.KindRekey), id.String())
	seq, err := s.Ledger.AppendNext(noteRekeying, "", peer.Pair.String(), map[string]string{"label": peer.Label(), "bundle": id.String(),
		"key": string(r.New.Fingerprint()), "card": r.New.Digest().String(), "file": name})
	if err != nil {
		return "", err
	}
	now := s.Env.Clock.Now()
	b, err := r.Seal(peer, bundle.Draft{Bundle: id, Seq: seq, Created: now, Expires: now.AddDate(100, 0, 0)}, Random)
	if err != nil {
		return "", err
	}
	return name, s.Ledger.Keep(name, b.Text())
}

type rekeyJSON struct {
	Peer   string   `json:"peer"`
	Bundle string   `json:"bundle"`
	File   string   `json:"file"`
	Places []string `json:"places"`
	Words  string   `json:"words"`
}

func (s *Station) reportRekey(former *trust.Card, out Out) error {
	e := s.Env
	all := []rekeyJSON{}
	for _, peer := range s.Peers {
		name, raw, err := s.keptRekey(peer.Label(), s.Card)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was pinned after the change
		}
		if err != nil {
			return err
		}
		b, err := bundle.Split(raw)
		if err != nil {
			return err
		}
		m, err := b.Peek()
		if err != nil {
			return err
		}
		words, err := trust.PairWords(s.Card, peer.Card)
		if err != nil {
			return err
		}
		places, err := e.Write(out, m.Kind, m.Bundle, raw)
		if err != nil {
			return err
		}
		all = append(all, rekeyJSON{peer.Label(), m.Bundle.String(), s.Path(name), places, words.String()})
	}
	for _, t := range s.openTrips(former) {
		e.Console.Warn("trip %s is %s: it goes on with the old keys, until rekey --finish; a peer that has taken the new ones answers it no more", t.ID, t.State)
	}
	if out.File == "-" {
		return nil
	}
	e.Console.Result("rekey", map[string]any{"label": s.Card.Label, "key": s.Card.Fingerprint(), "replacedKey": former.Fingerprint(), "bundles": all}, func(w io.Writer) {
		fmt.Fprintf(w, "%s %q has new keys\n  signing key   %s\n  before        %s\n", s.Card.Role, s.Card.Label, s.Card.Fingerprint(), former.Fingerprint())
		for _, b := range all {
			fmt.Fprintf(w, "for %q\n  bundle        %s\n  words now     %s\n", b.Peer, strings.Join(append([]string{b.File}, b.Places...), ", "), b.Words)
			fmt.Fprintf(w, "  next          there: azs-%s pair BUNDLE\n", otherRole(s.Card.Role))
		}
		fmt.Fprintf(w, "at the end      %s rekey --finish\n", e.Program)
	})
	return nil
}

func otherRole(role string) string {
	if role == bundle.RoleAgent {
		return bundle.RoleRelay
	}
	return bundle.RoleAgent
}

// openTrips returns the trips that were begun in a pair of a card of ours and for
// which something is still to come.
func (s *Station) openTrips(own *trust.Card) (open []ledger.Trip) {
	pairs := map[string]bool{}
	for _, p := range s.Peers {
		if pair, err := trust.PairID(own, p.Card); err == nil {
			pairs[pair.String()] = true
		}
	}
	for _, t := range s.Ledger.Trips() {
		switch t.State {
		case ledger.Requested, ledger.Exported, ledger.Admitted, ledger.Seen, ledger.Removed, ledger.Registered:
			if pairs[t.Data["pair"]] {
				open = append(open, t)
			}
		}
	}
	return open
}

// unconfirmed returns the peers for which a rekey was made and from which nothing
// came yet in the pair of the new card.
func (s *Station) unconfirmed() (labels []string) {
	for _, p := range s.Peers {
		_, sent := s.note(noteRekeying, "label", p.Label(), "card", s.Card.Digest().String())
		if sent && s.Ledger.LastSeqIn(p.Pair.String()) == 0 {
			labels = append(labels, p.Label())
		}
	}
	return labels
}

func (s *Station) finishRekey(ctx context.Context, force bool) error {
	e := s.Env
	former, err := s.Store.Former()
	if err != nil {
		return err
	}
	if former == nil {
		return fault.New(fault.NothingYet, "no change of keys is under way")
	}
	if labels := s.unconfirmed(); len(labels) > 0 && !force {
		return fault.New(fault.NothingYet, "nothing came yet that shows that %q took the new keys", labels).Hint("%s rekey --finish --force   # when the other side says that it did", e.Program)
	}
	if open := s.openTrips(former); len(open) > 0 && !force {
		return fault.New(fault.NothingYet, "trip %s is %s and was begun with the old keys", open[0].ID, open[0].State).Hint("%s rekey --finish --force   # gives its answer up", e.Program)
	}
	// The keys go after the line: a run that is killed between finds both again.
	if _, ok := s.note(noteForgotten, "card", former.Digest().String()); !ok {
		if _, err := s.Ledger.Append(noteForgotten, "", map[string]string{"label": former.Label, "key": string(former.Fingerprint()), "card": former.Digest().String()}); err != nil {
			return err
		}
	}
	if err := e.attended(ctx, s.Store).FinishRekey(e.passphrase, 0); err != nil {
		return err
	}
	e.Console.Result("rekey-finished", map[string]any{"label": s.Card.Label, "key": s.Card.Fingerprint(), "removedKey": former.Fingerprint()}, func(w io.Writer) {
		fmt.Fprintf(w, "the keys with %s are removed; %s is the only one of %q now\n", former.Fingerprint(), s.Card.Fingerprint(), s.Card.Label)
	})
	return nil
}

// warnRekey is what status says of a change that is not finished.
func (s *Station) warnRekey() []string {
	former, err := s.Store.Former()
	if err != nil || former == nil {
		return nil
	}
	why := "every peer uses the new ones"
	if labels := s.unconfirmed(); len(labels) > 0 {
		why = fmt.Sprintf("nothing came yet that shows that %q took the new ones", labels)
	}
	return []string{fmt.Sprintf("the keys were changed on %s and the old ones are still kept: %s; at the end %s rekey --finish", s.Card.Created.Format(time.DateOnly), why, s.Env.Program)}
}

// cardOfRekey returns the card in a rekey of a pinned peer, also of one that was
// taken.
func (s *Station) cardOfRekey(ctx context.Context, b *bundle.Bundle) (*trust.Card, error) {
	whole, err := outside(b)
	if err != nil {
		return nil, err
	}
	if p, ok := s.tookRekey(whole); ok {
		return p.Card, nil
	}
	peer, v, err := trust.Verify(s.Card, s.Peers, b, bundle.KindRekey)
	if err != nil {
		return nil, err
	}
	id, err := s.Unlock(ctx)
	if err != nil {
		return nil, err
	}
	return id.NewCard(peer, v)
}

// takeRekey pins the new card of a peer. It may be repeated, also after a crash.
func (s *Station) takeRekey(ctx context.Context, b *bundle.Bundle) error {
	e := s.Env
	whole, err := outside(b)
	if err != nil {
		return err
	}
	if p, ok := s.tookRekey(whole); ok {
		return s.reportPair(p, true)
	}
	peer, v, err := trust.Verify(s.Card, s.Peers, b, bundle.KindRekey)
	if err != nil {
		return err
	}
	id, err := s.Unlock(ctx)
	if err != nil {
		return err
	}
	card, err := id.NewCard(peer, v)
	if err != nil {
		return err
	}
	words, err := trust.PairWords(s.Card, card)
	if err != nil {
		return err
	}
	pair, err := trust.PairID(s.Card, card)
	if err != nil {
		return err
	}
	if _, ok := s.note(noteRekeyed, "bundle", v.Manifest.Bundle.String()); !ok {
		if _, err := s.Ledger.Append(noteRekeyed, "", map[string]string{"label": card.Label, "key": string(card.Fingerprint()), "pair-id": pair.String(), "words": words.String(),
			"replaced-key": string(peer.Card.Fingerprint()), "replaced-pair": peer.Pair.String(), "bundle": v.Manifest.Bundle.String()}); err != nil {
			return err
		}
	}
	pinned, _, err := s.Store.Pin(card, "key before it", e.Clock.Now(), true)
	if err != nil {
		return err
	}
	e.Console.Say("replaces key %s, which signed this; the words of the pair are now: %s", peer.Card.Fingerprint(), words)
	for _, t := range s.Ledger.Trips() {
		if t.Data["pair"] == peer.Pair.String() && slices.Contains([]string{ledger.Requested, ledger.Exported, ledger.Admitted, ledger.Seen, ledger.Registered, ledger.Removed}, t.State) {
			e.Console.Warn("trip %s is %s and was begun with the old key of %q, which is believed no more: it needs a new request", t.ID, t.State, peer.Label())
		}
	}
	return s.reportPair(pinned, false)
}

// tookRekey finds the peer whose rekey was taken before: its new key is pinned.
func (s *Station) tookRekey(v *bundle.Verified) (trust.Peer, bool) {
	if _, ok := s.note(noteRekeyed, "bundle", v.Manifest.Bundle.String()); !ok {
		return trust.Peer{}, false
	}
	for _, p := range s.Peers {
		if bytes.Equal(p.Card.Key.Marshal(), v.Signers[1].Marshal()) {
			return p, true
		}
	}
	return trust.Peer{}, false
}
