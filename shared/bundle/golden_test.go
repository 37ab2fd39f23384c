package bundle

import (
	"bytes"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

var update = flag.Bool("update", false, "write testdata/golden and testdata/vectors anew")

// world is the modelled pair that every golden bundle belongs to.
type world struct {
	agent, agentNew, relay, stranger side
	approver                         ssh.Signer
	agentCard, relayCard             *Bundle
	pair                             ID
}

// golden is a bundle that must be accepted, and by whom.
type golden struct {
	name   string
	bundle *Bundle
	expect Expect
	by     []age.Identity
}

// reseed gives every bundle randomness of its own, so that a new golden does not
// change the others.
func reseed(t *testing.T, name string) {
	sum := Sum([]byte(name))
	cryptotest.SetGlobalRandom(t, uint64(sum[0])|uint64(sum[1])<<8|uint64(sum[2])<<16|uint64(sum[3])<<24)
}

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{
		agent: newSide(t, "agent"), agentNew: newSide(t, "agent-new"), relay: newSide(t, "relay"), stranger: newSide(t, "stranger"),
		approver: testSigner(t, "approver"),
	}
	w.agentCard = w.cardBundle(t, w.agent, RoleAgent, "site-a")
	w.relayCard = w.cardBundle(t, w.relay, RoleRelay, "relay-1")
	w.pair = pairOf(w.agentCard, w.relayCard)
	return w
}

func (w world) cardBundle(t *testing.T, s side, role, label string) *Bundle {
	reseed(t, "card "+s.name)
	return seal(t, Draft{Bundle: testID("card " + s.name), Seq: 1, Created: agentTime, Expires: agentTime.AddDate(100, 0, 0), Content: s.card(role, label)}, s.signer)
}

// request is the draft that the other requests are bent from: an order without
// payload, the smallest there is.
func (w world) request() Draft {
	return Draft{
		Bundle: testID("unregister"), Pair: w.pair, Seq: 18, Recipients: w.relay.recipients, Created: agentTime, Expires: agentTime.Add(fortnight),
		Content: &Request{Label: "site-a", Operation: Unregister, CloudID: officialtest.CloudID(7)},
	}
}

func (w world) toRelay(kinds ...Kind) Expect { return expect(w.agent, w.relay, w.pair, kinds...) }

