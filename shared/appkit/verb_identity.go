package appkit

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/console"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/trust"
)

func initVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "init", Usage: "make keys and state folder",
		Description: "Makes the state folder, an SSH signing key, a hybrid post-quantum age identity and the pairing card. " +
			"The keys stand under a passphrase, which is asked for twice, or read from --passphrase-file. " +
			"Either may be in hardware instead: the signing key in an ssh-agent (--sign-with), the age identity in an age plugin (--age-plugin); " +
			"with both, nothing secret is kept and no passphrase asked. " +
			"The label stands in the card and crosses in clear: it should not tell whose site it is.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "label", Usage: "name of this side on the card (default: role and four Random characters)"},
			&cli.BoolFlag{Name: "insecure-no-passphrase", Usage: "keep the keys in clear: who copies the folder can act as this side"},
		}, keyFlags()...),
		Action: Run(runInit),
	}, Help{
		Examples: []string{p.Name + " init --label site-a", p.Name + " init --label site-a --passphrase-file pass.txt",
			p.Name + " init --sign-with ~/.ssh/id_ed25519_sk.pub --recovery recovery.pub",
			p.Name + " init --age-plugin /usr/local/bin/age-plugin-tpm --age-identity tpm.txt"},
		Exit: []fault.Kind{fault.Usage, fault.Medium, fault.Locked},
	})
}

func runInit(ctx context.Context, e *Env, c *cli.Context) error {
	if _, err := Args(c); err != nil {
		return err
	}
	label := c.String("label")
	if label == "" {
		id, err := bundle.NewID(Random)
		if err != nil {
			return err
		}
		label = e.Role + "-" + id.Short()[:4]
	}
	if err := trust.CheckLabel(label); err != nil {
		return err
	}
	store, shared, err := e.store(true)
	if err != nil {
		return err
	}
	if shared != nil {
		defer shared.Close()
	}
	if card, err := store.Card(); err == nil {
		return fault.New(fault.Usage, "%s has the identity of %s %q already", e.Where(), card.Role, card.Label).Hint("%s card", e.Program)
	}
	p := trust.Protection{Insecure: c.Bool("insecure-no-passphrase")}
	if err := readKeyFlags(ctx, e, c, &p); err != nil {
		return err
	}
	switch {
	case p.Insecure && e.PassphraseFile != "":
		return fault.New(fault.Usage, "--insecure-no-passphrase and --passphrase-file contradict each other")
	case p.Insecure && shared != nil:
		return fault.New(fault.Usage, "%s is shared: an identity stands in it under a passphrase only", shared)
	case p.Hardware() && e.PassphraseFile == "" && shared == nil: // there is nothing to keep
	case p.Insecure:
		e.Console.Warn("the keys are kept in clear: who copies %s can act as %q", e.Home, label)
	case e.PassphraseFile != "":
		if p.Passphrase, err = e.LoadSecretFile(e.PassphraseFile); err == nil {
			err = console.CheckPassphrase(p.Passphrase)
		}
	default:
		p.Passphrase, err = e.Console.NewPassphrase("passphrase for the new identity")
	}
	if err != nil {
		return err
	}
	l, err := e.newLedger(shared)
	if err != nil {
		return err
	}
	defer l.Close()
	_, release, err := l.Claim(ctx, claimIdentity) // two hosts may begin at once
	if err != nil {
		return err
	}
	defer release()
	card, err := e.attended(ctx, store).Create(e.Role, label, p, e.Clock.Now(), Random)
	if err != nil {
		return err
	}
	if _, err := l.Append("keys", "", map[string]string{"label": label, "key": string(card.Fingerprint()), "card": card.Digest().String()}); err != nil {
		return err
	}
	what := "state folder"
	if shared != nil {
		what = "shared state"
	}
	e.Console.Result("init", map[string]any{"home": e.Where(), "role": e.Role, "label": label, "key": card.Fingerprint(), "protected": !p.Passphrase.Empty(), "signsWithAgent": p.Agent != nil, "agePlugin": p.Plugin != nil, "recovery": len(p.Recovery)}, func(w io.Writer) {
		fmt.Fprintf(w, "%s %q is ready\n  %-12s  %s\n  signing key   %s\n  next          %s card --out %s.azc\n", e.Role, label, what, e.Where(), card.Fingerprint(), e.Program, label)
	})
	return nil
}

func cardVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "card", Usage: "print the pairing card of this side",
		Description: "The card holds the public keys and the label, signed by itself. It may travel by any way and holds no secret. " +
			"Its own twelve words are printed beside it, for a peer that pairs before this side has the peer's card. " +
			"It also crosses as QR codes: in the terminal (--qr), in files, on paper or on a page.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "write the card to `FILE` instead of standard output"},
			&cli.BoolFlag{Name: "qr", Usage: "play the codes of the card in the terminal"},
		}, showFlags()...),
		Action: Run(runCard),
	}, Help{Examples: []string{p.Name + " card --out card.azc", p.Name + " card --qr", p.Name + " card --pdf card.pdf"}, Exit: []fault.Kind{fault.Usage, fault.Medium, fault.Locked}})
}

func runCard(ctx context.Context, e *Env, c *cli.Context) error {
	if _, err := Args(c); err != nil {
		return err
	}
	codes, err := readShowing(c)
	if err != nil {
		return err
	}
	if c.Bool("qr") {
		if err := e.CheckShow(); err != nil {
			return err
		}
	}
	s, err := e.Reading()
	if err != nil {
		return err
	}
	text, words := s.Card.Bundle.Text(), trust.CardWords(s.Card)
	out := c.String("out")
	if out != "" {
		if err := medium.Save(out, text, false); err != nil {
			return err
		}
	}
	e.Console.Say("card of %s %q, key %s\nwords of the card: %s", s.Card.Role, s.Card.Label, s.Card.Fingerprint(), words)
	optical := codes.elsewhere() || c.Bool("qr")
	if optical {
		if err := e.show(ctx, s.Card.Bundle, "CARD", codes); err != nil {
			return err
		}
	}
	if e.Console.JSON() || out != "" {
		e.Console.Result("card", map[string]any{"role": s.Card.Role, "label": s.Card.Label, "key": s.Card.Fingerprint(), "recipients": s.Card.Recipients,
			"words": words.String(), "card": string(text), "file": out}, func(w io.Writer) { fmt.Fprintln(w, out) })
		return nil
	}
	if !optical {
		e.Console.Data(text)
	}
	return nil
}

func wordsVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "words", Usage: "print the twelve words of a pair", ArgsUsage: "[CARD]",
		Description: "With the card of the other side, or its rekey: the words of the pair, which are the same on both sides when both hold the same two cards. " +
			"With the own card, or without a card: the words of the own card alone. Nothing is pinned.",
		Action: Run(runWords),
	}, Help{Examples: []string{p.Name + " words card.azc", p.Name + " words"}, Exit: []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Medium, fault.Locked}})
}

func runWords(ctx context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "[CARD]")
	if err != nil {
		return err
	}
	s, err := e.Reading()
	if err != nil {
		return err
	}
	card := s.Card
	if len(args) > 0 {
		if card, err = s.readCard(ctx, args[0]); err != nil {
			return err
		}
	}
	words, of := trust.CardWords(card), "card"
	if card.Digest() != s.Card.Digest() {
		of = "pair"
		if words, err = trust.PairWords(s.Card, card); err != nil {
			return err
		}
	}
	e.Console.Result("words", map[string]any{"of": of, "label": card.Label, "words": words.String()}, func(w io.Writer) { fmt.Fprintln(w, words) })
	return nil
}

// readCard reads a card, or the card that rides inside a request or a rekey.
func (s *Station) readCard(ctx context.Context, path string) (*trust.Card, error) {
	raw, err := s.Env.ReadBundle(path)
	if err != nil {
		return nil, err
	}
	b, err := bundle.Split(raw)
	if err != nil {
		return nil, err
	}
	m, err := b.Peek()
	switch {
	case err == nil && m.Kind == bundle.KindRequest:
		id, err := s.Unlock(ctx)
		if err != nil {
			return nil, err
		}
		return id.CardInside(b)
	case err == nil && m.Kind == bundle.KindRekey:
		return s.cardOfRekey(ctx, b)
	}
	return trust.ReadCard(raw)
}

