package appkit_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// station is a program of one side with the verbs that both have.
func station(role string) appkit.Program {
	p := appkit.Program{Name: "azs-" + role, Usage: "one side", Description: "One side.", Role: role}
	takes := bundle.KindAnswer
	if role == bundle.RoleRelay {
		takes = bundle.KindRequest
	}
	p.Verbs = appkit.CommonVerbs(p, appkit.Side{
		Takes: []bundle.Kind{takes},
		Usable: func(s *appkit.Station, v *bundle.Verified, _ *bundle.Bundle) error {
			if v.Manifest.Seq == 13 {
				return fault.New(fault.Replay, "bundle %s was used", v.Manifest.Bundle)
			}
			return nil
		},
		Took: func(_ context.Context, _ *appkit.Station, _ *bundle.Verified, _ *bundle.Bundle, path string) (string, error) {
			return p.Name + " use " + filepath.Base(path), nil
		},
		Next: func(_ *appkit.Station, t ledger.Trip) (appkit.Advice, bool) {
			return appkit.Advice{Why: "it waits", Command: p.Name + " go on " + t.ID}, t.State == ledger.Requested
		},
		Idle: p.Name + " begin",
		Line: func(_ *ledger.Ledger, t ledger.Trip) string { return "trip of " + t.Data["of"] },
	})
	return p
}

// side is a state folder that verbs run in.
type side struct {
	t          *testing.T
	role, home string
}

func (s side) run(args ...string) ran {
	s.t.Helper()
	var out, err bytes.Buffer
	code := appkit.Main(station(s.role), append([]string{"--home", s.home}, args...), strings.NewReader(""), &out, &err)
	return ran{out.String(), err.String(), code}
}

// must runs a verb that has to end with the exit code, and to say each text.
func (s side) must(code fault.Kind, args []string, texts ...string) ran {
	s.t.Helper()
	got := s.run(args...)
	if got.Exit != int(code) {
		s.t.Fatalf("azs-%s %q: exit code %d, want %d: %s%s", s.role, args, got.Exit, code, got.Out, got.Err)
	}
	for _, text := range texts {
		if !strings.Contains(got.Out+got.Err, text) {
			s.t.Errorf("azs-%s %q lacks %q: %s%s", s.role, args, text, got.Out, got.Err)
		}
	}
	return got
}

func (s side) identity() *trust.Identity {
	s.t.Helper()
	id, err := trust.At(s.home).Unlock(func() (secret.Text, error) { return secret.Text{}, nil })
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s side) peer() trust.Peer {
	s.t.Helper()
	peers, err := trust.At(s.home).Peers()
	if err != nil || len(peers) != 1 {
		s.t.Fatalf("peers %+v, %v", peers, err)
	}
	return peers[0]
}

func newSide(t *testing.T, role, label string) side {
	t.Helper()
	s := side{t, role, filepath.Join(t.TempDir(), label)}
	s.must(0, []string{"init", "--label", label, "--insecure-no-passphrase"}, "the keys are kept in clear")
	return s
}

func (s side) card() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), s.role+".azc")
	s.must(0, []string{"card", "--out", path}, path, "words of the card")
	return path
}

// newSides makes two sides that believe each other.
func newSides(t *testing.T) (agent, relay side) {
	t.Helper()
	agent, relay = newSide(t, bundle.RoleAgent, "site-a"), newSide(t, bundle.RoleRelay, "relay-1")
	words := strings.TrimSpace(agent.must(0, []string{"words", relay.card()}).Out)
	agent.must(0, []string{"pair", relay.card(), "--expect-words", words}, `relay "relay-1" is pinned`)
	relay.must(0, []string{"pair", agent.card(), "--expect-words", words}, `agent "site-a" is pinned`)
	return agent, relay
}

