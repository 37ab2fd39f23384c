package bundle

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// vectors is testdata/vectors/vectors.json. Byte strings that are text stand as
// text, others in base64.
type vectors struct {
	Comment      string
	Dictionary   string
	IDs          []idVector
	Fingerprints map[string]Fingerprint
	Segments     []segmentVector
	Bundles      []bundleVector
}

type idVector struct{ Hex, ID string }

type segmentVector struct{ Text, TableHex string }

type bundleVector struct {
	Name         string
	SignedBy     []string // key and namespace of each signature
	SealedTo     string   // the age identity that opens it, or ""
	ManifestCore string
	Context      string
	Manifest     string
	Digest       string // of the manifest: what a re field says
	Signatures   [][]byte
	SealedSHA256 string
	BodyHeader   string // up to and including the blank line
	Encoding     string
	Payload      string
	Table        []byte // of segments; only for b64-deflate
	Deflated     []byte // one of the right outputs
}

func deflateWithout(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var segmentTexts = []string{
	"",
	"short",
	"AAAAAAAAAAAAAAA",           // 15 digits: too short
	"AAAAAAAAAAAAAAAA",          // 16: a run, in the first alphabet that fits
	"AAAAAAAAAAAAAAAAA",         // 17 digits are no base64
	"AAAAAAAAAAAAAAAAAA",        // 18: raw
	"AAAAAAAAAAAAAAAAAA==",      // 18: padded
	"AAAAAAAAAAAAAAAAAA=",       // 18 and too little padding: literal
	"AAAAAAAAAAAAAAAAAB==",      // trailing bits are not zero: literal
	"<AAAAAAAAAAAAAAAA>",        // literals around
	"AAAAAAAAAAAAAAA-AAAA",      // base64url
	"AAAAAAAAAAAAAAA+AAAA",      // base64
	"AAAAAAAAAAAAAAA+AAAA-AAA",  // a run of the first, then a literal
	"AAAAAAAAAAAAAAAA-AAAA+AAA", // the longer row wins
	"AAAAAAAAAAAAAAAA.____BBBBBBBBBBBBBBBB.----CCCCCCCCCCCCCC",
}

func makeVectors(t *testing.T, w world) vectors {
	t.Helper()
	v := vectors{
		Comment:      "written by go test ./bundle -run TestGolden -update; the keys are test keys, never trust them",
		Dictionary:   string(dictionary),
		Fingerprints: map[string]Fingerprint{},
	}
	for _, h := range []string{"00000000000000000000000000000001", "0123456789abcdeffedcba9876543210", "ffffffffffffffffffffffffffffffff"} {
		raw, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		v.IDs = append(v.IDs, idVector{h, ID(raw).String()})
	}
	v.IDs = append(v.IDs, idVector{hex.EncodeToString(w.pair[:]), w.pair.String()})
	for _, s := range []side{w.agent, w.agentNew, w.relay, w.stranger} {
		v.Fingerprints["key "+s.name] = KeyFingerprint(s.signer.PublicKey())
		v.Fingerprints["recipients "+s.name] = RecipientsFingerprint(s.recipients)
	}
	v.Fingerprints["recipients agent and relay"] = RecipientsFingerprint([]string{w.agent.recipients[0], w.relay.recipients[0]})
	for _, text := range segmentTexts {
		v.Segments = append(v.Segments, segmentVector{text, hex.EncodeToString(table(segments([]byte(text))))})
	}
	sealedTo := map[Fingerprint]string{}
	for _, s := range []side{w.agent, w.relay} {
		sealedTo[RecipientsFingerprint(s.recipients)] = s.name
	}
	for _, g := range w.goldens(t) {
		body, payload, err := openAll(g.bundle.Text(), g.expect, g.by...)
		if err != nil {
			t.Fatal(err)
		}
		m, err := g.bundle.Peek()
		if err != nil {
			t.Fatal(err)
		}
		spelt := body.Marshal()
		b := bundleVector{
			Name: g.name, SealedTo: sealedTo[m.To], ManifestCore: string(m.core()), Context: m.Context().String(), Manifest: string(g.bundle.manifest),
			Digest: g.bundle.Digest().String(), Signatures: g.bundle.signatures, SealedSHA256: Sum(g.bundle.sealed).String(),
			BodyHeader: string(spelt[:len(spelt)-len(body.Encoded)]), Encoding: string(body.Encoding), Payload: string(payload),
		}
		keys, authors, err := g.bundle.signers()
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range keys {
			namespace := Namespace
			if i >= authors {
				namespace = NamespaceApproval
			}
			b.SignedBy = append(b.SignedBy, w.keyName(k)+" "+namespace)
		}
		if body.Encoding == B64Deflate {
			b.Table, b.Deflated = table(segments(payload)), body.Encoded
		}
		v.Bundles = append(v.Bundles, b)
	}
	return v
}

func (w world) keyName(k ssh.PublicKey) string {
	signers := map[string]ssh.Signer{"agent": w.agent.signer, "agent-new": w.agentNew.signer, "relay": w.relay.signer, "approver": w.approver}
	for name, s := range signers {
		if bytes.Equal(s.PublicKey().Marshal(), k.Marshal()) {
			return name
		}
	}
	return "unknown"
}

func writeVectors(t *testing.T, w world) {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(makeVectors(t, w)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vectorsDir, "vectors.json"), out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readVectors(t *testing.T) vectors {
	t.Helper()
	var v vectors
	if err := json.Unmarshal(readFile(t, vectorsDir, "vectors.json"), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestVectors takes each published value to the next one, with the standard
// library where it can, and to the golden files.
func TestVectors(t *testing.T) {
	w := newWorld(t)
	v := readVectors(t)
	if v.Dictionary != string(dictionary) {
		t.Error("the dictionary is not the one of the code")
	}
	for _, id := range v.IDs {
		got, err := ParseID(id.ID)
		if err != nil || hex.EncodeToString(got[:]) != id.Hex {
			t.Errorf("id %s is %x (%v), want %s", id.ID, got, err, id.Hex)
		}
	}
	if got := pairOf(w.agentCard, w.relayCard).String(); got != v.IDs[len(v.IDs)-1].ID {
		t.Errorf("the pair of the two cards is %s, want %s", got, v.IDs[len(v.IDs)-1].ID)
	}
	for name, want := range v.Fingerprints {
		what, who, _ := strings.Cut(name, " ")
		var recipients []string
		for key := range strings.SplitSeq(who, " and ") {
			recipients = append(recipients, testRecipients(t, key)...)
		}
		got := RecipientsFingerprint(recipients)
		if what == "key" {
			got = KeyFingerprint(testSigner(t, who).PublicKey())
		}
		if got != want {
			t.Errorf("fingerprint of %s is %s, want %s", name, got, want)
		}
	}
	for _, s := range v.Segments {
		if got := hex.EncodeToString(table(segments([]byte(s.Text)))); got != s.TableHex {
			t.Errorf("table of %q is %s, want %s", s.Text, got, s.TableHex)
		}
	}
	hexSum := func(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }
	for _, b := range v.Bundles {
		t.Run(b.Name, func(t *testing.T) {
			split, err := Split(readFile(t, goldenDir, b.Name+".azc"))
			if err != nil {
				t.Fatal(err)
			}
			m, err := split.Peek()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{
				"manifest": string(split.manifest), "core": string(m.core()), "core is a prefix": b.ManifestCore,
				"context": m.Context().String(), "context by hand": hexSum([]byte(b.ManifestCore)),
				"digest": hexSum(split.manifest), "sealed": hexSum(split.sealed),
			}
			want := map[string]string{
				"manifest": b.Manifest, "core": b.ManifestCore, "core is a prefix": b.Manifest[:len(b.ManifestCore)],
				"context": b.Context, "context by hand": b.Context,
				"digest": b.Digest, "sealed": b.SealedSHA256,
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(b.Signatures, split.signatures); d != "" {
				t.Error(d)
			}
			keys, authors, err := split.signers()
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) != len(b.SignedBy) {
				t.Fatalf("%d signatures, want %d", len(keys), len(b.SignedBy))
			}
			for i, k := range keys {
				name, namespace, _ := strings.Cut(b.SignedBy[i], " ")
				if !bytes.Equal(testSigner(t, name).PublicKey().Marshal(), k.Marshal()) || (i < authors) != (namespace == Namespace) {
					t.Errorf("signature %d is not by %s", i+1, b.SignedBy[i])
				}
			}
			plain := split.sealed
			if b.SealedTo != "" {
				v, err := split.Verify(Expect{Signer: keys[0], Pair: m.Pair, To: RecipientsFingerprint(testRecipients(t, b.SealedTo)), Kinds: []Kind{m.Kind}})
				if err != nil {
					t.Fatal(err)
				}
				body, err := v.Decrypt(testIdentity(t, b.SealedTo))
				if err != nil {
					t.Fatal(err)
				}
				plain = body.Marshal()
			}
			encoded, ok := strings.CutPrefix(string(plain), b.BodyHeader)
			if !ok {
				t.Fatalf("body does not start with the header: %s", cmp.Diff(b.BodyHeader, string(plain)))
			}
			if !strings.HasPrefix(b.BodyHeader, "azs-courier-body/v1 "+string(m.Kind)+"\ncontext: "+b.Context+"\n") {
				t.Error("the header does not start with kind and context")
			}
			if b.Encoding == string(Identity) {
				if encoded != b.Payload {
					t.Errorf("payload is %q, want %q", encoded, b.Payload)
				}
				return
			}
			if encoded != string(b.Deflated) {
				t.Error("the deflated table is not what stands in the body")
			}
			inflated, err := inflate([]byte(encoded), maxTable(len(b.Payload)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(inflated, b.Table) || !bytes.Equal(table(segments([]byte(b.Payload))), b.Table) {
				t.Errorf("tables differ: inflated %s, published %s", base64.StdEncoding.EncodeToString(inflated), base64.StdEncoding.EncodeToString(b.Table))
			}
			text, err := rebuild(b.Table, len(b.Payload))
			if err != nil || string(text) != b.Payload {
				t.Errorf("the table rebuilds to %q (%v), want %q", text, err, b.Payload)
			}
		})
	}
}
