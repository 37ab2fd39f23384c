package appkit

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/console"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// evidence is what one side can show about a trip, from its journal, its kept
// bundles and its pinned peers; nothing is opened, so no key is needed and no
// secret can be in it. The same state and clock give the same evidence. Text
// that is foreign went through [console.Clean].
type evidence struct {
	Trip     string         `json:"trip"`
	State    string         `json:"state"`
	Role     string         `json:"role"`
	Label    string         `json:"label"`
	Key      string         `json:"key"`
	Made     string         `json:"made"` // this side's clock
	Program  string         `json:"program"`
	Started  string         `json:"started"`
	Updated  string         `json:"updated"`
	Peer     *evidencePeer  `json:"peer,omitempty"`
	Facts    []field        `json:"facts"`
	Clocks   []string       `json:"clocks"`
	Bundles  []evidenceItem `json:"bundles"`
	Lines    []evidenceLine `json:"lines"`
	Total    int            `json:"journalLines"`
	Head     string         `json:"journalHead"`
	Warnings []string       `json:"warnings"`
	Signers  string         `json:"allowedSigners"` // lines of an allowed_signers file
	Check    []evidenceStep `json:"check"`
}

type evidencePeer struct {
	Label  string `json:"label"`
	Key    string `json:"key"`
	Pair   string `json:"pair"`
	Paired string `json:"paired"` // this side's clock
	By     string `json:"by"`
	Words  string `json:"words"`
	Pinned bool   `json:"pinned"` // still
}

// evidenceItem is a kept bundle of the trip, checked anew when the page is made.
type evidenceItem struct {
	Kind     string   `json:"kind"`
	Bundle   string   `json:"bundle"`
	File     string   `json:"file"`
	FileSHA  string   `json:"fileSha256"`
	Digest   string   `json:"digest"`
	Manifest string   `json:"manifest"`
	Clock    string   `json:"clock"` // whose clock the manifest's times are of
	Sender   string   `json:"sender"`
	Further  []string `json:"further"`
	Standing string   `json:"standing"`

	manifest *bundle.Manifest
	signer   string // as allowed_signers calls the sender
}

// evidenceLine is a line of the journal; its digest is the prev of the next one.
type evidenceLine struct {
	N      uint64 `json:"n"`
	Text   string `json:"text"`
	Digest string `json:"sha256"`
	Gap    uint64 `json:"gap,omitempty"` // lines left out before it
}

// factNames are the data of a trip that a page tells, in this order.
var factNames = [][2]string{
	{"operation", "operation"}, {"cloud-id", "cloud id of the stamp"}, {"stamp-version", "version of the stamp"}, {"nodes", "nodes"},
	{"billing-model", "billing model"}, {"agreement-number", "agreement number"},
	{"expect-subscription", "subscription, as requested"}, {"expect-resource-group", "resource group, as requested"}, {"expect-registration", "registration, as requested"},
	{"registration-id", "registered as"}, {"subscription", "in subscription"}, {"tenant", "in tenant"}, {"object-id", "by the identity"}, {"locked", "lock of the registration is set"},
	{"old-registration-id", "registration before"}, {"move-to", "moved to"},
	{"token-sha256", "SHA-256 of the token"}, {"key-sha256", "SHA-256 of the key"}, {"key-expires", "the key expires"},
	{"answer", "answer"}, {"answer-digest", "digest of the answer"}, {"outcome", "outcome"}, {"applied", "applied, by the agent's clock"},
	{"receipt", "receipt"}, {"agent-journal", "head of the agent's journal, as the receipt says"},
	{"refused-answer", "refused answer"}, {"reason", "reason given last"},
}