// request seals a request and writes it into dir under its own name.
func (s side) request(dir string, seq uint64, change func(*bundle.Request)) string {
	s.t.Helper()
	id, err := bundle.NewID(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	content := &bundle.Request{Label: "site-a", Operation: bundle.Register, CloudID: "cloud-7", TokenSHA256: bundle.Sum([]byte("the token"))}
	if change != nil {
		change(content)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	b, err := s.identity().Seal(s.peer(), bundle.Draft{Bundle: id, Seq: seq, Created: now, Expires: now.AddDate(0, 0, 14), Content: content, Payload: []byte("the token")}, rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	return write(s.t, b.Text(), dir, "azs-request-"+id.Short()+".azc")
}

func write(t *testing.T, data []byte, parts ...string) string {
	t.Helper()
	path := filepath.Join(parts...)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInit(t *testing.T) {
	dir := t.TempDir()
	pass := write(t, []byte("correct horse battery staple\n"), dir, "pass")
	s := side{t, bundle.RoleAgent, filepath.Join(dir, "home")}
	s.must(fault.Usage, []string{"init", "--insecure-no-passphrase", "--passphrase-file", pass}, "contradict")
	s.must(fault.Usage, []string{"init", "--label", "a b", "--insecure-no-passphrase"}, `label "a b"`)
	s.must(fault.Locked, []string{"init"}, "--passphrase-file") // no terminal to ask at
	if _, err := os.Lstat(s.home); err == nil {
		t.Error("a refused init left a state folder")
	}
	got := s.must(0, []string{"init", "--passphrase-file", pass, "--json"})
	var v struct {
		Type, Label, Role string
		Protected         bool
	}
	if err := json.Unmarshal([]byte(got.Out), &v); err != nil || v.Type != "init" || !v.Protected || v.Role != "agent" || !strings.HasPrefix(v.Label, "agent-") {
		t.Errorf("%+v, %v: %s", v, err, got.Out)
	}
	s.must(fault.Usage, []string{"init", "--passphrase-file", pass}, "has the identity of agent", "hint: azs-agent card")
	relay := side{t, bundle.RoleRelay, s.home}
	relay.must(fault.Usage, []string{"init", "--passphrase-file", pass}, "has the identity of agent")
	relay.must(fault.NotForUs, []string{"status"}, "is that of azs-agent, not of azs-relay")
}

// An init that was killed before the card is finished by the same command.
func TestInitAfterAKill(t *testing.T) {
	s := newSide(t, bundle.RoleAgent, "site-a")
	if err := os.Remove(filepath.Join(s.home, "card.azc")); err != nil {
		t.Fatal(err)
	}
	s.must(fault.Locked, []string{"card"}, "holds no identity", "hint: azs-agent init")
	s.must(0, []string{"next"}, "azs-agent init")
	s.must(0, []string{"init", "--label", "site-a", "--insecure-no-passphrase"})
	s.must(0, []string{"card"})
	s.must(0, []string{"log"}, "chain of 3 lines is whole")
}

func TestCardAndWords(t *testing.T) {
	agent, relay := newSide(t, bundle.RoleAgent, "site-a"), newSide(t, bundle.RoleRelay, "relay-1")
	text := agent.must(0, []string{"card"}).Out
	if c, err := trust.ReadCard([]byte(text)); err != nil || c.Label != "site-a" {
		t.Errorf("the card on standard output: %+v, %v", c, err)
	}
	file := agent.card()
	agent.must(0, []string{"card", "--out", file}) // the same again
	relay.must(fault.Usage, []string{"card", "--out", file}, "is not replaced")

	own := agent.must(0, []string{"words"}).Out
	if again := agent.must(0, []string{"words", file}).Out; again != own || len(strings.Fields(own)) != 12 {
		t.Errorf("words of the own card: %q and %q", own, again)
	}
	pair := agent.must(0, []string{"words", relay.card()}).Out
	if there := relay.must(0, []string{"words", file}).Out; there != pair || pair == own {
		t.Errorf("the agent prints %q, the relay %q", pair, there)
	}
	other := newSide(t, bundle.RoleAgent, "site-b")
	other.must(fault.NotForUs, []string{"words", file}, "a pair is an agent and a relay")
	if peers, err := trust.At(agent.home).Peers(); err != nil || len(peers) != 0 {
		t.Errorf("words pinned %+v, %v", peers, err)
	}
}

func TestPair(t *testing.T) {
	agent, relay := newSide(t, bundle.RoleAgent, "site-a"), newSide(t, bundle.RoleRelay, "relay-1")
	card := relay.card()
	agent.must(fault.Usage, []string{"pair", card}, "--expect-words") // nobody at the terminal
	agent.must(fault.NotForUs, []string{"pair", card, "--expect-words", relay.must(0, []string{"words"}).Out}, "the words differ")
	agent.must(fault.Usage, []string{"pair", card, "--expect-words", "abandon"}, "1 words were given, want 12")
	agent.must(0, []string{"pair", "show"}, "no peer is pinned")
	agent.must(0, []string{"next"}, "azs-agent pair CARD")
	// By the words of the card alone, before the relay has the agent's card.
	agent.must(0, []string{"pair", card, "--card-words", "--expect-words", relay.must(0, []string{"words"}).Out}, "is pinned")
	agent.must(0, []string{"pair", card, "--expect-words", "anything"}, "was pinned already")
	agent.must(0, []string{"pair", "show"}, `relay "relay-1"`, "by the words of the card")
	agent.must(0, []string{"log"}, "paired", `by="words of the card"`)

	// Another card under the label.
	other := newSide(t, bundle.RoleRelay, "relay-1")
	words := strings.TrimSpace(agent.must(0, []string{"words", other.card()}).Out)
	agent.must(fault.Usage, []string{"pair", other.card(), "--expect-words", words}, "--replace")
	agent.must(0, []string{"pair", other.card(), "--expect-words", words, "--replace"}, "replaces key")
	agent.must(0, []string{"log"}, "replaced-key=", "replaced-words=")

	signers := filepath.Join(t.TempDir(), "allowed_signers")
	agent.must(0, []string{"pair", "export-signers", signers}, signers)
	out := agent.must(0, []string{"pair", "export-signers", "-"}).Out
	if file, err := os.ReadFile(signers); err != nil || string(file) != out || strings.Count(out, "\n") != 2 {
		t.Errorf("signers %q and %q, %v", out, file, err)
	}
	agent.must(fault.Usage, []string{"pair", "revoke", "relay-9"}, `no peer "relay-9" is pinned`)
	agent.must(0, []string{"pair", "revoke", "relay-1"}, "is no longer believed")
	agent.must(0, []string{"pair", "show"}, "no peer is pinned")
	agent.must(0, []string{"log"}, "revoked")
}

func TestPairByTheCardInARequest(t *testing.T) {
	agent, relay := newSide(t, bundle.RoleAgent, "site-a"), newSide(t, bundle.RoleRelay, "relay-1")
	agent.must(0, []string{"pair", relay.card(), "--card-words", "--expect-words", relay.must(0, []string{"words"}).Out})
	stick := t.TempDir()
	bare := agent.request(stick, 1, nil)
	relay.must(fault.NotForUs, []string{"pair", bare, "--expect-words", "x"}, "carries no card", "--with-card")
	withCard := agent.request(stick, 2, func(r *bundle.Request) { r.Card = agent.identity().Card.Bundle.Wire() })
	words := agent.must(0, []string{"words", relay.card()}).Out
	relay.must(fault.NotForUs, []string{"pair", withCard, "--expect-words", agent.must(0, []string{"words"}).Out}, "the words differ")
	relay.must(0, []string{"pair", withCard, "--expect-words", words}, `agent "site-a" is pinned`)
	relay.must(0, []string{"take", stick}, "taken")
}

func TestInspectAndVerify(t *testing.T) {
	agent, relay := newSides(t)
	dir := t.TempDir()
	request := agent.request(dir, 1, func(r *bundle.Request) { r.Note = "rack\x1b[2J 4" })

	// Opened by whom it is for; the token is never shown.
	got := relay.must(0, []string{"inspect", request}, `signed by the pinned peer "site-a", for this side`, "cloud-7", `rack\x1b[2J 4`, bundle.Sum([]byte("the token")).String())
	if strings.Contains(got.Out, "the token") || strings.Contains(got.Out, "\x1b") {
		t.Errorf("inspect shows %q", got.Out)
	}
	for name, r := range map[string]ran{
		"outside":   relay.must(0, []string{"inspect", request, "--outside"}, "for this side"),
		"sender":    agent.must(0, []string{"inspect", request}, "not for this side: the bundle was made here"),
		"no keys":   side{t, bundle.RoleRelay, filepath.Join(dir, "none")}.must(0, []string{"inspect", request}, "no identity to compare with"),
		"its JSON":  relay.must(0, []string{"inspect", request, "--outside", "--json"}, `"kind":"request"`),
		"of a card": relay.must(0, []string{"inspect", agent.card()}, "the words decide whose it is", "words of the card"),
	} {
		if strings.Contains(r.Out, "cloud-7") {
			t.Errorf("%s: the inside is shown: %s", name, r.Out)
		}
	}

	kiosk := side{t, bundle.RoleRelay, filepath.Join(dir, "kiosk")}
	signers := filepath.Join(dir, "allowed_signers")
	agent.must(0, []string{"pair", "export-signers", signers})
	kiosk.must(0, []string{"verify", request, "--signers", signers}, "good", `from "site-a"`)
	relay.must(0, []string{"verify", request}, "good") // against the pinned peers
	kiosk.must(fault.Usage, []string{"verify", request}, "--signers")

	text, err := os.ReadFile(request)
	if err != nil {
		t.Fatal(err)
	}
	edited := write(t, bytes.Replace(text, []byte("seq: 1\n"), []byte("seq: 2\n"), 1), dir, "edited.azc")
	kiosk.must(fault.Refused, []string{"verify", edited, "--signers", signers}, "REFUSED")
	kiosk.must(fault.Refused, []string{"verify", edited, request, "--signers", signers}, "REFUSED", "good")
	relay.must(fault.Refused, []string{"inspect", edited})
	lines, err := os.ReadFile(signers)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		text string
		code fault.Kind
	}{
		"comments and blank lines":    {"# keys\n\n" + string(lines), 0},
		"other keys":                  {string(lines[bytes.IndexByte(lines, '\n')+1:]), fault.NotForUs},
		"another namespace":           {strings.ReplaceAll(string(lines), bundle.Namespace, "git"), fault.Usage},
		"an option that nobody knows": {strings.ReplaceAll(string(lines), "namespaces=", "cert-authority,namespaces="), fault.Usage},
		"valid before":                {strings.ReplaceAll(string(lines), "namespaces=", `valid-before="20200101",namespaces=`), fault.Usage},
		"damaged":                     {"site-a ssh-ed25519 AAAA\n", fault.Usage},
		"empty":                       {"", fault.Usage},
	} {
		file := write(t, []byte(tt.text), dir, "signers")
		if got := kiosk.run("verify", request, "--signers", file); got.Exit != int(tt.code) {
			t.Errorf("%s: exit code %d, want %d: %s%s", name, got.Exit, tt.code, got.Out, got.Err)
		}
	}
}

func TestPutAndTake(t *testing.T) {
	agent, relay := newSides(t)
	stick, dir := t.TempDir(), t.TempDir()
	request := agent.request(dir, 1, nil)
	relay.must(fault.NothingYet, []string{"take", stick}, "holds no bundle")
	agent.must(0, []string{"put", request, stick}, "safe to remove")
	agent.must(0, []string{"put", request, stick}, "safe to remove")
	agent.must(0, []string{"log"}, "put", stick)
	got := relay.must(0, []string{"take", stick}, "taken", "next: azs-relay use azs-request-")
	name := filepath.Base(request)
	if kept, err := os.ReadFile(filepath.Join(relay.home, "bundles", name)); err != nil || !strings.Contains(got.Out, name) {
		t.Errorf("kept %d bytes, %v", len(kept), err)
	}
	relay.must(0, []string{"take", stick}, "taken") // again
	relay.must(0, []string{"inspect", name}, "for this side")

	// A damaged bundle does not leave, and does not come in.
	text, err := os.ReadFile(request)
	if err != nil {
		t.Fatal(err)
	}
	bad := write(t, text[:len(text)-100], dir, "bad.azc")
	agent.must(fault.Refused, []string{"put", bad, stick})
	write(t, text[:len(text)-100], stick, "bad.azc")
	relay.must(fault.Partial, []string{"take", stick}, "left ", `"bad.azc"`, "taken")

	// What is used, of a stranger or for another is left alone, with the reason.
	used := t.TempDir()
	agent.request(used, 13, nil)
	relay.must(fault.Replay, []string{"take", used}, "was used")
	strangers, _ := newSides(t)
	foreign := t.TempDir()
	strangers.request(foreign, 1, nil)
	relay.must(fault.NotForUs, []string{"take", foreign}, "no pinned peer has that key")
	agent.request(foreign, 2, nil)
	relay.must(0, []string{"take", foreign}, "left ", "taken") // a stick may serve several sites
	if err := os.Mkdir(filepath.Join(foreign, "azs-request-0000000000.azc"), 0o700); err != nil {
		t.Fatal(err)
	}
	relay.must(fault.Partial, []string{"take", foreign}, "azs-request-0000000000.azc")
	relay.must(fault.Medium, []string{"take", filepath.Join(stick, "none")})
	relay.must(0, []string{"log"}, "took")
}

func TestStatusNextLog(t *testing.T) {
	agent, _ := newSides(t)
	agent.must(0, []string{"next"}, "azs-agent begin", "no trip is under way")
	l, err := ledger.Open(agent.home, ledger.Agent, fixedClock{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(ledger.Requested, "TRIP1", map[string]string{"of": "rack 4"}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	agent.must(0, []string{"status"}, "TRIP1  requested", "trip of rack 4", "1 pinned")
	agent.must(0, []string{"next"}, "azs-agent go on TRIP1", "it waits")
	agent.must(0, []string{"next", "--json"}, `"trip":"TRIP1"`)
	agent.must(0, []string{"log"}, "requested", `of="rack 4"`, "is whole, head "+l.Head())
	// The journal's time lies years ahead of this clock.
	agent.must(0, []string{"status"}, "warning", "the clock went back by")

	journal := filepath.Join(agent.home, "journal.jsonl")
	text, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	write(t, bytes.Replace(text, []byte(`"words of the pair"`), []byte(`"words of the card"`), 1), journal)
	for _, verb := range []string{"status", "next", "log"} {
		if got := agent.must(fault.Refused, []string{verb}, "the chain is broken"); got.Out != "" {
			t.Errorf("%s prints %q", verb, got.Out)
		}
	}
	empty := side{t, bundle.RoleAgent, filepath.Join(t.TempDir(), "none")}
	empty.must(fault.Locked, []string{"status"}, "hint: azs-agent init")
	empty.must(0, []string{"next"}, "azs-agent init")
}

// fixedClock is years ahead of the machine's.
type fixedClock struct{}

func (fixedClock) Now() time.Time { return time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC) }

// The pages of the common verbs are as whole as those of the programs.
func TestHelpOfTheCommonVerbs(t *testing.T) {
	for _, role := range []string{bundle.RoleAgent, bundle.RoleRelay} {
		for _, thin := range appkit.CheckHelp(station(role)) {
			t.Error(thin)
		}
	}
}
