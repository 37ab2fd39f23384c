// Package bundle is the one format that crosses the gap: a request out of the
// stamp, an answer back in, a receipt, a pairing card, a key change.
//
// A bundle is a small text manifest, one to eight SSH signatures over its bytes,
// and an age file that the manifest pins by SHA-256. Who holds the manifest, the
// signatures and the age file can check who sent it with ssh-keygen, sed, base64
// and sha256sum alone; who holds an age identity of the receiver can read the
// inside with age. docs/FORMAT.md is the whole specification.
//
// The security property: nothing of the inside is decrypted, and no field of the
// outside is believed, before the signature of the pinned peer has verified over
// it. The types hold the order: [Split] gives a [Bundle] of which only the
// sections are known, [Bundle.Verify] gives a [Verified] of which the manifest is
// known, and only a Verified can be decrypted, to a body that must name the
// manifest it was made for.
//
// The limit: this package does not know what time it is, what was used before or
// what was asked for. Between Verify and Decrypt the caller checks sequence,
// expiry and the pending request; afterwards it compares the body with what it
// expected.
//
// The package reads no file, no clock and no randomness of its own; age, which it
// encrypts with, takes its randomness from crypto/rand.
package bundle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

// Limits of a bundle.
const (
	MaxFile       = 2 << 20 // bytes of either spelling
	MaxSignatures = 8
)

// Namespaces of the signatures.
const (
	Namespace         = "azs-courier@v1"
	NamespaceApproval = "azs-courier-approval@v1"
)

const (
	wireMagic = "AZC1"
	ageMagic  = "age-encryption.org/v1\n"
)

// Bundle is the three sections of a bundle, split but neither verified nor
// decoded. Its text and its wire spelling are two ways to write the same value.
type Bundle struct {
	manifest   []byte
	signatures [][]byte
	sealed     []byte // an age file; for a pairing card, a body in clear
}

// Split reads either spelling into sections, by exact markers. Every failure is
// [fault.Refused].
// The bundle does not share memory with raw.
func Split(raw []byte) (*Bundle, error) {
	b, err := split(raw)
	if err != nil {
		return nil, fault.New(fault.Refused, "not a whole bundle: %w", err)
	}
	return b, nil
}

func split(raw []byte) (*Bundle, error) {
	if len(raw) > MaxFile {
		return nil, fmt.Errorf("it has more than %d bytes", MaxFile)
	}
	var b *Bundle
	var err error
	switch {
	case len(raw) == 0:
		return nil, errors.New("it is empty")
	case bytes.HasPrefix(raw, []byte(wireMagic)):
		b, err = splitWire(bytes.Clone(raw[len(wireMagic):]))
	case bytes.HasPrefix(raw, []byte(manifestMagic)):
		b, err = splitText(bytes.Clone(raw))
	default:
		return nil, fmt.Errorf("it starts neither with %q nor with %q", manifestMagic, wireMagic)
	}
	if err != nil {
		return nil, err
	}
	if len(b.Text()) > MaxFile {
		return nil, fmt.Errorf("its text has more than %d bytes", MaxFile)
	}
	return b, nil
}

func splitText(raw []byte) (*Bundle, error) {
	head := raw[:min(len(raw), MaxManifest+1)]
	i := bytes.Index(head, []byte("\n\n"))
	switch {
	case bytes.Contains(head, []byte("\r\n")):
		return nil, errors.New("its lines end in CR LF: some program on the way rewrote it as text")
	case i < 0 && len(raw) <= MaxManifest:
		return nil, errors.New("its manifest has no end: the file is cut short")
	case i < 0:
		return nil, fmt.Errorf("its manifest does not end within %d bytes", MaxManifest)
	}
	b := &Bundle{manifest: raw[:i+1]}
	rest := raw[i+2:]
	for {
		var blob []byte
		var err error
		if blob, rest, err = armorSignature.decode(rest); err != nil {
			return nil, err
		}
		if len(blob) > sshsig.MaxBlob {
			return nil, fmt.Errorf("a signature has %d bytes, at most %d are allowed", len(blob), sshsig.MaxBlob)
		}
		if b.signatures = append(b.signatures, blob); len(b.signatures) > MaxSignatures {
			return nil, fmt.Errorf("it has more than %d signatures", MaxSignatures)
		}
		if !bytes.HasPrefix(rest, []byte(armorSignature.begin())) {
			break
		}
	}
	a := armorAge
	if bytes.HasPrefix(rest, []byte(armorBody.begin())) {
		a = armorBody
	}
	var err error
	if b.sealed, rest, err = a.decode(rest); err != nil {
		return nil, err
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%d bytes follow its end", len(rest))
	}
	if got, err := sealedArmor(b.sealed); err != nil || got != a {
		return nil, fmt.Errorf("its %q block holds something else", a.label)
	}
	return b, nil
}