// evidenceOf collects the evidence of a trip.
func (s *Station) evidenceOf(t ledger.Trip) (*evidence, error) {
	entries := s.Ledger.Entries()
	ev := &evidence{Trip: t.ID, State: t.State, Role: s.Card.Role, Label: s.Card.Label, Key: string(s.Card.Fingerprint()),
		Made: clock.Format(s.Env.Clock.Now()), Program: s.Env.Program, Started: clock.Format(t.Started), Updated: clock.Format(t.Updated),
		Facts: []field{}, Total: len(entries), Head: s.Ledger.Head(), Warnings: []string{}, Signers: s.Card.SignersLine()}
	for _, f := range factNames {
		if v := t.Data[f[0]]; v != "" {
			ev.Facts = append(ev.Facts, field{f[1], console.Clean(v)})
		}
	}
	names := s.names(entries)
	rule, err := s.Store.Approvers()
	if err != nil {
		return nil, err
	}
	for _, p := range rule.All {
		names[string(bundle.KeyFingerprint(p.Key))] = p.Label
	}
	if rule.Need > 0 {
		ev.Facts = append(ev.Facts, field{"approvals asked for now", fmt.Sprintf("%d of %d", rule.Need, len(rule.All))})
	}
	if err := ev.collect(s, t, names); err != nil {
		return nil, err
	}
	ev.findPeer(s, t.Data["pair"], entries)
	ev.chain(t, entries)
	ev.judgeClocks(s, t, entries)
	if last, back, went := s.Ledger.ClockWentBack(); went {
		ev.Warnings = append(ev.Warnings, fmt.Sprintf("the clock of this side went back by %s: the journal's last entry is of %s", back.Round(time.Second), clock.Format(last)))
	}
	ev.Check = ev.recipe()
	return ev, nil
}

// names tells whose a key is or was, by the pinned peers and the journal.
func (s *Station) names(entries []ledger.Entry) map[string]string {
	names := map[string]string{}
	for _, e := range entries {
		switch e.Event {
		case "keys", "paired", "rekeyed":
			names[e.Data["key"]] = e.Data["label"]
		}
	}
	for _, p := range s.Peers {
		names[string(p.Card.Fingerprint())] = p.Label()
	}
	names[string(s.Card.Fingerprint())] = s.Card.Label
	delete(names, "")
	return names
}

// collect finds the kept bundles of the trip: the request by its id, and what
// answers it or answers the answer. Their signatures and digests are checked.
func (ev *evidence) collect(s *Station, t ledger.Trip, names map[string]string) error {
	kept, err := s.Ledger.KeptNames()
	if err != nil {
		return err
	}
	all := []evidenceItem{}
	for _, name := range kept {
		raw, err := s.Ledger.Kept(name)
		if err != nil {
			return err
		}
		b, err := bundle.Split(raw)
		if err != nil {
			ev.Warnings = append(ev.Warnings, fmt.Sprintf("the kept bundle %q cannot be read: %s", name, console.Clean(err.Error())))
			continue
		}
		m, err := b.Peek()
		if err != nil {
			ev.Warnings = append(ev.Warnings, fmt.Sprintf("the kept bundle %q cannot be read: %s", name, console.Clean(err.Error())))
			continue
		}
		item := evidenceItem{Kind: string(m.Kind), Bundle: m.Bundle.String(), File: name, FileSHA: bundle.Sum(raw).String(), Digest: b.Digest().String(),
			Further: []string{}, Standing: "signature and digest fit", manifest: m}
		item.Manifest, _, _ = strings.Cut(string(b.Text()), "\n\n")
		item.Clock = "agent"
		if m.Kind == bundle.KindAnswer {
			item.Clock = "relay"
		}
		if item.signer = names[string(m.From)]; item.signer == "" {
			item.signer = "SIGNER"
		}
		item.Sender = whose(string(m.From), names)
		if v, err := outside(b); err != nil {
			item.Standing = "DOES NOT FIT: " + console.Clean(err.Error())
			ev.Warnings = append(ev.Warnings, fmt.Sprintf("the kept bundle %q does not fit", name))
		} else {
			for _, k := range v.Signers[1:] {
				item.Further = append(item.Further, whose(string(bundle.KeyFingerprint(k)), names))
			}
		}
		all = append(all, item)
	}
	belongs := map[string]bool{}
	for _, name := range []string{"digest", "answer-digest"} {
		if d := t.Data[name]; d != "" {
			belongs[d] = true
		}
	}
	for _, kind := range []bundle.Kind{bundle.KindRequest, bundle.KindAnswer, bundle.KindReceipt} {
		for _, item := range all {
			m := item.manifest
			if m.Kind != kind || !(m.Bundle.String() == t.ID || belongs[item.Digest] || !m.Re.IsZero() && belongs[m.Re.String()]) {
				continue
			}
			belongs[item.Digest] = true
			ev.Bundles = append(ev.Bundles, item)
		}
	}
	if id := t.Data["answer"]; id != "" && !slices.ContainsFunc(ev.Bundles, func(b evidenceItem) bool { return b.Bundle == id }) {
		ev.Warnings = append(ev.Warnings, fmt.Sprintf("the answer %s is not kept here, so that its signature is not shown: it was used from where it lay", console.Clean(id)))
	}
	if ev.Bundles == nil {
		ev.Bundles = []evidenceItem{}
	}
	return nil
}