func (w world) goldens(t *testing.T) []golden {
	t.Helper()
	spec := officialtest.Spec{Seed: 7}
	token := []byte(officialtest.Token(spec))
	claims, err := officialtest.KeyPayload(string(token), officialtest.Place{
		SubscriptionID: officialtest.CloudID(900), ResourceGroup: "azurestack", RegistrationName: "AzureStack-" + officialtest.CloudID(7)})
	if err != nil {
		t.Fatal(err)
	}
	key := []byte(officialtest.Key(claims, nil))
	yes := true
	relayID, agentID := []age.Identity{w.relay.identity}, []age.Identity{w.agent.identity}

	reseed(t, "request")
	request := seal(t, Draft{Bundle: testID("request"), Pair: w.pair, Seq: 17, Recipients: w.relay.recipients, Created: agentTime, Expires: agentTime.Add(fortnight),
		Content: requestContent(spec, token), Payload: token}, w.agent.signer)

	reseed(t, "request with card")
	introduced := requestContent(spec, token)
	introduced.Card = w.agentCard.Wire()
	introduced.Note = "first contact: 100 % by hand, caf\xc3\xa9"
	withCard := seal(t, Draft{Bundle: testID("request with card"), Pair: w.pair, Seq: 1, Recipients: w.relay.recipients, Created: agentTime, Expires: agentTime.Add(fortnight),
		Content: introduced, Payload: token}, w.agent.signer)

	reseed(t, "approved")
	approved := seal(t, w.request(), w.agent.signer).sign(t, NamespaceApproval, w.approver)

	reseed(t, "unregister")
	unregister := seal(t, w.request(), w.agent.signer)

	reseed(t, "answer")
	answer := seal(t, Draft{Bundle: testID("answer"), Pair: w.pair, Seq: 9, Recipients: w.agent.recipients, Re: request.Digest(), Created: relayTime, Expires: agentTime.Add(fortnight),
		Content: &Answer{
			Label: "relay-1", Operation: Register, CloudID: officialtest.CloudID(7), Cloud: "AzureCloud", Tenant: officialtest.CloudID(901), Subscription: officialtest.CloudID(900),
			ResourceGroup: "azurestack", Registration: "AzureStack-" + officialtest.CloudID(7),
			RegistrationID: "/subscriptions/" + officialtest.CloudID(900) + "/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/AzureStack-" + officialtest.CloudID(7),
			BillingModel:   "Capacity", KeyExpires: "9999-12-30T23:59:59.9999999Z", KeySHA256: Sum(key), Locked: &yes,
			RequestCreated: agentTime, RequestExpires: agentTime.Add(fortnight), Received: relayTime.Add(-time.Minute),
		}, Payload: key}, w.relay.signer)

	reseed(t, "receipt")
	receipt := seal(t, Draft{Bundle: testID("receipt"), Pair: w.pair, Seq: 19, Recipients: w.relay.recipients, Re: answer.Digest(), Created: agentTime.Add(48 * time.Hour), Expires: agentTime.Add(fortnight),
		Content: &Receipt{Label: "site-a", Outcome: OutcomeApplied, CloudID: officialtest.CloudID(7), Applied: agentTime.Add(47 * time.Hour), KeySHA256: Sum(key), Journal: Sum([]byte("journal"))},
	}, w.agent.signer)

	newCard := w.cardBundle(t, w.agentNew, RoleAgent, "site-a")
	reseed(t, "rekey")
	rekey := seal(t, Draft{Bundle: testID("rekey"), Pair: w.pair, Seq: 20, Recipients: w.relay.recipients, Created: agentTime, Expires: agentTime.Add(fortnight),
		Content: &Rekey{Card: newCard.Wire()}}, w.agent.signer, w.agentNew.signer)

	card := func(s side) Expect { return Expect{Signer: s.signer.PublicKey(), Kinds: []Kind{KindPairing}} }
	return []golden{
		{"good-request", request, w.toRelay(KindRequest, KindReceipt), relayID},
		{"good-request-with-card", withCard, w.toRelay(KindRequest), relayID},
		{"good-request-unregister", unregister, w.toRelay(KindRequest), relayID},
		{"good-request-approved", approved, w.toRelay(KindRequest), relayID},
		{"good-answer", answer, expect(w.relay, w.agent, w.pair, KindAnswer), agentID},
		{"good-receipt", receipt, w.toRelay(KindReceipt), relayID},
		{"good-pairing", w.agentCard, card(w.agent), nil},
		{"good-pairing-relay", w.relayCard, card(w.relay), nil},
		{"good-rekey", rekey, w.toRelay(KindRekey), relayID},
	}
}