func pairVerb(p Program) *cli.Command {
	exits := []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Medium, fault.Locked}
	return Describe(&cli.Command{
		Name: "pair", Usage: "pin the other side by its card", ArgsUsage: "[CARD]",
		Description: "Shows the words of the pair with four blanks; the other operator reads those four out and they are typed. " +
			"The other side does the same with its own four. A relay may take the card out of an agent's first request. " +
			"A rekey of a pinned peer is taken without words, because the pinned key signed it. " +
			"--card-words compares the words of the card alone, for an agent whose own card the relay does not have yet.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "expect-words", Usage: "the twelve `WORDS` that the other side printed, for scripts"},
			&cli.BoolFlag{Name: "card-words", Usage: "compare the words of the card instead of the words of the pair"},
			&cli.BoolFlag{Name: "replace", Usage: "replace the card that is pinned under the same label"},
			ScanFlag(),
		},
		Action: Run(runPair),
		Subcommands: []*cli.Command{
			Describe(&cli.Command{Name: "show", Usage: "list the pinned peers", Description: "Lists label, key, pair id, day and words of every pinned peer.", Action: Run(runPairShow)},
				Help{Examples: []string{p.Name + " pair show"}, Exit: []fault.Kind{fault.Locked}}),
			Describe(&cli.Command{Name: "revoke", Usage: "stop believing a peer", ArgsUsage: "LABEL", Description: "Bundles of the peer are refused from now on. Its record is kept in the state folder.", Action: Run(runPairRevoke)},
				Help{Examples: []string{p.Name + " pair revoke site-a"}, Exit: []fault.Kind{fault.Usage, fault.Medium, fault.Locked}}),
			Describe(&cli.Command{Name: "export-signers", Usage: "write an allowed_signers file for a kiosk", ArgsUsage: "FILE",
				Description: "Writes the keys of this side and of every pinned peer in the format of ssh-keygen(1), to FILE or, as -, to standard output.", Action: Run(runExportSigners)},
				Help{Examples: []string{p.Name + " pair export-signers allowed_signers"}, Exit: []fault.Kind{fault.Usage, fault.Medium, fault.Locked}}),
		},
	}, Help{
		Examples: []string{p.Name + " pair card.azc", p.Name + ` pair card.azc --expect-words "abandon ability able about above absent absorb abstract absurd abuse access accident"`, p.Name + " pair --scan page", p.Name + " pair rekey.azc", p.Name + " pair show"},
		Exit:     append(exits, fault.NothingYet),
	})
}

func runPair(ctx context.Context, e *Env, c *cli.Context) (err error) {
	defer func() {
		if e.scan == nil || e.scan.kind == bundle.KindPairing || e.scan.kind == bundle.KindRekey { // a request is still to be registered
			err = e.ScanUsed(err)
		}
	}()
	args, err := Args(c, "[CARD]")
	if err == nil {
		args, err = e.Scanned(ctx, c, args)
	}
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return fault.New(fault.Usage, "pair needs CARD, or --scan").Hint("%s help pair", e.Program)
	}
	s, err := e.Station()
	if err != nil {
		return err
	}
	defer s.Close()
	release, err := s.claimPeers(ctx)
	if err != nil {
		return err
	}
	defer release()
	raw, err := e.ReadBundle(args[0])
	if err != nil {
		return err
	}
	if b, err := bundle.Split(raw); err == nil {
		if m, err := b.Peek(); err == nil && m.Kind == bundle.KindRekey {
			return s.takeRekey(ctx, b)
		}
	}
	card, err := s.readCard(ctx, args[0])
	if err != nil {
		return err
	}
	words, err := trust.PairWords(s.Card, card)
	if err != nil {
		return err
	}
	by := "words of the pair"
	if c.Bool("card-words") {
		words, by = trust.CardWords(card), "words of the card"
	}
	for _, p := range s.Peers {
		if p.Card.Digest() == card.Digest() {
			return s.reportPair(p, true)
		}
		if p.Label() == card.Label && !c.Bool("replace") {
			return fault.New(fault.Usage, "another card is pinned under the label %q since %s, its key is %s, the new one's is %s", card.Label, clock.Format(p.Pinned), p.Card.Fingerprint(), card.Fingerprint()).
				Hint("%s pair %s --replace", e.Program, args[0])
		}
	}
	if err := s.compareWords(words, card, c.String("expect-words")); err != nil {
		return err
	}
	peer, old, err := s.Store.Pin(card, by, e.Clock.Now(), c.Bool("replace"))
	if err != nil {
		return err
	}
	data := map[string]string{"label": card.Label, "key": string(card.Fingerprint()), "pair-id": peer.Pair.String(), "words": words.String(), "by": by}
	if old != nil {
		oldWords, err := trust.PairWords(s.Card, old.Card)
		if err != nil {
			return err
		}
		data["replaced-key"], data["replaced-words"] = string(old.Card.Fingerprint()), oldWords.String()
		e.Console.Say("replaces key %s with the words: %s", old.Card.Fingerprint(), oldWords)
	}
	if _, err := s.Ledger.Append("paired", "", data); err != nil {
		return err
	}
	return s.reportPair(peer, false)
}