func whose(key string, names map[string]string) string {
	if name, ok := names[key]; ok {
		return fmt.Sprintf("%q, key %s", name, key)
	}
	return "key " + key + ", which is not known here"
}

// findPeer tells how the pair of the trip came about.
func (ev *evidence) findPeer(s *Station, pair string, entries []ledger.Entry) {
	for _, e := range entries {
		if (e.Event == "paired" || e.Event == "rekeyed") && pair != "" && e.Data["pair-id"] == pair {
			by := e.Data["by"]
			if e.Event == "rekeyed" {
				by = "bundle that the former key signed"
			}
			ev.Peer = &evidencePeer{Label: console.Clean(e.Data["label"]), Key: e.Data["key"], Pair: pair, Paired: clock.Format(e.Time), By: by, Words: e.Data["words"]}
		}
	}
	for _, p := range s.Peers {
		id, err := bundle.ParseID(pair)
		if err != nil {
			return
		}
		if in, ok := p.In(id); ok {
			if ev.Peer == nil {
				ev.Peer = &evidencePeer{Label: in.Label(), Key: string(in.Card.Fingerprint()), Pair: pair, Paired: clock.Format(in.Pinned), By: in.By}
			}
			if words, err := trust.PairWords(in.Own, in.Card); err == nil && ev.Peer.Words == "" {
				ev.Peer.Words = words.String()
			}
			ev.Peer.Pinned = true
			ev.Signers += in.Card.SignersLine()
		}
	}
}

// chain takes the lines of the journal that tell of the trip: its own, those that
// name one of its bundles, and that of its pair.
func (ev *evidence) chain(t ledger.Trip, entries []ledger.Entry) {
	ids := []string{t.ID}
	for _, b := range ev.Bundles {
		ids = append(ids, b.Bundle)
	}
	ev.Lines = []evidenceLine{}
	var last uint64
	for _, e := range entries {
		pairing := ev.Peer != nil && (e.Event == "paired" || e.Event == "rekeyed" || e.Event == "revoked") && e.Data["pair-id"] == ev.Peer.Pair
		if e.Trip != t.ID && !slices.Contains(ids, e.Data["bundle"]) && !pairing && e.N != 1 && e.N != uint64(len(entries)) {
			continue
		}
		line := e.Line()
		sum := sha256.Sum256(line)
		ev.Lines = append(ev.Lines, evidenceLine{e.N, console.Clean(strings.TrimSuffix(string(line), "\n")), hex.EncodeToString(sum[:]), e.N - last - 1})
		last = e.N
	}
}

