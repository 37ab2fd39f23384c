package bundle

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

const (
	goldenDir  = "../../testdata/golden"
	vectorsDir = "../../testdata/vectors"
	docsDir    = "../../docs"
)

func readFile(t testing.TB, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testSigner reads one of the published test keys.
func testSigner(t testing.TB, name string) ssh.Signer {
	t.Helper()
	s, err := ssh.ParsePrivateKey(readFile(t, vectorsDir, "keys", name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testIdentity(t testing.TB, name string) age.Identity {
	t.Helper()
	ids, err := age.ParseIdentities(bytes.NewReader(readFile(t, vectorsDir, "keys", name+".age")))
	if err != nil {
		t.Fatal(err)
	}
	return ids[0]
}

func testRecipients(t testing.TB, name string) []string {
	t.Helper()
	return []string{string(bytes.TrimSpace(readFile(t, vectorsDir, "keys", name+".age.pub")))}
}

// side is one end of a modelled pair.
type side struct {
	name       string
	signer     ssh.Signer
	recipients []string
	identity   age.Identity
}

func newSide(t testing.TB, name string) side {
	return side{name, testSigner(t, name), testRecipients(t, name), testIdentity(t, name)}
}

func (s side) card(role, label string) *Card {
	return &Card{Role: role, Label: label, Key: s.signer.PublicKey().Marshal(), Recipients: s.recipients}
}

// expect is what a receiver knows: who signs, for whom, in which pair.
func expect(from, to side, pair ID, kinds ...Kind) Expect {
	return Expect{Signer: from.signer.PublicKey(), Pair: pair, To: RecipientsFingerprint(to.recipients), Kinds: kinds}
}

var (
	agentTime = time.Date(2026, 11, 23, 6, 24, 0, 0, time.UTC)
	relayTime = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC) // the relay's clock is years ahead
	fortnight = 14 * 24 * time.Hour
)

// requestContent fills every field that an agent usually fills.
func requestContent(spec officialtest.Spec, token []byte) *Request {
	no := false
	cloud := officialtest.CloudID(spec.Seed)
	return &Request{
		Label: "site-a", Operation: Register, CloudID: cloud, StampVersion: "1.2311.1.22", Nodes: max(spec.Nodes, 1),
		BillingModel: "Capacity", AgreementNumber: "E1234567", UsageReporting: &no, MarketplaceSyndication: &no,
		TokenVersion: "6.0", TokenSHA256: Sum(token),
		ExpectSubscription: officialtest.CloudID(900), ExpectResourceGroup: "azurestack", ExpectRegistration: "AzureStack-" + cloud,
	}
}

func testID(name string) ID {
	sum := sha256.Sum256([]byte("azs-courier test id\n" + name))
	return ID(sum[:16])
}

// pairOf names the pair of two cards as docs/FORMAT.md says.
func pairOf(agentCard, relayCard *Bundle) ID {
	h := sha256.New()
	h.Write([]byte("azs-courier-pair/v1\n"))
	for _, c := range []*Bundle{agentCard, relayCard} {
		d := Sum(c.Wire())
		h.Write(d[:])
	}
	return ID(h.Sum(nil)[:16])
}

func seal(t testing.TB, d Draft, signers ...ssh.Signer) *Bundle {
	t.Helper()
	b, err := d.Seal(rand.Reader, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sign puts signatures under whatever manifest the bundle has: what an attacker
// with a key, or a faulty program, can make.
func (b *Bundle) sign(t testing.TB, namespace string, signers ...ssh.Signer) *Bundle {
	t.Helper()
	for _, s := range signers {
		blob, err := sshsig.Sign(rand.Reader, s, namespace, b.manifest)
		if err != nil {
			t.Fatal(err)
		}
		b.signatures = append(b.signatures, blob)
	}
	return b
}

// openAll takes every step that this package knows, and holds that what is
// accepted has the one spelling.
func openAll(raw []byte, e Expect, identities ...age.Identity) (*Body, []byte, error) {
	b, err := Split(raw)
	if err != nil {
		return nil, nil, err
	}
	again := b.Text()
	if bytes.HasPrefix(raw, []byte(wireMagic)) {
		again = b.Wire()
	}
	if !bytes.Equal(again, raw) {
		return nil, nil, errors.New("accepted bytes are spelt otherwise again")
	}
	v, err := b.Verify(e)
	if err != nil {
		return nil, nil, err
	}
	body, err := v.Decrypt(identities...)
	if err != nil {
		return nil, nil, err
	}
	payload, err := body.Payload()
	return body, payload, err
}
