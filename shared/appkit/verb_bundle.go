package appkit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/trust"
)

func inspectVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "inspect", Usage: "show the cover sheet of a bundle", ArgsUsage: "BUNDLE",
		Description: "Shows what the outside says and whether its signatures fit. A bundle from a pinned peer for this side is " +
			"opened too; the token or key in it is never shown, only its length and digest. Nothing is changed.",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "outside", Usage: "do not open the bundle, ask for no passphrase"}},
		Action: Run(runInspect),
	}, Help{Examples: []string{p.Name + " inspect request.azc", p.Name + " inspect request.azc --outside"}, Exit: []fault.Kind{fault.Usage, fault.Refused, fault.Medium, fault.Locked}})
}

// cover is the outside of a bundle, for people and for JSON.
type cover struct {
	Kind     bundle.Kind        `json:"kind"`
	Bundle   string             `json:"bundle"`
	Pair     string             `json:"pair,omitempty"`
	Seq      uint64             `json:"seq"`
	From     bundle.Fingerprint `json:"from"`
	To       bundle.Fingerprint `json:"to,omitempty"`
	Re       string             `json:"re,omitempty"`
	Created  string             `json:"created"`
	Expires  string             `json:"expires"`
	Size     int64              `json:"size"`
	SHA256   string             `json:"sha256"`
	Digest   string             `json:"digest"`
	Text     int                `json:"textBytes"`
	Wire     int                `json:"wireBytes"`
	Signers  []string           `json:"signers,omitempty"`
	Approved []string           `json:"approvedBy,omitempty"` // labels of approvers that are pinned here, else fingerprints
	Standing string             `json:"standing"`
	Inside   []field            `json:"inside,omitempty"`
}

type field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func coverOf(b *bundle.Bundle) (*bundle.Manifest, *cover, error) {
	m, err := b.Peek()
	if err != nil {
		return nil, nil, fault.New(fault.Refused, "%w", err)
	}
	c := &cover{Kind: m.Kind, Bundle: m.Bundle.String(), Seq: m.Seq, From: m.From, To: m.To,
		Created: clock.Format(m.Created), Expires: clock.Format(m.Expires), Size: m.Size, SHA256: m.SHA256.String(),
		Digest: b.Digest().String(), Text: len(b.Text()), Wire: len(b.Wire())}
	if !m.Pair.IsZero() {
		c.Pair = m.Pair.String()
	}
	if !m.Re.IsZero() {
		c.Re = m.Re.String()
	}
	return m, c, nil
}

func (c *cover) print(w io.Writer) {
	row := func(name string, value any) {
		if s := fmt.Sprint(value); s != "" {
			fmt.Fprintf(w, "  %-10s %s\n", name, s)
		}
	}
	fmt.Fprintf(w, "%s %s\n", c.Kind, c.Bundle)
	row("standing", c.Standing)
	for _, f := range c.rows() {
		row(f.Name, f.Value)
	}
	if len(c.Inside) > 0 {
		fmt.Fprintln(w, "inside")
	}
	for _, f := range c.Inside {
		fmt.Fprintf(w, "  %-24s %q\n", f.Name, f.Value)
	}
}

// outside verifies a bundle as far as anybody can who is not its receiver: every
// signature fits, the first signer is the sender that the manifest names, and the
// sealed bytes are the signed ones.
func outside(b *bundle.Bundle) (*bundle.Verified, error) {
	keys, err := b.Signers()
	if err != nil {
		return nil, err
	}
	m, err := b.Peek()
	if err != nil {
		return nil, fault.New(fault.Refused, "%w", err)
	}
	// The addresses are the bundle's own: whom it is for is not the question here.
	return b.Verify(bundle.Expect{Signer: keys[0], Pair: m.Pair, To: m.To, Kinds: []bundle.Kind{m.Kind}})
}

// sheetOf verifies a bundle by its outside and returns its cover with the signers.
func sheetOf(b *bundle.Bundle) (*bundle.Verified, *cover, error) {
	_, sheet, err := coverOf(b)
	if err != nil {
		return nil, nil, err
	}
	v, err := outside(b)
	if err != nil {
		return nil, nil, err
	}
	approvers := v.Approvers()
	for _, k := range v.Signers[:len(v.Signers)-len(approvers)] {
		sheet.Signers = append(sheet.Signers, ssh.FingerprintSHA256(k))
	}
	for _, k := range approvers {
		sheet.Approved = append(sheet.Approved, ssh.FingerprintSHA256(k))
	}
	return v, sheet, nil
}