// judgeClocks bounds how far the clocks were apart, from what crossed: a bundle
// comes after it left. Of d = relay − agent, the request gives an upper bound
// and the answer a lower one. The times are whole seconds, so that each bound is
// a second wider than their difference.
func (ev *evidence) judgeClocks(s *Station, t ledger.Trip, entries []ledger.Entry) {
	ev.Clocks = []string{fmt.Sprintf("The lines of the journal and the time of this page are of the clock of the %s %q. The times in a manifest are of its sender's clock. Neither clock was compared with a third one.", ev.Role, ev.Label)}
	var request, answer, receipt *bundle.Manifest
	for _, b := range ev.Bundles {
		switch b.manifest.Kind {
		case bundle.KindRequest:
			request = b.manifest
		case bundle.KindAnswer:
			answer = b.manifest
		case bundle.KindReceipt:
			receipt = b.manifest
		}
	}
	here := func(m *bundle.Manifest, states ...string) (at time.Time) {
		for _, e := range entries {
			if e.Data["bundle"] == m.Bundle.String() && (e.Event == "took" || e.Event == "scanned") || e.Trip == t.ID && slices.Contains(states, e.Event) {
				return e.Time
			}
		}
		return time.Time{}
	}
	var requestCame, answerCame time.Time // the first by the relay's clock, the second by the agent's
	if ev.Role == bundle.RoleAgent {
		if answer != nil {
			requestCame, answerCame = answer.Created, here(answer, ledger.Admitted)
		}
	} else {
		if request != nil {
			requestCame = here(request, ledger.Seen)
		}
		if at, err := clock.Parse(t.Data["applied"]); err == nil {
			answerCame = at
		} else if receipt != nil {
			answerCame = receipt.Created
		}
	}
	upper, lower := "", ""
	var most, least time.Duration
	if request != nil && !requestCame.IsZero() {
		most = requestCame.Sub(request.Created) + time.Second
		upper = fmt.Sprintf("at most %s, because the request left at %s by the agent's clock and had come at %s by the relay's", most, clock.Format(request.Created), clock.Format(requestCame))
	}
	if answer != nil && !answerCame.IsZero() {
		least = answer.Created.Sub(answerCame) - time.Second
		lower = fmt.Sprintf("at least %s, because the answer left at %s by the relay's clock and had come at %s by the agent's", least, clock.Format(answer.Created), clock.Format(answerCame))
	}
	switch {
	case upper == "" && lower == "":
		ev.Clocks = append(ev.Clocks, "Relay − agent: nothing is known yet, because no bundle has come back.")
		return
	case upper != "" && lower != "" && least > most:
		ev.Warnings = append(ev.Warnings, "the times contradict each other: one of the clocks was set during the trip")
	}
	for _, bound := range []string{lower, upper} {
		if bound != "" {
			ev.Clocks = append(ev.Clocks, "Relay − agent: "+bound+".")
		}
	}
}

//go:embed evidence.html
var evidencePage string

//go:embed evidence.css
var evidenceStyle string

var evidenceTemplate = template.Must(template.New("evidence").Parse(evidencePage))

// html writes the page: one file, no script, nothing that is loaded, and a policy
// that allows its own style sheet by digest and nothing else.
func (ev *evidence) html(w io.Writer) error {
	sum := sha256.Sum256([]byte(evidenceStyle))
	return evidenceTemplate.Execute(w, struct {
		*evidence
		Style  template.CSS
		Policy string
	}{ev, template.CSS(evidenceStyle), "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"})
}

// evidenceWidth is what a line of a printed A4 page holds, in characters.
const evidenceWidth = 80

