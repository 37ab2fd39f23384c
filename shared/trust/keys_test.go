package trust

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// The plugin of age's own tests and its fixed recipient (see shared/ageplugin).
const (
	tagtest        = "filippo.io/age/tag/internal/age-plugin-tagtest"
	tagtestClassic = "age1tag1qwe0kafsjrar4txm6heqnhpfuggzr0gvznz7fvygxrlq90u5mq2pysxtw6h"
)

// build builds a program of the module filippo.io/age.
func build(t *testing.T, program string) string {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("no go tool here: %v", err)
	}
	to := filepath.Join(t.TempDir(), filepath.Base(program))
	if runtime.GOOS == "windows" {
		to += ".exe"
	}
	if out, err := exec.Command(tool, "build", "-o", to, program).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	return to
}

func tagPlugin(t *testing.T) *Plugin {
	return &Plugin{Path: build(t, tagtest), Identity: plugin.EncodeIdentity("tagtest", nil), Recipient: tagtestClassic}
}

// request seals a request of one side for another.
func request(t *testing.T, from *Identity, to Peer) *bundle.Bundle {
	t.Helper()
	id, err := bundle.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := from.Seal(to, bundle.Draft{Bundle: id, Seq: 1, Created: noon, Expires: noon.AddDate(0, 0, 14),
		Content: &bundle.Request{Label: "site-a", Operation: bundle.Register, CloudID: "c"}, Payload: []byte("the token")}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnAgePluginOpensWhatIsSealedToItsCard(t *testing.T) {
	agent, agentID := newStore(t, bundle.RoleAgent, "site-a")
	relay := At(filepath.Join(t.TempDir(), "relay-1"))
	card, err := relay.Create(bundle.RoleRelay, "relay-1", Protection{Insecure: true, Plugin: tagPlugin(t)}, noon, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if len(card.Recipients) != 1 || card.Recipients[0] != tagtestClassic {
		t.Errorf("recipients %q", card.Recipients)
	}
	if text := string(mustRead(t, home(relay), plainName)); strings.Contains(text, "AGE-SECRET-KEY") || !strings.Contains(text, "age-plugin: /") && runtime.GOOS != "windows" {
		t.Errorf("identity file: %q", text)
	}
	id, err := relay.Unlock(unasked)
	if err != nil {
		t.Fatal(err)
	}
	b := request(t, agentID, pin(t, agent, card))
	_, v, err := Verify(card, []Peer{pin(t, relay, agentID.Card)}, b, bundle.KindRequest)
	if err != nil {
		t.Fatal(err)
	}
	body, err := id.Open(v)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := body.Payload(); err != nil || string(p) != "the token" {
		t.Errorf("%q, %v", p, err)
	}

	// The plugin is gone: a key that is locked, not a bundle that is damaged.
	path := id.text
	if err := os.Remove(tail(t, path)); err != nil {
		t.Fatal(err)
	}
	_, err = relay.Unlock(unasked)
	wantKind(t, err, fault.Locked, "age plugin")
	_, err = id.Open(v)
	wantKind(t, err, fault.Locked, "age plugin")
}

// tail returns the path in the text of keys.
func tail(t *testing.T, text []byte) string {
	t.Helper()
	_, rest, ok := strings.Cut(string(text), pluginLine)
	path, _, ok2 := strings.Cut(rest, "\n")
	if !ok || !ok2 {
		t.Fatalf("no path in %q", text)
	}
	return path
}

func TestAPluginMustOpenItsRecipient(t *testing.T) {
	other := *tagPlugin(t)
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other.Recipient = x.Recipient().String()
	s := At(t.TempDir())
	_, err = s.Create(bundle.RoleRelay, "r", Protection{Insecure: true, Plugin: &other}, noon, rand.Reader)
	wantKind(t, err, fault.Usage, "does not open what is sealed to age1")
	if _, err := s.Card(); fault.KindOf(err) != fault.Locked {
		t.Errorf("a card was made: %v", err)
	}
}

// Threat: who may write in a shared state names a program that its hosts start.
func TestASharedStateNamesNoPlugin(t *testing.T) {
	dir := t.TempDir()
	s := In(sharedFolder{folder(dir)})
	p := tagPlugin(t)
	_, err := s.Create(bundle.RoleRelay, "r", Protection{Passphrase: quick.Passphrase, WorkFactor: 10, Plugin: p}, noon, rand.Reader)
	wantKind(t, err, fault.Usage, "it names no age plugin")
	if _, err := At(dir).Create(bundle.RoleRelay, "r", Protection{Passphrase: quick.Passphrase, WorkFactor: 10, Plugin: p}, noon, rand.Reader); err != nil {
		t.Fatal(err)
	}
	_, err = s.Unlock(knows(quick.Passphrase.Reveal()))
	wantKind(t, err, fault.Locked, "none is started")
}

// sharedFolder is a folder that says it is a database.
type sharedFolder struct{ folder }

func (sharedFolder) Private() bool { return false }

// A bundle for a side whose own keys are lost is opened by the key from the safe,
// with age and sed.
func TestTheRecoveryKeyOpensWithAgeAlone(t *testing.T) {
	safe := newAge(t)
	agent, agentID := newStore(t, bundle.RoleAgent, "site-a")
	relay := At(filepath.Join(t.TempDir(), "relay-1"))
	card, err := relay.Create(bundle.RoleRelay, "relay-1", Protection{Insecure: true, Recovery: []string{safe.Recipient().String()}}, noon, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := request(t, agentID, pin(t, agent, card))
	if _, _, err := Verify(card, []Peer{pin(t, relay, agentID.Card)}, b, bundle.KindRequest); err != nil {
		t.Errorf("for two recipients: %v", err)
	}
	text := string(b.Text())
	_, sealed, _ := strings.Cut(text, armor.Header)
	file, key := filepath.Join(t.TempDir(), "sealed.age"), filepath.Join(t.TempDir(), "recovery.key")
	mustWrite(t, []byte(armor.Header+sealed), file)
	mustWrite(t, []byte(safe.String()+"\n"), key)
	tool := os.Getenv("AZS_AGE")
	if tool == "" {
		var err error
		if tool, err = exec.LookPath("age"); err != nil {
			t.Skip("no age program here: make tools names it in AZS_AGE")
		}
	}
	out, err := exec.Command(tool, "-d", "-i", key, file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(out, []byte("azs-courier-body/v1 request\n")) || !bytes.HasSuffix(out, []byte("\n\nthe token")) {
		t.Errorf("age -d gives %q", out)
	}
}

func TestRecoveryRecipientsThatCannotStandThere(t *testing.T) {
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ recipient, want string }{
		"beside a hybrid one": {x.Recipient().String(), "post-quantum"},
		"a plugin's":          {"age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t", "recovery recipient"},
		"none":                {"nobody", "recovery recipient"},
	} {
		_, err := At(t.TempDir()).Create(bundle.RoleRelay, "r", Protection{Insecure: true, Recovery: []string{c.recipient}}, noon, rand.Reader)
		if err == nil || fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Without an agent the identity is locked at once, before anything is journaled
// that would have to be signed.
func TestAnIdentityInAnAgentThatIsMissing(t *testing.T) {
	signer, _ := testKey(t, "agent")
	dir := t.TempDir()
	s, id := newStore(t, bundle.RoleAgent, "site-a")
	_ = s
	ageLine := id.text[bytes.LastIndex(bytes.TrimSpace(id.text), []byte("\n"))+1:]
	mustWrite(t, append(append([]byte(agentLine), ssh.MarshalAuthorizedKey(signer.PublicKey())...), ageLine...), dir, plainName)
	card := fixedCard(t, bundle.RoleAgent, "agent", "site-a")
	mustWrite(t, card.Bundle.Text(), dir, cardName)
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(dir, "nobody"))
	_, err := At(dir).Unlock(func() (secret.Text, error) { panic("asked") })
	wantKind(t, err, fault.Locked, "no ssh-agent listens")
	if fault.HintOf(err) == "" {
		t.Error("no hint")
	}
}