func runInspect(ctx context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "BUNDLE")
	if err != nil {
		return err
	}
	raw, err := e.ReadBundle(args[0])
	if err != nil {
		return err
	}
	b, err := bundle.Split(raw)
	if err != nil {
		return err
	}
	v, sheet, err := sheetOf(b)
	if err != nil {
		return err
	}
	if v.Manifest.Kind == bundle.KindPairing {
		card, err := trust.ReadCard(raw)
		if err != nil {
			return err
		}
		sheet.Standing = "a card: signed by itself; the words decide whose it is"
		sheet.Inside = []field{{"role", card.Role}, {"label", card.Label}, {"words of the card", trust.CardWords(card).String()}}
	} else if err := e.standing(ctx, b, sheet, !c.Bool("outside")); err != nil {
		return err
	}
	e.Console.Result("cover", sheet, sheet.print)
	return nil
}

// standing says what the bundle is to this side, and opens it if it may.
func (e *Env) standing(ctx context.Context, b *bundle.Bundle, sheet *cover, open bool) error {
	s, err := e.Reading()
	if err != nil {
		sheet.Standing = "signatures fit; this side has no identity to compare with"
		return nil
	}
	for _, p := range s.Policy.All {
		if i := slices.Index(sheet.Approved, ssh.FingerprintSHA256(p.Key)); i >= 0 {
			sheet.Approved[i] = p.Label
		}
	}
	peer, v, err := trust.Verify(s.Card, s.Peers, b, sheet.Kind)
	if err != nil {
		sheet.Standing = "signatures fit; not for this side: " + err.Error()
		return nil
	}
	sheet.Standing = fmt.Sprintf("signed by the pinned peer %q, for this side", peer.Label())
	if !open {
		return nil
	}
	id, err := s.Unlock(ctx)
	if err != nil {
		return err
	}
	body, err := id.Open(v)
	if err != nil {
		return err
	}
	if sheet.Kind == bundle.KindRekey {
		card, err := id.NewCard(peer, v)
		if err != nil {
			return err
		}
		words, err := trust.PairWords(s.Card, card)
		if err != nil {
			return err
		}
		sheet.Inside = []field{{"role", card.Role}, {"label", card.Label}, {"new key", string(card.Fingerprint())}, {"words of the pair", words.String()}}
		return nil
	}
	for _, f := range bundle.Fields(body.Content) {
		sheet.Inside = append(sheet.Inside, field(f))
	}
	payload, err := body.Payload()
	if err != nil {
		return fault.New(fault.Refused, "%w", err)
	}
	sheet.Inside = append(sheet.Inside, field{"payload", fmt.Sprintf("%d bytes, SHA-256 %s, %s", len(payload), bundle.Sum(payload), body.Encoding)})
	return nil
}

func verifyVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "verify", Usage: "check who sent bundles, without any key", ArgsUsage: "BUNDLE…",
		Description: "For the transfer kiosk: checks signatures, sender and digest against an allowed_signers file " +
			"(see pair export-signers), or against the pinned peers when no file is given. It cannot open a bundle. " +
			"With --admit each good bundle is written anew, in its one spelling, into a folder, is read back, and gets a record " +
			"beside it, which --record-key signs in the namespace " + AdmissionNamespace + ". What is refused is not written. " +
			"The record is for the kiosk's book: neither side reads it.",
		Flags: []cli.Flag{&cli.StringFlag{Name: "signers", Usage: "allowed_signers `FILE`, as ssh-keygen(1) reads it"},
			&cli.StringFlag{Name: "admit", Usage: "write the good bundles and their records into `DIR`"},
			&cli.StringFlag{Name: "record-key", Usage: "sign the records with the SSH key in `FILE`; of a .pub file the ssh-agent holds the key"}},
		Action: Run(runVerify),
	}, Help{Examples: []string{p.Name + " verify request.azc --signers allowed_signers",
		p.Name + " verify request.azc --signers allowed_signers --admit /media/inside --record-key kiosk_key"},
		Exit: []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Medium, fault.Locked}})
}

type verdict struct {
	File   string `json:"file"`
	Good   bool   `json:"good"`
	Sender string `json:"sender,omitempty"`
	Kind   string `json:"kind,omitempty"`
	Bundle string `json:"bundle,omitempty"`
	Digest string `json:"digest,omitempty"`
	Size   int    `json:"size,omitempty"`
	Record string `json:"record,omitempty"`
	Error  string `json:"error,omitempty"`
}