// sealedArmor tells by its first bytes under which label a sealed section is
// spelt in text.
func sealedArmor(sealed []byte) (armor, error) {
	switch {
	case bytes.HasPrefix(sealed, []byte(ageMagic)):
		return armorAge, nil
	case bytes.HasPrefix(sealed, []byte(bodyMagic)):
		return armorBody, nil
	}
	return armor{}, errors.New("its sealed section is neither an age file nor a body")
}

func splitWire(rest []byte) (*Bundle, error) {
	short := errors.New("it is cut short")
	take := func(sizeBytes, limit int) ([]byte, error) {
		if len(rest) < sizeBytes {
			return nil, short
		}
		n := 0
		for _, c := range rest[:sizeBytes] {
			n = n<<8 | int(c)
		}
		rest = rest[sizeBytes:]
		if n > limit {
			return nil, fmt.Errorf("a section has %d bytes, at most %d are allowed", n, limit)
		}
		if len(rest) < n {
			return nil, short
		}
		out := rest[:n]
		rest = rest[n:]
		return out, nil
	}
	b := &Bundle{}
	var err error
	if b.manifest, err = take(2, MaxManifest); err != nil {
		return nil, err
	}
	// In text, the first blank line ends the manifest: none may stand inside it. Nor
	// may CR LF, which text never has: what is a bundle in one spelling is one in both.
	if !bytes.HasPrefix(b.manifest, []byte(manifestMagic)) || !bytes.HasSuffix(b.manifest, []byte("\n")) ||
		bytes.Contains(b.manifest, []byte("\n\n")) || bytes.Contains(b.manifest, []byte("\r\n")) {
		return nil, errors.New("its manifest section is not a manifest")
	}
	if len(rest) == 0 {
		return nil, short
	}
	count := int(rest[0])
	rest = rest[1:]
	if count < 1 || count > MaxSignatures {
		return nil, fmt.Errorf("it has %d signatures, 1 to %d are allowed", count, MaxSignatures)
	}
	for range count {
		blob, err := take(2, sshsig.MaxBlob)
		if err != nil {
			return nil, err
		}
		b.signatures = append(b.signatures, blob)
	}
	if b.sealed, err = take(4, MaxFile); err != nil {
		return nil, err
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%d bytes follow its end", len(rest))
	}
	_, err = sealedArmor(b.sealed)
	return b, err
}

// Text returns the text spelling: manifest, blank line, armored signatures,
// armored age file.
func (b *Bundle) Text() []byte {
	out := append(bytes.Clone(b.manifest), '\n')
	for _, s := range b.signatures {
		out = append(out, armorSignature.encode(s)...)
	}
	a, err := sealedArmor(b.sealed)
	if err != nil {
		panic(err) // split and Seal let nothing else in
	}
	return append(out, a.encode(b.sealed)...)
}

// Wire returns the wire spelling: the magic AZC1, the manifest behind a 16-bit
// length, a count byte, the signature blobs behind 16-bit lengths, the sealed
// section behind a 32-bit length; lengths big-endian.
func (b *Bundle) Wire() []byte {
	out := []byte(wireMagic)
	out = binary.BigEndian.AppendUint16(out, uint16(len(b.manifest)))
	out = append(out, b.manifest...)
	out = append(out, byte(len(b.signatures)))
	for _, s := range b.signatures {
		out = binary.BigEndian.AppendUint16(out, uint16(len(s)))
		out = append(out, s...)
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.sealed)))
	return append(out, b.sealed...)
}

// Digest is the digest of the manifest bytes: the bundle's name in a re field.
func (b *Bundle) Digest() Digest { return Sum(b.manifest) }

// Peek decodes the manifest without any check. It may improve a message; no
// decision rests on it.
func (b *Bundle) Peek() (*Manifest, error) { return ParseManifest(b.manifest) }

// Signers checks that every signature fits the manifest and returns the keys that
// made them, in order: the author's in [Namespace] first (for a rekey, the new
// key second), then those of approvers in [NamespaceApproval]. A key signs once.
// Who they are is not said.
func (b *Bundle) Signers() ([]ssh.PublicKey, error) {
	keys, _, err := b.signers()
	return keys, err
}