// text writes the same for a terminal and for a line printer.
func (ev *evidence) text(w io.Writer) {
	row := func(name, value string) {
		if value != "" {
			hang(w, fmt.Sprintf("  %-13s ", name), value)
		}
	}
	head := func(s string) { fmt.Fprintf(w, "\n%s\n", strings.ToUpper(s)) }
	fmt.Fprintf(w, "EVIDENCE OF TRIP %s\n", ev.Trip)
	row("state", ev.State)
	row("begun", ev.Started)
	row("last line", ev.Updated)
	row("this side", fmt.Sprintf("%s %q", ev.Role, ev.Label))
	row("its key", ev.Key)
	row("page made", ev.Made+" by "+ev.Program)
	for _, warning := range ev.Warnings {
		row("WARNING", warning)
	}
	if p := ev.Peer; p != nil {
		head("the pair")
		row("other side", fmt.Sprintf("%q", p.Label))
		row("its key", p.Key)
		row("pair", p.Pair)
		row("paired", p.Paired+" by the "+p.By)
		row("words", p.Words)
		if !p.Pinned {
			row("now", "no longer pinned")
		}
	}
	head("what it was about")
	for _, f := range ev.Facts {
		if name := "  " + f.Name + ": "; len([]rune(name+f.Value)) <= evidenceWidth {
			hang(w, name, f.Value)
		} else {
			fmt.Fprintln(w, strings.TrimRight(name, " "))
			hang(w, "      ", f.Value)
		}
	}
	head("clocks")
	for _, c := range ev.Clocks {
		for _, line := range fold(c, evidenceWidth-2) {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
	head("bundles, checked when this page was made")
	for _, b := range ev.Bundles {
		fmt.Fprintf(w, "\n  %s %s\n", b.Kind, b.Bundle)
		row("standing", b.Standing)
		row("signed by", b.Sender)
		for _, f := range b.Further {
			row("and by", f)
		}
		row("times of", "the "+b.Clock+"'s clock")
		row("kept as", b.File)
		row("file SHA-256", b.FileSHA)
		row("digest", b.Digest)
		for _, line := range strings.Split(b.Manifest, "\n") {
			hang(w, "    | ", line)
		}
	}
	if len(ev.Bundles) == 0 {
		fmt.Fprintln(w, "  none is kept")
	}
	head("journal")
	for _, l := range ev.Lines {
		if l.Gap > 0 {
			fmt.Fprintf(w, "  … %d left out, of other things\n", l.Gap)
		}
		hang(w, fmt.Sprintf("%5d  ", l.N), l.Text)
		hang(w, "       ", "SHA-256 "+l.Digest)
	}
	fmt.Fprintf(w, "  %d lines in all, head %s\n", ev.Total, ev.Head)
	head("how to check it")
	for _, step := range ev.Check {
		if step.Why != "" {
			for _, line := range fold(step.Why, evidenceWidth-2) {
				fmt.Fprintf(w, "  %s\n", line)
			}
		}
		if step.Command != "" {
			for _, line := range strings.Split(step.Command, "\n") {
				hang(w, "    ", line)
			}
		}
	}
}

// hang prints a value behind a name, cut into lines that fit a page, at a space
// if there is one in the last third.
func hang(w io.Writer, name, value string) {
	room := evidenceWidth - len([]rune(name))
	rest := []rune(value)
	for first := true; first || len(rest) > 0; first = false {
		cut := min(room, len(rest))
		for at := cut; cut < len(rest) && at > 2*room/3; at-- {
			if rest[at-1] == ' ' {
				cut = at
				break
			}
		}
		fmt.Fprintf(w, "%s%s\n", name, strings.TrimRight(string(rest[:cut]), " "))
		rest, name = rest[cut:], strings.Repeat(" ", evidenceWidth-room)
	}
}

// evidenceStep is one thing that the officer does with standard tools, in the
// state folder or a copy of it.
type evidenceStep struct {
	Why     string `json:"why"`
	Command string `json:"command"`
}

// recipe checks the page. Its commands fit a line of paper.
func (ev *evidence) recipe() []evidenceStep {
	steps := []evidenceStep{
		{"In the state folder or a copy of it. The journal: its last line has the head as its digest, and each line the digest that the next one names as prev.",
			fmt.Sprintf("sed -n %dp journal.jsonl | sha256sum\n# %s", ev.Total, ev.Head)},
		{"The keys: compare the fingerprints with what the operators read out, by another way than this page. The lines belong into a file allowed_signers:",
			strings.TrimSuffix(ev.Signers, "\n")},
		{"", "sed 's/^[^ ]* [^ ]* //' allowed_signers | ssh-keygen -l -f -"},
	}
	for _, b := range ev.Bundles {
		file := "bundles/" + b.File
		steps = append(steps, evidenceStep{fmt.Sprintf("The %s: the file, its eleven signed lines, and the signature over them.", b.Kind),
			fmt.Sprintf("sha256sum %s\n# %s\n", file, b.FileSHA) +
				fmt.Sprintf("sed '/^$/,$d' %s >manifest\nsha256sum manifest\n# %s\n", file, b.Digest) +
				fmt.Sprintf("sed '1,/^$/d;/^-----END/q' %s >sig\n", file) +
				fmt.Sprintf("ssh-keygen -Y verify -n %s -I %s \\\n    -f allowed_signers -s sig <manifest", bundle.Namespace, b.signer)})
	}
	return append(steps, evidenceStep{"That the sealed part is the signed one, and that nothing stands beside: docs/KIOSK.md has the whole check of a bundle, for Linux and Windows.", ""})
}