func runVerify(ctx context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "BUNDLE…")
	if err != nil {
		return err
	}
	signers, err := e.signers(c.String("signers"))
	if err != nil {
		return err
	}
	var recorder ssh.Signer
	if file := c.String("record-key"); file != "" {
		if c.String("admit") == "" {
			return fault.New(fault.Usage, "--record-key signs what --admit records, and there is no --admit").Hint("%s help verify", e.Program)
		}
		if recorder, err = recordSigner(ctx, file); err != nil {
			return err
		}
	}
	verdicts := []verdict{}
	var failed error
	for _, path := range args {
		v, b, a, err := e.verifyOne(path, signers)
		if dir := c.String("admit"); err == nil && dir != "" {
			v.Record, err = a.admit(dir, b, recorder)
			v.Good = err == nil
		}
		if err != nil {
			v.Error = err.Error()
			failed = err
		}
		verdicts = append(verdicts, v)
	}
	e.Console.Result("verify", map[string]any{"bundles": verdicts}, func(w io.Writer) {
		for _, v := range verdicts {
			if v.Good {
				fmt.Fprintf(w, "good     %q: %s %s from %q, digest %s\n", v.File, v.Kind, v.Bundle, v.Sender, v.Digest)
				if v.Record != "" {
					fmt.Fprintf(w, "admitted %q\n", v.Record)
				}
			} else {
				fmt.Fprintf(w, "REFUSED  %q: %s\n", v.File, v.Error)
			}
		}
	})
	return failed
}

// verifyOne checks a bundle and says what a record of it would say; who reads it
// twice may read two bundles, so that what it checked is what it returns.
func (e *Env) verifyOne(path string, signers []signer) (v verdict, b *bundle.Bundle, a admission, err error) {
	v = verdict{File: path}
	raw, err := e.ReadBundle(path)
	if err != nil {
		return v, nil, a, err
	}
	if b, err = bundle.Split(raw); err != nil {
		return v, nil, a, err
	}
	ver, err := outside(b)
	if err != nil {
		return v, nil, a, err
	}
	m := ver.Manifest
	for _, s := range signers {
		if bytes.Equal(s.key.Marshal(), ver.Signers[0].Marshal()) {
			v = verdict{File: path, Good: true, Sender: s.name, Kind: string(m.Kind), Bundle: m.Bundle.String(), Digest: b.Digest().String(), Size: len(raw)}
			a = admission{Name: medium.Name(string(m.Kind), m.Bundle.String()), Manifest: b.Digest(), Kind: m.Kind, Bundle: m.Bundle,
				Sender: s.name, Key: m.From, Further: len(ver.Signers) - 1, Admitted: e.Clock.Now()}
			return v, b, a, nil
		}
	}
	return v, nil, a, fault.New(fault.NotForUs, "bundle %s is signed by %s, which is not among the allowed signers", m.Bundle, m.From)
}

type signer struct {
	name string
	key  ssh.PublicKey
}

// signers reads the allowed keys from a file, or takes our own and the pinned.
func (e *Env) signers(file string) ([]signer, error) {
	if file == "" {
		s, err := e.Reading()
		if err != nil {
			return nil, fault.New(fault.Usage, "verify needs the allowed signers, and there is no state folder to take them from").Hint("%s verify BUNDLE --signers allowed_signers", e.Program)
		}
		out := []signer{{s.Card.Label, s.Card.Key}}
		for _, p := range s.Peers {
			out = append(out, signer{p.Label(), p.Card.Key})
		}
		return out, nil
	}
	raw, err := medium.ReadText(file, 1<<20)
	if err != nil {
		return nil, err
	}
	var out []signer
	for n, line := range strings.Split(string(raw), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		names, rest, _ := strings.Cut(line, " ")
		key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
		if err != nil {
			return nil, fault.New(fault.Usage, "line %d of %q is not a line of an allowed_signers file", n+1, file)
		}
		if !allowed(options) {
			continue
		}
		out = append(out, signer{names, key})
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Usage, "%q names no key that may sign in the namespace %s", file, bundle.Namespace)
	}
	return out, nil
}

// allowed reads the options of an allowed_signers line: the namespaces must hold
// ours, and what this program does not understand allows nothing.
func allowed(options []string) bool {
	for _, o := range options {
		list, ok := strings.CutPrefix(o, "namespaces=")
		if !ok {
			return false
		}
		found := false
		for _, ns := range strings.Split(strings.Trim(list, `"`), ",") {
			found = found || ns == bundle.Namespace
		}
		if !found {
			return false
		}
	}
	return true
}

func putVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "put", Usage: "write a bundle to a stick or folder", ArgsUsage: "BUNDLE DIR",
		Description: "Checks the bundle, writes it under its own short name, syncs, reads it back and compares. " +
			"BUNDLE is a path, or the name of a bundle in the state folder.",
		Action: Run(runPut),
	}, Help{Examples: []string{p.Name + " put request.azc /media/stick"}, Exit: []fault.Kind{fault.Usage, fault.Refused, fault.Medium}})
}