// compareWords compares with what the other side printed, or asks for the four
// hidden words, at most three times.
func (s *Station) compareWords(words trust.Words, card *trust.Card, expected string) error {
	e := s.Env
	if expected != "" {
		return words.Expect(expected)
	}
	positions, err := trust.Positions(Random, e.Role)
	if err != nil {
		return err
	}
	e.Console.Say("card of %s %q, key %s\nThe words, to read out to the other operator:\n\n%s\nThe other operator reads the blank ones out.", card.Role, card.Label, card.Fingerprint(), words.Hide(positions))
	misses := 0
	for _, at := range positions {
		for {
			typed, err := e.Console.Ask(fmt.Sprintf("word %d: ", at), `--expect-words "…"`)
			if err != nil {
				return err
			}
			if err = words.Check(at, typed); err == nil {
				break
			}
			if misses++; misses == 3 {
				return err
			}
			e.Console.Say("that is not word %d; the first four letters are enough", at)
		}
	}
	return nil
}

func (s *Station) reportPair(p trust.Peer, already bool) error {
	s.Env.Console.Result("pair", peerView(p, already), func(w io.Writer) {
		was := "is pinned"
		if already {
			was = "was pinned already"
		}
		fmt.Fprintf(w, "%s %q %s\n  key   %s\n  pair  %s\n", p.Card.Role, p.Label(), was, p.Card.Fingerprint(), p.Pair)
	})
	return nil
}

type peerJSON struct {
	Role    string             `json:"role"`
	Label   string             `json:"label"`
	Key     bundle.Fingerprint `json:"key"`
	Pair    string             `json:"pair"`
	Pinned  string             `json:"pinned"`
	By      string             `json:"by"`
	Words   string             `json:"words"`
	Already bool               `json:"already,omitempty"`
}

func peerView(p trust.Peer, already bool) peerJSON {
	words, err := trust.PairWords(p.Own, p.Card)
	if err != nil {
		panic(err) // a peer is pinned by a pair of an agent and a relay
	}
	return peerJSON{p.Card.Role, p.Label(), p.Card.Fingerprint(), p.Pair.String(), clock.Format(p.Pinned), p.By, words.String(), already}
}

func runPairShow(_ context.Context, e *Env, c *cli.Context) error {
	if _, err := Args(c); err != nil {
		return err
	}
	s, err := e.Reading()
	if err != nil {
		return err
	}
	peers := []peerJSON{}
	for _, p := range s.Peers {
		peers = append(peers, peerView(p, false))
	}
	e.Console.Result("peers", map[string]any{"peers": peers}, func(w io.Writer) {
		if len(peers) == 0 {
			fmt.Fprintln(w, "no peer is pinned")
		}
		for _, p := range peers {
			fmt.Fprintf(w, "%s %q\n  key     %s\n  pair    %s\n  pinned  %s by the %s\n  words   %s\n", p.Role, p.Label, p.Key, p.Pair, p.Pinned, p.By, p.Words)
		}
	})
	return nil
}

func runPairRevoke(ctx context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "LABEL")
	if err != nil {
		return err
	}
	s, err := e.Station()
	if err != nil {
		return err
	}
	defer s.Close()
	release, err := s.claimPeers(ctx)
	if err != nil {
		return err
	}
	defer release()
	i := slices.IndexFunc(s.Peers, func(p trust.Peer) bool { return p.Label() == args[0] })
	if i < 0 {
		return fault.New(fault.Usage, "no peer %q is pinned", args[0]).Hint("%s pair show", e.Program)
	}
	p := s.Peers[i]
	if _, err := s.Ledger.Append("revoked", "", map[string]string{"label": p.Label(), "key": string(p.Card.Fingerprint()), "pair-id": p.Pair.String()}); err != nil {
		return err
	}
	if _, err := s.Store.Revoke(p.Label()); err != nil {
		return err
	}
	for _, t := range s.openTrips(s.Card) {
		if t.Data["pair"] == p.Pair.String() {
			e.Console.Warn("trip %s is %s: nothing of %q ends it any more", t.ID, t.State, p.Label())
		}
	}
	e.Console.Result("revoked", peerView(p, false), func(w io.Writer) {
		fmt.Fprintf(w, "%s %q with key %s is no longer believed\n", p.Card.Role, p.Label(), p.Card.Fingerprint())
	})
	return nil
}

func runExportSigners(_ context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "FILE")
	if err != nil {
		return err
	}
	s, err := e.Reading()
	if err != nil {
		return err
	}
	text, err := s.Store.Signers()
	if err != nil {
		return err
	}
	file := args[0]
	if file == "-" && !e.Console.JSON() {
		e.Console.Data(text)
		return nil
	}
	if file != "-" {
		if err := medium.Save(file, text, false); err != nil {
			return err
		}
	}
	e.Console.Result("signers", map[string]any{"file": file, "signers": strings.Count(string(text), "\n"), "text": string(text)}, func(w io.Writer) { fmt.Fprintln(w, file) })
	return nil
}
