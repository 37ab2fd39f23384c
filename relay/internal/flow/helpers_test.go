package flow

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/trust"
)

const fortnight = 14 * 24 * time.Hour

// agentTime is what the agent's clock says, years behind the relay's.
var agentTime = time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC)

// hand is a clock that moves when a test or a wait moves it.
type hand struct{ at time.Time }

func (h *hand) Now() time.Time { return h.at }

func (h *hand) sleep(ctx context.Context, d time.Duration) error {
	h.at = h.at.Add(d)
	return ctx.Err()
}

func unasked() (secret.Text, error) { panic("a passphrase was asked for") }

func newIdentity(t testing.TB, dir, role, label string) *trust.Identity {
	t.Helper()
	s := trust.At(dir)
	if _, err := s.Create(role, label, trust.Protection{Insecure: true}, agentTime, rand.Reader); err != nil {
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
	p, _, err := trust.At(dir).Pin(c, "words of the pair", agentTime, false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// farAgent is the other side of the gap, made of the shared packages alone.
type farAgent struct {
	*trust.Identity
	relay        trust.Peer
	subscription string
	seq          uint64
}

// outside is the state folder of a relay, an agent that it is paired with, and
// the Azure that it reaches.
type outside struct {
	*Relay
	dir   string
	clock *hand
	azure *azuretest.Server
	agent *farAgent
	said  []string
}

func newOutside(t testing.TB, opts ...azuretest.Option) *outside {
	t.Helper()
	base := t.TempDir()
	dir, far := filepath.Join(base, "relay"), filepath.Join(base, "agent")
	out := &outside{dir: dir, clock: &hand{time.Now().UTC().Truncate(time.Second)}, azure: azuretest.NewServer(opts...)}
	t.Cleanup(out.azure.Close)
	l, err := ledger.Create(dir, ledger.Relay, out.clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	id, agent := newIdentity(t, dir, bundle.RoleRelay, "relay-1"), newIdentity(t, far, bundle.RoleAgent, "site-a")
	out.agent = &farAgent{Identity: agent, relay: pin(t, far, id.Card), subscription: out.azure.Subscription}
	ca := filepath.Join(base, "ca.pem")
	if err := os.WriteFile(ca, out.azure.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := azure.Connect(context.Background(), azure.Options{
		ARMEndpoint: out.azure.URL, CAFile: ca, Auth: "client-secret", Tenant: out.azure.Tenant,
		ClientID: out.azure.ClientID, ClientSecret: secret.New(out.azure.ClientSecret), Clock: out.clock, Sleep: out.clock.sleep,
	})
	if err != nil {
		t.Fatal(err)
	}
	out.Relay = &Relay{Ledger: l, Identity: id, Peers: []trust.Peer{pin(t, dir, agent.Card)}, Azure: client, Requests: client.Requests,
		Clock: out.clock, Rand: rand.Reader, Say: func(f string, a ...any) { out.said = append(out.said, fmt.Sprintf(f, a...)) }}
	return out
}

func spec(seed uint64) officialtest.Spec { return officialtest.Spec{Seed: seed} }

// ask is a request before it is sealed; a test changes what it likes.
type ask struct {
	draft   bundle.Draft
	request *bundle.Request
	to      trust.Peer
}

// request seals what an agent asks for a stamp.
func (far *farAgent) request(t testing.TB, s officialtest.Spec, change func(*ask)) []byte {
	t.Helper()
	far.seq++
	id, err := bundle.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	token, no := officialtest.Token(s), false
	cloudID := s.CloudID
	if cloudID == "" {
		cloudID = officialtest.CloudID(s.Seed)
	}
	a := &ask{
		to:    far.relay,
		draft: bundle.Draft{Bundle: id, Seq: far.seq, Created: agentTime, Expires: agentTime.Add(fortnight), Payload: []byte(token)},
		request: &bundle.Request{
			Label: "site-a", Operation: bundle.Register, CloudID: cloudID, Nodes: 1, BillingModel: "Capacity",
			UsageReporting: &no, MarketplaceSyndication: &no, TokenSHA256: bundle.Sum([]byte(token)),
			ExpectSubscription: far.subscription, ExpectResourceGroup: "azurestack", ExpectRegistration: "AzureStack-" + cloudID,
		},
	}
	if change != nil {
		change(a)
	}
	a.draft.Content = a.request
	b, err := far.Seal(a.to, a.draft, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return b.Text()
}

// receipt seals what an agent says about an answer that it used.
func (far *farAgent) receipt(t testing.TB, answer *bundle.Bundle, content *bundle.Receipt) []byte {
	t.Helper()
	far.seq++
	id, err := bundle.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := far.Seal(far.relay, bundle.Draft{Bundle: id, Seq: far.seq, Re: answer.Digest(), Created: agentTime.Add(time.Hour),
		Expires: agentTime.Add(fortnight), Content: content}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return b.Text()
}

// open opens an answer as the agent does.
func (far *farAgent) open(t testing.TB, answer *bundle.Bundle) (*bundle.Manifest, *bundle.Answer, string) {
	t.Helper()
	_, v, err := trust.Verify(far.Card, []trust.Peer{far.relay}, answer, bundle.KindAnswer)
	if err != nil {
		t.Fatal(err)
	}
	body, err := far.Open(v)
	if err != nil {
		t.Fatal(err)
	}
	key, err := body.Payload()
	if err != nil {
		t.Fatal(err)
	}
	return v.Manifest, body.Content.(*bundle.Answer), string(key)
}

// register is what the verb does with a request.
func (out *outside) register(raw []byte, o Order) (*Outcome, error) {
	j, err := out.Read(raw)
	if err != nil {
		return nil, err
	}
	if done, err := out.Done(j, o); done != nil || err != nil {
		return done, err
	}
	p, err := out.Plan(context.Background(), j, o)
	if err != nil {
		return nil, err
	}
	return out.Run(context.Background(), p)
}

func (out *outside) mustRegister(t testing.TB, raw []byte) *Outcome {
	t.Helper()
	o, err := out.register(raw, Order{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (out *outside) mustRead(t testing.TB, raw []byte) *Job {
	t.Helper()
	j, err := out.Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// changes counts the calls that change something in Azure.
func (out *outside) changes() (n int) {
	for _, r := range out.azure.Requests() {
		if strings.HasPrefix(strings.ToLower(r.Path), "/subscriptions") && r.Method != "GET" && r.Method != "HEAD" {
			n++
		}
	}
	return n
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

// replace puts other bytes where a kept bundle stands.
func replace(dir, name string, text []byte) error {
	return os.WriteFile(filepath.Join(dir, "bundles", name), text, 0o600)
}