func runPut(_ context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "BUNDLE", "DIR")
	if err != nil {
		return err
	}
	raw, err := e.ReadBundle(args[0])
	if err != nil {
		return err
	}
	b, err := bundle.Split(raw)
	if err != nil {
		return err
	}
	v, err := outside(b)
	if err != nil {
		return err
	}
	m := v.Manifest
	r, err := medium.Put(args[1], medium.Name(string(m.Kind), m.Bundle.String()), b.Text())
	if err != nil {
		return err
	}
	if err := e.noteExport("put", m, b, r.Path); err != nil {
		return err
	}
	e.Console.Result("put", map[string]any{"path": r.Path, "size": r.Size, "sha256": r.SHA256, "already": r.Already}, func(w io.Writer) {
		fmt.Fprintf(w, "%s  %d bytes  SHA-256 %s\nread back and equal: safe to remove\n", r.Path, r.Size, r.SHA256)
	})
	return nil
}

// noteExport journals that one of our own bundles left on a medium ("put") or as
// codes ("shown"); of a request that had not left yet, that it has. Somebody
// else's bundle, or a machine without a state folder, has nothing to note.
func (e *Env) noteExport(event string, m *bundle.Manifest, b *bundle.Bundle, to string) error {
	view, err := e.Reading()
	if err != nil || bundle.KeyFingerprint(view.Card.Key) != m.From || m.Kind == bundle.KindPairing {
		return nil
	}
	s, err := e.Station()
	if err != nil {
		return err
	}
	defer s.Close()
	trip := ""
	digest := b.Digest().String()
	t, ok := s.Ledger.FindByDigest(digest)
	for _, other := range s.Ledger.Trips() {
		if !ok && other.Data["answer-digest"] == digest { // the relay's own answer
			t, ok = other, true
		}
	}
	if ok {
		trip = t.ID
		if t.State == ledger.Requested || t.State == ledger.Exported {
			event = ledger.Exported
		}
	}
	_, err = s.Ledger.Append(event, trip, map[string]string{"to": ledger.Clean(to), "bundle": m.Bundle.String()})
	return err
}

func takeVerb(p Program, side Side) *cli.Command {
	return Describe(&cli.Command{
		Name: "take", Usage: "read the bundles from a stick or folder", ArgsUsage: "DIR",
		Description: "Reads the top folder, keeps what is from a pinned peer, for this side and not used yet, and names the next command. " +
			"What is foreign, damaged or used is named with the reason and left alone.",
		Action: Run(func(ctx context.Context, e *Env, c *cli.Context) error { return runTake(ctx, e, c, side) }),
	}, Help{Examples: []string{p.Name + " take /media/stick"}, Exit: []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Replay, fault.Medium, fault.NothingYet, fault.Partial}})
}

// taken is what became of one file on a medium.
type taken struct {
	Name   string `json:"name"`
	Kind   string `json:"kind,omitempty"`
	Bundle string `json:"bundle,omitempty"`
	Path   string `json:"path,omitempty"`
	Next   string `json:"next,omitempty"`
	Error  string `json:"error,omitempty"`
}

func runTake(ctx context.Context, e *Env, c *cli.Context, side Side) error {
	args, err := Args(c, "DIR")
	if err != nil {
		return err
	}
	dir := args[0]
	entries, skipped, err := medium.Take(dir)
	if err != nil {
		return err
	}
	s, err := e.Station()
	if err != nil {
		return err
	}
	defer s.Close()
	all := []taken{}
	var refused error
	good, bad := 0, 0
	for _, sk := range skipped {
		all = append(all, taken{Name: sk.Name, Error: sk.Reason.Error()})
		refused = fault.New(fault.Medium, "%s", sk)
		bad++
	}
	for _, entry := range entries {
		t, err := s.take(ctx, entry, side, "took")
		if err != nil {
			t.Error = err.Error()
			refused = err
			if fault.KindOf(err) != fault.NotForUs { // a stick may serve several sites
				bad++
			}
		} else {
			good++
		}
		all = append(all, t)
	}
	e.Console.Result("take", map[string]any{"dir": dir, "files": all}, func(w io.Writer) {
		for _, t := range all {
			switch {
			case t.Error != "":
				fmt.Fprintf(w, "left   %q: %s\n", t.Name, t.Error)
			case t.Next != "":
				fmt.Fprintf(w, "taken  %q: %s %s\n       next: %s\n", t.Name, t.Kind, t.Bundle, t.Next)
			default:
				fmt.Fprintf(w, "taken  %q: %s %s\n", t.Name, t.Kind, t.Bundle)
			}
		}
	})
	switch {
	case len(all) == 0:
		return fault.New(fault.NothingYet, "folder %q holds no bundle", dir)
	case good == 0:
		return refused
	case bad > 0:
		return fault.New(fault.Partial, "%d of %d bundles were taken; the last refusal: %w", good, len(all), refused)
	}
	return nil
}

