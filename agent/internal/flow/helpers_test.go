package flow

import (
	"context"
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/trust"
)

const (
	subscription = "8f3a2c41-5b6d-4e7f-9a0b-1c2d3e4f5a6b"
	fortnight    = 14 * 24 * time.Hour
)

var (
	noon      = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	relayTime = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC) // the relay's clock is years ahead
)

// hand is a clock that a test moves.
type hand struct{ at time.Time }

func (h *hand) Now() time.Time { return h.at }

func unasked() (secret.Text, error) { panic("a passphrase was asked for") }

func newIdentity(t testing.TB, dir, role, label string) *trust.Identity {
	t.Helper()
	s := trust.At(dir)
	if _, err := s.Create(role, label, trust.Protection{Insecure: true}, noon, rand.Reader); err != nil {
		t.Fatal(err)
	}
	id, err := s.Unlock(unasked)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func pin(t testing.TB, dir string, c *trust.Card) trust.Peer {
	t.Helper()
	p, _, err := trust.At(dir).Pin(c, "words of the pair", noon, false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// farRelay is the other side of the gap, made of the shared packages alone.
type farRelay struct {
	*trust.Identity
	agent trust.Peer
	seq   uint64
}

// inside is the state folder of an agent, and the relay that it is paired with.
type inside struct {
	*Agent
	dir   string
	clock *hand
	relay *farRelay
}

func newInside(t testing.TB) *inside {
	t.Helper()
	base := t.TempDir()
	dir, far := filepath.Join(base, "agent"), filepath.Join(base, "relay")
	at := &hand{noon}
	l, err := ledger.Create(dir, ledger.Agent, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	id := newIdentity(t, dir, bundle.RoleAgent, "site-a")
	relay := newIdentity(t, far, bundle.RoleRelay, "relay-1")
	peer := pin(t, dir, relay.Card)
	return &inside{
		Agent: &Agent{Ledger: l, Identity: id, Peers: []trust.Peer{peer}, Clock: at, Rand: rand.Reader},
		dir:   dir, clock: at, relay: &farRelay{Identity: relay, agent: pin(t, far, id.Card)},
	}
}

// pairAnother pins a second relay.
func (in *inside) pairAnother(t testing.TB, label string) *farRelay {
	t.Helper()
	far := filepath.Join(t.TempDir(), label)
	relay := newIdentity(t, far, bundle.RoleRelay, label)
	in.Peers = append(in.Peers, pin(t, in.dir, relay.Card))
	return &farRelay{Identity: relay, agent: pin(t, far, in.Identity.Card)}
}

func spec(seed uint64) officialtest.Spec { return officialtest.Spec{Seed: seed} }

// tokenFile writes the token of a stamp as the official cmdlet does.
func tokenFile(t testing.TB, s officialtest.Spec) TokenFile {
	t.Helper()
	return textFile(t, officialtest.Token(s))
}

func textFile(t testing.TB, token string) TokenFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "RegistrationToken.txt")
	if err := os.WriteFile(path, official.Write(secret.New(token)), 0o600); err != nil {
		t.Fatal(err)
	}
	return TokenFile(path)
}

func order() TokenOrder { return TokenOrder{ExpectSubscription: subscription, Valid: fortnight} }

func (in *inside) request(t testing.TB, s officialtest.Spec, o TokenOrder) *Request {
	t.Helper()
	r, err := in.Token(context.Background(), tokenFile(t, s), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// reply is an answer before it is sealed; a test changes what it likes.
type reply struct {
	draft  bundle.Draft
	answer *bundle.Answer
	place  officialtest.Place
	spec   officialtest.Spec
	key    string // "" is the key of place and spec
	to     trust.Peer
}

// answer seals the relay's answer to a request.
func (far *farRelay) answer(t testing.TB, r *Request, s officialtest.Spec, change func(*reply)) []byte {
	t.Helper()
	far.seq++
	id, err := bundle.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	locked := true
	a := &reply{
		to: far.agent, spec: s,
		place: officialtest.Place{SubscriptionID: subscription, ResourceGroup: "azurestack", RegistrationName: r.Content.ExpectRegistration},
		draft: bundle.Draft{Bundle: id, Seq: far.seq, Re: r.Bundle.Digest(), Created: relayTime, Expires: r.Manifest.Expires},
		answer: &bundle.Answer{
			Label: "relay-1", Operation: bundle.Register, CloudID: r.Content.CloudID, Cloud: "AzureCloud", Tenant: officialtest.CloudID(77),
			Subscription: subscription, ResourceGroup: "azurestack", Registration: r.Content.ExpectRegistration,
			RegistrationID: "/subscriptions/" + subscription + "/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/" + r.Content.ExpectRegistration,
			BillingModel:   r.Content.BillingModel, KeyExpires: "9999-12-30T23:59:59.9999999Z", Locked: &locked,
			RequestCreated: r.Manifest.Created, RequestExpires: r.Manifest.Expires, Received: relayTime.Add(-time.Minute),
		},
	}
	if change != nil {
		change(a)
	}
	if a.key == "" {
		claims, err := officialtest.KeyPayload(officialtest.Token(a.spec), a.place)
		if err != nil {
			t.Fatal(err)
		}
		a.key = officialtest.Key(claims, nil)
	}
	a.draft.Payload = []byte(a.key)
	if a.answer.KeySHA256.IsZero() {
		a.answer.KeySHA256 = bundle.Sum(a.draft.Payload)
	}
	a.draft.Content = a.answer
	b, err := far.Seal(a.to, a.draft, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return b.Text()
}

func keyFile(t testing.TB) KeyFile { return KeyFile(filepath.Join(t.TempDir(), "ActivationKey.txt")) }

func mustActivate(t testing.TB, in *inside, answer []byte, to Sink) *Activation {
	t.Helper()
	a, err := in.Activate(context.Background(), answer, to)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func state(t testing.TB, l *ledger.Ledger, trip string) string {
	t.Helper()
	got, ok := l.Trip(trip)
	if !ok {
		t.Fatalf("no trip %s", trip)
	}
	return got.State
}

func wantKind(t testing.TB, err error, kind fault.Kind, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v with %q", kind, texts)
	}
	if fault.KindOf(err) != kind {
		t.Errorf("kind %v, want %v: %v", fault.KindOf(err), kind, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
}

// wantNoSecret searches every file of a folder for pieces of secrets.
func wantNoSecret(t testing.TB, dir string, secrets ...string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		for _, s := range secrets {
			for i := 0; i+24 <= len(s); i += 24 {
				if strings.Contains(string(data), s[i:i+24]) {
					t.Errorf("%s holds bytes %d to %d of a secret", d.Name(), i, i+24)
					return nil
				}
			}
		}
		return err
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files searched, %v", files, err)
	}
}

// wantWholeJournal reads the journal anew.
func wantWholeJournal(t testing.TB, dir string, role ledger.Role) {
	t.Helper()
	report, err := ledger.Check(dir, role)
	if err != nil || report.Damage != nil || report.Torn != 0 {
		t.Errorf("journal: %v, %v, %d bytes torn", err, report.Damage, report.Torn)
	}
}