// signers also counts the leading keys that signed as author.
func (b *Bundle) signers() (keys []ssh.PublicKey, authors int, err error) {
	for i, blob := range b.signatures {
		sig, err := sshsig.Parse(blob)
		if err != nil {
			return nil, 0, fault.New(fault.Refused, "signature %d of the bundle is damaged: %w", i+1, err)
		}
		namespace := Namespace
		if i > 0 && (i > authors || sig.Namespace == NamespaceApproval) {
			namespace = NamespaceApproval
		}
		if err := sig.Verify(namespace, b.manifest); err != nil {
			return nil, 0, fault.New(fault.Refused, "signature %d of the bundle is wrong: %w", i+1, err)
		}
		for _, k := range keys {
			if bytes.Equal(k.Marshal(), sig.Key.Marshal()) {
				return nil, 0, fault.New(fault.Refused, "the bundle is signed twice by %s", KeyFingerprint(k))
			}
		}
		if keys = append(keys, sig.Key); namespace == Namespace {
			authors++
		}
	}
	return keys, authors, nil
}

// authors is the number of keys that sign a bundle of this kind as its author.
func (k Kind) authors() int {
	if k == KindRekey {
		return 2 // the old key and the new one
	}
	return 1
}

// Expect is what a receiver knows before it opens a bundle.
type Expect struct {
	Signer ssh.PublicKey // the pinned key of the peer; never taken from the bundle
	Pair   ID            // none for a card
	To     Fingerprint   // our own recipients; "" for a card
	Kinds  []Kind        // what is welcome here
}

// Verified is a bundle whose manifest the pinned peer signed for us.
type Verified struct {
	Manifest *Manifest
	Signers  []ssh.PublicKey // the peer; for a rekey, the new key; then the approvers
	bundle   *Bundle
}

// Verify takes the steps 3 to 5 of opening: the signature by the pinned key, the
// manifest's addresses, and the size and digest of the sealed section. Wrong
// signatures and digests are [fault.Refused], wrong addresses [fault.NotForUs].
func (b *Bundle) Verify(e Expect) (*Verified, error) {
	keys, authors, err := b.signers()
	if err != nil {
		return nil, err
	}
	if e.Signer == nil || !bytes.Equal(keys[0].Marshal(), e.Signer.Marshal()) {
		return nil, fault.New(fault.NotForUs, "the bundle is signed by %s, not by the pinned peer%s", KeyFingerprint(keys[0]), b.addressed(e))
	}
	m, err := ParseManifest(b.manifest)
	if err != nil {
		return nil, fault.New(fault.Refused, "%w", err)
	}
	if err := m.addressed(e); err != nil {
		return nil, err
	}
	if authors != m.Kind.authors() {
		return nil, fault.New(fault.Refused, "bundle %s has %d signatures of its author, a %s has %d", m.Bundle, authors, m.Kind, m.Kind.authors())
	}
	if m.Size != int64(len(b.sealed)) {
		return nil, fault.New(fault.Refused, "%d of %d sealed bytes of bundle %s arrived", len(b.sealed), m.Size, m.Bundle).Hint("copy the bundle again from where it was made")
	}
	if m.SHA256 != Sum(b.sealed) {
		return nil, fault.New(fault.Refused, "the sealed bytes of bundle %s are not the signed ones: SHA-256 is %s, want %s", m.Bundle, Sum(b.sealed), m.SHA256).Hint("copy the bundle again from where it was made")
	}
	if a, err := sealedArmor(b.sealed); err != nil || (a == armorBody) != (m.Kind == KindPairing) {
		return nil, fault.New(fault.Refused, "bundle %s is a %s and holds an %q: only a pairing card is in clear", m.Bundle, m.Kind, a.label)
	}
	return &Verified{Manifest: m, Signers: keys, bundle: b}, nil
}

// addressed improves the message about a foreign signer.
func (b *Bundle) addressed(e Expect) string {
	m, err := b.Peek()
	if err != nil || m.Pair == e.Pair {
		return ""
	}
	return fmt.Sprintf("; it says it is for pair %s, this is pair %s", m.Pair, e.Pair)
}

func (m *Manifest) addressed(e Expect) error {
	switch {
	case m.From != KeyFingerprint(e.Signer):
		return fault.New(fault.NotForUs, "bundle %s says it is from %s, but %s signed it", m.Bundle, m.From, KeyFingerprint(e.Signer))
	case m.To != e.To:
		return fault.New(fault.NotForUs, "bundle %s is for the recipients %s, ours are %s", m.Bundle, m.To, e.To)
	case m.Pair != e.Pair:
		return fault.New(fault.NotForUs, "bundle %s is for pair %s, this is pair %s", m.Bundle, m.Pair, e.Pair)
	}
	for _, k := range e.Kinds {
		if k == m.Kind {
			return nil
		}
	}
	return fault.New(fault.NotForUs, "bundle %s is of kind %s, want %v", m.Bundle, m.Kind, e.Kinds)
}