// keep keeps a verified bundle and returns the name of its file. A copy that differs
// from the kept one by its approvals is no other bundle: one that brings none changes
// nothing, one that brings some is kept beside it, with the approvals of both.
func (s *Station) keep(name string, b *bundle.Bundle) (string, error) {
	err := s.Ledger.Keep(name, b.Text())
	if fault.KindOf(err) != fault.Refused {
		return name, err
	}
	raw, rerr := s.Ledger.Kept(name)
	if rerr != nil {
		return "", rerr
	}
	kept, serr := bundle.Split(raw)
	if serr != nil || kept.Digest() != b.Digest() {
		return "", err
	}
	more, err := kept.WithApprovalsOf(b)
	if err != nil || more == kept {
		return name, err
	}
	sum := sha256.Sum256(more.Text())
	name = fmt.Sprintf("%s-%x%s", strings.TrimSuffix(name, medium.Suffix), sum[:4], medium.Suffix)
	return name, s.Ledger.Keep(name, more.Text())
}

// KeptAs returns how an operator names the kept copy of a bundle, the one with
// approvals where there are several; where none is kept, the word that help pages
// use: REQUEST, ANSWER.
func (s *Station) KeptAs(kind bundle.Kind, id string) string {
	stem := strings.TrimSuffix(medium.Name(string(kind), id), medium.Suffix)
	names, err := s.Ledger.KeptNames()
	for _, name := range names { // a copy with more approvals comes first: "-" before "."
		if rest, ok := strings.CutPrefix(name, stem); err == nil && ok && (rest[0] == '-' || rest == medium.Suffix) {
			return s.Path(name)
		}
	}
	return strings.ToUpper(string(kind))
}

// Taken is a bundle that came in and is kept.
type Taken struct {
	Path     string // as an operator names it
	Manifest *bundle.Manifest
}

// taken returns the bundles of the kinds that came in, the newest first.
func (s *Station) taken(kinds []bundle.Kind) []Taken {
	var all []Taken
	seen := map[string]bool{}
	for _, e := range slices.Backward(s.Ledger.Entries()) {
		kind, id := bundle.Kind(e.Data["kind"]), e.Data["bundle"]
		if e.Event != "took" && e.Event != "scanned" || seen[id] || !slices.Contains(kinds, kind) {
			continue
		}
		seen[id] = true
		path := s.KeptAs(kind, id)
		raw, err := s.Ledger.Kept(filepath.Base(path))
		if err != nil {
			continue
		}
		b, err := bundle.Split(raw)
		if err != nil {
			continue
		}
		if m, err := b.Peek(); err == nil {
			all = append(all, Taken{path, m})
		}
	}
	return all
}

// take keeps a bundle that is from a pinned peer, for this side and not used yet,
// and notes how it came: "took" or "scanned".
func (s *Station) take(ctx context.Context, entry medium.Entry, side Side, event string) (taken, error) {
	t := taken{Name: entry.Name}
	b, err := bundle.Split(entry.Data)
	if err != nil {
		return t, err
	}
	peer, v, err := trust.Verify(s.Card, s.Peers, b, append(slices.Clone(side.Takes), bundle.KindRekey)...)
	if err != nil {
		return t, err
	}
	t.Kind, t.Bundle = string(v.Manifest.Kind), v.Manifest.Bundle.String()
	rekey := v.Manifest.Kind == bundle.KindRekey
	if !rekey {
		if err := side.Usable(s, v, b); err != nil {
			return t, err
		}
	}
	name, err := s.keep(medium.Name(t.Kind, t.Bundle), b)
	if err != nil {
		return t, err
	}
	if _, err := s.Ledger.Append(event, "", map[string]string{"bundle": t.Bundle, "kind": t.Kind, "peer": peer.Label(), "digest-taken": b.Digest().String()}); err != nil {
		return t, err
	}
	t.Path = s.Path(name)
	if rekey {
		t.Next = fmt.Sprintf("%s pair %s", s.Env.Program, t.Path)
		return t, nil
	}
	t.Next, err = side.Took(ctx, s, v, b, t.Path)
	return t, err
}