// TestGolden holds that the golden bundles are what this code writes with fixed
// keys, clock and randomness, and with -update writes them.
func TestGolden(t *testing.T) {
	w := newWorld(t)
	want := map[string][]byte{}
	for _, g := range w.goldens(t) {
		want[g.name+".azc"] = g.bundle.Text()
		want[g.name+".azcw"] = g.bundle.Wire()
	}
	for _, b := range w.bads(t) {
		want[b.file()] = b.raw
		_, _, err := openAll(b.raw, b.expect, b.by...)
		if err == nil {
			t.Errorf("%s is accepted", b.file())
			continue
		}
		want["bad-"+b.name+".err"] = fmt.Appendf(nil, "%s: %s\n", fault.KindOf(err), err)
	}
	if *update {
		if t.Failed() {
			t.Fatal("nothing is written")
		}
		old, err := filepath.Glob(filepath.Join(goldenDir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range old {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		for name, raw := range want {
			if err := os.WriteFile(filepath.Join(goldenDir, name), raw, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		writeVectors(t, w)
		return
	}
	if !strings.HasPrefix(runtime.Version(), "go1.26") {
		t.Skipf("the golden files were written by go1.26; how %s draws randomness and deflates may differ", runtime.Version())
	}
	entries, err := os.ReadDir(goldenDir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("there are %d golden files, want %d: run with -update", len(entries), len(want))
	}
	for name, raw := range want {
		got, err := os.ReadFile(filepath.Join(goldenDir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, raw) {
			t.Errorf("%s differs: %s", name, cmp.Diff(string(got), string(raw)))
		}
	}
}

// TestGoodIsAccepted opens the good files as they lie on the disk, in both
// spellings, whatever this code would write today.
func TestGoodIsAccepted(t *testing.T) {
	w := newWorld(t)
	for _, g := range w.goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			text, wire := readFile(t, goldenDir, g.name+".azc"), readFile(t, goldenDir, g.name+".azcw")
			for _, raw := range [][]byte{text, wire} {
				if _, _, err := openAll(raw, g.expect, g.by...); err != nil {
					t.Error(err)
				}
			}
			b, err := Split(text)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Wire(), wire) {
				t.Error("the text spelling does not give the wire spelling")
			}
			if b, err = Split(wire); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Text(), text) {
				t.Error("the wire spelling does not give the text spelling")
			}
		})
	}
}

// TestBadIsRefused opens the bad files as they lie on the disk: each is refused
// with the kind and the sentence written beside it.
func TestBadIsRefused(t *testing.T) {
	w := newWorld(t)
	for _, b := range w.bads(t) {
		t.Run(b.name, func(t *testing.T) {
			_, _, err := openAll(readFile(t, goldenDir, b.file()), b.expect, b.by...)
			if err == nil {
				t.Fatal("accepted")
			}
			got := fmt.Sprintf("%s: %s\n", fault.KindOf(err), err)
			if want := string(readFile(t, goldenDir, "bad-"+b.name+".err")); got != want {
				t.Errorf("refused otherwise: %s", cmp.Diff(want, got))
			}
		})
	}
}

// bad is a file that must be refused.
type bad struct {
	name   string
	raw    []byte
	expect Expect
	by     []age.Identity
}

func (b bad) file() string {
	if bytes.HasPrefix(b.raw, []byte(wireMagic)) {
		return "bad-" + b.name + ".azcw"
	}
	return "bad-" + b.name + ".azc"
}

// bads bends good bundles, one thing at a time. What a signed part says is signed
// again by the right key after it was bent, so that the one check that is meant
// must catch it.
func (w world) bads(t *testing.T) []bad {
	t.Helper()
	var out []bad
	relayID, agentID := []age.Identity{w.relay.identity}, []age.Identity{w.agent.identity}
	welcome := w.toRelay(KindRequest, KindReceipt, KindRekey)
	add := func(name string, raw []byte) { out = append(out, bad{name, raw, welcome, relayID}) }

	reseed(t, "bad base")
	good := seal(t, w.request(), w.agent.signer)
	text, wire := good.Text(), good.Wire()
	clone := func(sealed, manifest []byte, signatures ...[]byte) *Bundle {
		return &Bundle{manifest: manifest, sealed: sealed, signatures: signatures}
	}

	// Sections.
	add("empty", nil)
	add("not-a-bundle", []byte("hello\n"))
	add("other-version", bytes.Replace(text, []byte("azs-courier/v1"), []byte("azs-courier/v2"), 1))
	add("cut-in-manifest", text[:200])
	add("cut-in-signature", text[:len(good.manifest)+100])
	add("cut-in-age", text[:len(text)-500])
	add("cut-by-one-byte", text[:len(text)-1])
	add("byte-behind", append(bytes.Clone(text), ' '))
	add("line-behind", append(bytes.Clone(text), '\n'))
	add("byte-before", append([]byte{'\n'}, text...))
	add("byte-order-mark", append([]byte("\xef\xbb\xbf"), text...))
	add("crlf", bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")))
	add("no-signature", clone(good.sealed, good.manifest).Text())
	add("nine-signatures", clone(good.sealed, good.manifest, slices.Repeat(good.signatures, 9)...).Text())
	add("signature-too-long", clone(good.sealed, good.manifest, make([]byte, sshsig.MaxBlob+1)).Text())
	add("armor-other-width", append(append(bytes.Clone(good.manifest), '\n'), append(armor{"SSH SIGNATURE", 76}.encode(good.signatures[0]), armorAge.encode(good.sealed)...)...))
	add("armor-as-pem", append(append(append(bytes.Clone(good.manifest), '\n'), armorSignature.encode(good.signatures[0])...),
		pem.EncodeToMemory(&pem.Block{Type: "AGE ENCRYPTED FILE", Headers: map[string]string{"Comment": "x"}, Bytes: good.sealed})...))
	add("armor-not-base64", bytes.Replace(text, armorAge.encode(good.sealed)[36:40], []byte("*#!?"), 1))
	add("armor-wrong-label", append(append(append(bytes.Clone(good.manifest), '\n'), armorSignature.encode(good.signatures[0])...), armorBody.encode(good.sealed)...))
	add("neither-age-nor-body", clone([]byte("Salted__12345678"), good.manifest, good.signatures...).wireUnchecked())
	add("wire-cut", wire[:len(wire)-1])
	add("wire-cut-in-head", wire[:5])
	add("wire-byte-behind", append(bytes.Clone(wire), 0))
	add("wire-no-signature", clone(good.sealed, good.manifest).Wire())
	add("wire-nine-signatures", clone(good.sealed, good.manifest, slices.Repeat(good.signatures, 9)...).Wire())
	add("wire-manifest-too-long", clone(good.sealed, append(bytes.Clone(good.manifest), bytes.Repeat([]byte("x"), 4096)...), good.signatures...).Wire())
	add("wire-blank-line-in-manifest", clone(good.sealed, append(bytes.Clone(good.manifest), "\n\n"...), good.signatures...).Wire())
	add("manifest-4097-bytes", clone(good.sealed, append(bytes.Clone(good.manifest), append(bytes.Repeat([]byte("x"), 4096-len(good.manifest)), '\n')...), good.signatures...).Text())

	// Signatures.
	add("edited-manifest", bytes.Replace(text, []byte("\nseq: 18\n"), []byte("\nseq: 19\n"), 1))
	add("edited-age", clone(flipped(good.sealed, len(good.sealed)-1), good.manifest, good.signatures...).Text())
	add("edited-signature", clone(good.sealed, good.manifest, flipped(good.signatures[0], len(good.signatures[0])-1)).Text())
	add("signed-in-namespace-file", clone(good.sealed, good.manifest).sign(t, "file", w.agent.signer).Text())
	add("signed-as-approval-only", clone(good.sealed, good.manifest).sign(t, NamespaceApproval, w.agent.signer).Text())
	add("signed-twice", clone(good.sealed, good.manifest, good.signatures[0], good.signatures[0]).Text())
	add("signed-by-author-and-as-approval", clone(good.sealed, good.manifest, good.signatures[0]).sign(t, NamespaceApproval, w.agent.signer).Text())
	add("stripped-and-signed-by-stranger", clone(good.sealed, good.manifest).sign(t, Namespace, w.stranger.signer).Text())
	add("stranger-before-author", clone(good.sealed, good.manifest).sign(t, Namespace, w.stranger.signer, w.agent.signer).Text())
	add("two-authors", clone(good.sealed, good.manifest).sign(t, Namespace, w.agent.signer, w.stranger.signer).Text())
	add("author-behind-approval", clone(good.sealed, good.manifest, good.signatures[0]).sign(t, NamespaceApproval, w.approver).sign(t, Namespace, w.stranger.signer).Text())
	add("damaged-approval", clone(good.sealed, good.manifest, good.signatures[0], flipped(good.signatures[0], 3)).Text())

	// The manifest, signed again by the agent.
	bend := func(name string, change func(string) string) {
		manifest := change(string(good.manifest))
		if manifest == string(good.manifest) {
			t.Fatalf("%s bends nothing", name)
		}
		add(name, clone(good.sealed, []byte(manifest)).sign(t, Namespace, w.agent.signer).Text())
	}
	field := func(name, field, value string) {
		bend(name, func(m string) string { return setField(m, field, value) })
	}
	bend("extra-field", func(m string) string { return m + "note: x\n" })
	bend("extra-field-inside", func(m string) string { return strings.Replace(m, "size:", "note: x\nsize:", 1) })
	bend("missing-field", func(m string) string { return setField(m, "re", "") })
	bend("missing-last-field", func(m string) string { return setField(m, "sha256", "") })
	bend("repeated-field", func(m string) string { return strings.Replace(m, "seq: 18\n", "seq: 18\nseq: 18\n", 1) })
	bend("reordered-fields", func(m string) string { return setField(m, "seq", "") + "seq: 18\n" })
	bend("upper-case-field", func(m string) string { return strings.Replace(m, "seq:", "Seq:", 1) })
	bend("no-blank-behind-colon", func(m string) string { return strings.Replace(m, "seq: ", "seq:", 1) })
	bend("two-blanks-behind-colon", func(m string) string { return strings.Replace(m, "seq: ", "seq:  ", 1) })
	bend("trailing-blank", func(m string) string { return strings.Replace(m, "seq: 18", "seq: 18 ", 1) })
	bend("tab", func(m string) string { return strings.Replace(m, "seq: ", "seq:\t", 1) })
	bend("carriage-return", func(m string) string { return strings.Replace(m, "seq: 18", "seq: 18\r", 1) })
	bend("zero-byte", func(m string) string { return strings.Replace(m, "seq: 18", "seq: 18\x00", 1) })
	bend("not-ascii", func(m string) string { return strings.Replace(m, "seq: 18", "seq: \xef\xbc\x91", 1) })
	bend("33-lines", func(m string) string { return m + strings.Repeat("x: y\n", 22) })
	field("unknown-kind", "azs-courier/v1 request", "azs-courier/v1 order")
	field("empty-kind", "azs-courier/v1 request", "azs-courier/v1 ")
	field("id-lower-case", "bundle", strings.ToLower(testID("unregister").String()))
	field("id-confusable-letter", "bundle", "O"+testID("unregister").String()[1:])
	field("id-too-short", "bundle", testID("unregister").String()[1:])
	field("id-tail-bits", "bundle", testID("unregister").String()[:25]+"1")
	field("id-zero", "bundle", strings.Repeat("0", 26))
	field("id-dash", "bundle", "-")
	field("pair-other", "pair", testID("another pair").String())
	field("pair-dash", "pair", "-")
	field("pair-zero", "pair", strings.Repeat("0", 26))
	field("seq-zero", "seq", "0")
	field("seq-plus", "seq", "+18")
	field("seq-minus", "seq", "-18")
	field("seq-leading-zero", "seq", "018")
	field("seq-hex", "seq", "0x12")
	field("seq-too-large", "seq", "9223372036854775808")
	field("from-other", "from", string(KeyFingerprint(w.stranger.signer.PublicKey())))
	field("from-padded", "from", string(KeyFingerprint(w.agent.signer.PublicKey()))+"=")
	field("from-md5", "from", "MD5:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff")
	field("from-dash", "from", "-")
	field("to-other", "to", string(RecipientsFingerprint(w.stranger.recipients)))
	field("to-dash", "to", "-")
	field("re-in-request", "re", Sum(nil).String())
	field("created-fraction", "created", "2026-11-23T06:24:00.0Z")
	field("created-offset", "created", "2026-11-23T06:24:00+00:00")
	field("created-no-such-day", "created", "2026-02-30T06:24:00Z")
	field("created-lower-case", "created", "2026-11-23t06:24:00z")
	field("expires-before-created", "expires", "2026-11-23T06:23:59Z")
	field("size-leading-zero", "size", fmt.Sprintf("0%d", len(good.sealed)))
	field("size-minus", "size", "-1")
	field("size-too-large", "size", "2097153")
	field("size-other", "size", fmt.Sprint(len(good.sealed)+1))
	field("sha256-other", "sha256", Sum(nil).String())
	field("sha256-upper-case", "sha256", strings.ToUpper(Sum(good.sealed).String()))
	field("sha256-short", "sha256", Sum(good.sealed).String()[2:])

	// The right parts at the wrong place.
	m := func() *Manifest {
		m, err := ParseManifest(good.manifest)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	pinned := func(m *Manifest, sealed []byte) *Bundle {
		m.Size, m.SHA256 = int64(len(sealed)), Sum(sealed)
		return clone(sealed, m.Marshal())
	}
	other := m()
	other.Seq = 19
	add("inside-of-another-bundle", pinned(other, good.sealed).sign(t, Namespace, w.agent.signer).Text())
	sameSize := seal(t, w.request(), w.agent.signer)
	add("age-file-swapped", clone(sameSize.sealed, good.manifest, good.signatures...).Text())
	out = append(out, bad{"kind-not-welcome", text, w.toRelay(KindReceipt), relayID})
	out = append(out, bad{"pinned-peer-unknown", text, Expect{Pair: w.pair, To: welcome.To, Kinds: welcome.Kinds}, relayID})
	out = append(out, bad{"no-identity", text, welcome, nil})
	out = append(out, bad{"other-identity", text, welcome, []age.Identity{w.stranger.identity}})

	// A relay that forwards a request, as its own, to another peer of its: the
	// inside still names the agent's outside.
	inside, err := age.Decrypt(bytes.NewReader(good.sealed), w.relay.identity)
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if _, err := plain.ReadFrom(inside); err != nil {
		t.Fatal(err)
	}
	reseed(t, "forwarded")
	forwarded, err := encrypt(plain.Bytes(), w.stranger.recipients)
	if err != nil {
		t.Fatal(err)
	}
	fm := m()
	fm.From, fm.To = KeyFingerprint(w.relay.signer.PublicKey()), RecipientsFingerprint(w.stranger.recipients)
	out = append(out, bad{"forwarded-to-another-receiver", pinned(fm, forwarded).sign(t, Namespace, w.relay.signer).Text(),
		expect(w.relay, w.stranger, w.pair, KindRequest), []age.Identity{w.stranger.identity}})

	// The body, sealed and signed by the agent as if its program were faulty.
	sealedAs := func(name string, m *Manifest, plain []byte) {
		reseed(t, name)
		sealed, err := encrypt(plain, w.relay.recipients)
		if err != nil {
			t.Fatal(err)
		}
		add(name, pinned(m, sealed).sign(t, Namespace, w.agent.signer).Text())
	}
	bendBody := func(name string, change func(string) string) {
		body := change(plain.String())
		if body == plain.String() {
			t.Fatalf("%s bends nothing", name)
		}
		sealedAs(name, m(), []byte(body))
	}
	bodyField := func(name, field, value string) {
		bendBody(name, func(b string) string { return setField(b, field, value) })
	}
	receipt, err := newBody(m().Context(), &Receipt{Label: "site-a", Outcome: OutcomeApplied}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sealedAs("kind-inside-is-another", m(), receipt.Marshal())
	sealedAs("body-empty", m(), nil)
	bodyField("body-context-other", "context", Sum(nil).String())
	bodyField("body-unknown-kind", "azs-courier-body/v1 request", "azs-courier-body/v1 order")
	bodyField("body-missing-field", "note", "")
	bendBody("body-extra-field", func(b string) string { return strings.Replace(b, "note: ", "motto: x\nnote: ", 1) })
	bendBody("body-65-lines", func(b string) string {
		return strings.Replace(b, "\n\n", strings.Repeat("\nx: y", 64)+"\n\n", 1)
	})
	bendBody("body-header-too-long", func(b string) string { return setField(b, "note", strings.Repeat("x", MaxHeader)) })
	bendBody("body-byte-behind", func(b string) string { return b + "x" })
	bodyField("body-operation-unknown", "operation", "delete")
	bodyField("body-operation-dash", "operation", "-")
	bodyField("body-needless-escape", "label", "site%2Da")
	bodyField("body-lower-case-escape", "label", "site%2a")
	bodyField("body-escape-cut", "label", "site%2")
	bodyField("body-nodes-zero", "nodes", "0")
	bodyField("body-nodes-minus", "nodes", "-4")
	bodyField("body-nodes-leading-zero", "nodes", "04")
	bodyField("body-flag-upper-case", "usage-reporting", "True")
	bodyField("body-flag-one", "usage-reporting", "1")
	bodyField("body-digest-zero", "token-sha256", strings.Repeat("0", 64))
	bodyField("body-card-not-base64", "card", "QUJ")
	bodyField("body-encoding-unknown", "encoding", "gzip")
	bodyField("body-length-minus", "length", "-1")
	bodyField("body-length-too-large", "length", "1048577")
	bodyField("body-length-other", "length", "1")

	token := []byte(strings.Repeat("QUFBQUFBQUFBQUFB", 20)) // 240 bytes "A"
	packed := func(name string, data []byte, length int) {
		body := &Body{Context: m().Context(), Content: w.request().Content, Encoding: B64Deflate, Length: length, Encoded: data}
		sealedAs(name, m(), body.Marshal())
	}
	canonical := table(segments(token))
	packed("payload-not-deflate", []byte("hello, world"), len(token))
	packed("payload-cut", deflate(canonical)[:4], len(token))
	packed("payload-byte-behind", append(deflate(canonical), 0), len(token))
	packed("payload-shorter-than-stated", deflate(canonical), len(token)+1)
	packed("payload-longer-than-stated", deflate(canonical), len(token)-1)
	packed("payload-bomb", deflate(make([]byte, MaxPayload)), 100)
	packed("payload-not-segmented", deflate(table([]segment{{literal, token}})), len(token))
	packed("payload-segment-unknown", deflate([]byte{1, 9, 0}), 0)
	packed("payload-table-cut", deflate(canonical[:len(canonical)-1]), len(token))
	packed("payload-table-too-long", deflate(append(canonical[:len(canonical):len(canonical)], 0)), len(token))

	// An age file for a passphrase, and none at all.
	reseed(t, "passphrase")
	var scrypt bytes.Buffer
	r, err := age.NewScryptRecipient("correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(10)
	aw, err := age.Encrypt(&scrypt, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := aw.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := aw.Close(); err != nil {
		t.Fatal(err)
	}
	id, err := age.NewScryptIdentity("correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, bad{"sealed-with-passphrase", pinned(m(), scrypt.Bytes()).sign(t, Namespace, w.agent.signer).Text(), welcome, []age.Identity{id}})
	add("request-in-clear", pinned(m(), plain.Bytes()).sign(t, Namespace, w.agent.signer).Text())

	// Other kinds.
	reseed(t, "rekey")
	rekey := w.request()
	rekey.Content = &Rekey{Card: w.agentCard.Wire()}
	rk := seal(t, rekey, w.agent.signer, w.agentNew.signer)
	add("rekey-without-new-key", clone(rk.sealed, rk.manifest, rk.signatures[0]).Text())
	add("rekey-new-key-as-approval", clone(rk.sealed, rk.manifest, rk.signatures[0]).sign(t, NamespaceApproval, w.agentNew.signer).Text())
	add("rekey-new-key-first", clone(rk.sealed, rk.manifest, rk.signatures[1], rk.signatures[0]).Text())
	cardExpect := Expect{Signer: w.agent.signer.PublicKey(), Kinds: []Kind{KindPairing}}
	bendCard := func(name string, change func(*Manifest)) {
		cm, err := ParseManifest(w.agentCard.manifest)
		if err != nil {
			t.Fatal(err)
		}
		change(cm)
		out = append(out, bad{name, clone(w.agentCard.sealed, cm.Marshal()).sign(t, Namespace, w.agent.signer).Text(), cardExpect, nil})
	}
	bendCard("pairing-with-pair", func(m *Manifest) { m.Pair = w.pair })
	bendCard("pairing-with-receiver", func(m *Manifest) { m.To = welcome.To })
	bendCard("pairing-with-re", func(m *Manifest) { m.Re = Sum(nil) })
	cm, err := ParseManifest(w.agentCard.manifest)
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, bad{"pairing-sealed", pinned(cm, good.sealed).sign(t, Namespace, w.agent.signer).Text(), cardExpect, relayID})
	cardBody := func(name string, change func(string) string) {
		cm, err := ParseManifest(w.agentCard.manifest)
		if err != nil {
			t.Fatal(err)
		}
		body := change(string(w.agentCard.sealed))
		if body == string(w.agentCard.sealed) {
			t.Fatalf("%s bends nothing", name)
		}
		out = append(out, bad{name, pinned(cm, []byte(body)).sign(t, Namespace, w.agent.signer).Text(), cardExpect, nil})
	}
	cardBody("pairing-role-unknown", func(b string) string { return setField(b, "role", "kiosk") })
	cardBody("pairing-list-two-blanks", func(b string) string { return strings.Replace(b, "recipients: ", "recipients: x  ", 1) })
	am := m()
	am.Kind = KindAnswer
	out = append(out, bad{"answer-without-re", clone(good.sealed, am.Marshal()).sign(t, Namespace, w.relay.signer).Text(), expect(w.relay, w.agent, w.pair, KindAnswer), agentID})
	return out
}

// setField replaces the line of a field, or cuts it when value is "". A name with
// a blank in it replaces the first line.
func setField(text, name, value string) string {
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines {
		switch {
		case strings.Contains(name, " ") && strings.TrimSuffix(line, "\n") == name:
			lines[i] = value + "\n"
			return strings.Join(lines, "")
		case strings.HasPrefix(line, name+": "):
			lines[i] = name + ": " + value + "\n"
			if value == "" {
				lines[i] = ""
			}
			return strings.Join(lines, "")
		}
	}
	return text
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// wireUnchecked is Wire under a name that says what is meant: the value need not
// be one that Split gives.
func (b *Bundle) wireUnchecked() []byte { return b.Wire() }