// Decrypt opens the sealed section with age identities, never a passphrase, and
// checks that the body was made for this manifest. Every failure is
// [fault.Refused], but one of an identity that says itself that it is
// [fault.Locked] or was stopped.
func (v *Verified) Decrypt(identities ...age.Identity) (*Body, error) {
	plain := v.bundle.sealed
	if v.Manifest.Kind != KindPairing {
		for _, id := range identities {
			if _, passphrase := id.(*age.ScryptIdentity); passphrase {
				return nil, fault.New(fault.Refused, "bundle %s is not opened with a passphrase", v.Manifest.Bundle)
			}
		}
		r, err := age.Decrypt(bytes.NewReader(v.bundle.sealed), identities...)
		if k := fault.KindOf(err); k == fault.Locked || k == fault.Cancelled { // of an identity that a plugin holds
			return nil, err
		}
		if err != nil {
			return nil, fault.New(fault.Refused, "bundle %s does not decrypt with our identity: %w", v.Manifest.Bundle, err)
		}
		if plain, err = io.ReadAll(r); err != nil { // age only grows what it seals: less than MaxFile
			return nil, fault.New(fault.Refused, "bundle %s does not decrypt to its end: %w", v.Manifest.Bundle, err)
		}
	}
	body, err := parseBody(plain)
	switch {
	case err != nil:
		return nil, fault.New(fault.Refused, "bundle %s: %w", v.Manifest.Bundle, err)
	case body.Content.Kind() != v.Manifest.Kind:
		return nil, fault.New(fault.Refused, "bundle %s is a %s outside and a %s inside", v.Manifest.Bundle, v.Manifest.Kind, body.Content.Kind())
	case body.Context != v.Manifest.Context():
		return nil, fault.New(fault.Refused, "the inside of bundle %s was made for another outside: context is %s, want %s", v.Manifest.Bundle, body.Context, v.Manifest.Context())
	}
	return body, nil
}

// Draft is what a sender says; [Draft.Seal] adds what can be computed.
type Draft struct {
	Bundle     ID
	Pair       ID
	Seq        uint64
	Recipients []string // age recipients of the receiver; none for a card
	Re         Digest
	Created    time.Time
	Expires    time.Time
	Content    Content
	Payload    []byte
}

// Seal encrypts the body to the recipients and signs the manifest: by one key, a
// rekey by the old and then the new one. The random source is for the signature
// only; the caller draws the bundle's ID.
func (d Draft) Seal(rand io.Reader, signers ...ssh.Signer) (*Bundle, error) {
	if want := d.Content.Kind().authors(); len(signers) != want {
		return nil, fmt.Errorf("a %s is signed by %d keys, not %d", d.Content.Kind(), want, len(signers))
	}
	m := &Manifest{
		Kind: d.Content.Kind(), Bundle: d.Bundle, Pair: d.Pair, Seq: d.Seq,
		From: KeyFingerprint(signers[0].PublicKey()), Re: d.Re,
		Created: d.Created.UTC().Truncate(time.Second), Expires: d.Expires.UTC().Truncate(time.Second),
	}
	if len(d.Recipients) > 0 {
		m.To = RecipientsFingerprint(d.Recipients)
	}
	body, err := newBody(m.Context(), d.Content, d.Payload)
	if err != nil {
		return nil, err
	}
	plain := body.Marshal()
	if _, err := parseBody(plain); err != nil {
		return nil, fmt.Errorf("body cannot be read back: %w", err)
	}
	sealed := plain
	if m.Kind != KindPairing {
		if sealed, err = encrypt(plain, d.Recipients); err != nil {
			return nil, err
		}
	}
	m.Size, m.SHA256 = int64(len(sealed)), Sum(sealed)
	b := &Bundle{manifest: m.Marshal(), sealed: sealed}
	if _, err := ParseManifest(b.manifest); err != nil {
		return nil, err
	}
	for _, s := range signers {
		blob, err := sshsig.Sign(rand, s, Namespace, b.manifest)
		if err != nil {
			return nil, err
		}
		b.signatures = append(b.signatures, blob)
	}
	if _, err := split(b.Text()); err != nil {
		return nil, err
	}
	return b, nil
}

// CheckRecipients reports whether a bundle can be sealed to all of the recipients
// at once. age refuses to put one that a quantum computer could open (age1…,
// age1tag1…) beside one that it could not (age1pq1…, age1tagpq1…).
func CheckRecipients(recipients []string) error {
	_, err := encrypt(nil, recipients)
	return err
}

func encrypt(plain []byte, recipients []string) ([]byte, error) {
	if len(recipients) == 0 {
		return nil, errors.New("there is no recipient")
	}
	var to []age.Recipient
	for _, s := range recipients {
		r, err := ParseRecipient(s)
		if err != nil {
			return nil, err
		}
		to = append(to, r)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out.Bytes(), nil
}
