package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/tag"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/clock"
)

// Kind is what a bundle is for.
type Kind string

// The kinds of bundle.
const (
	KindRequest Kind = "request" // agent → relay: a registration token, or an order to unregister
	KindAnswer  Kind = "answer"  // relay → agent: an activation key
	KindReceipt Kind = "receipt" // agent → relay: the answer was applied
	KindPairing Kind = "pairing" // a card: keys and label, self-signed, in clear
	KindRekey   Kind = "rekey"   // a new card, signed by the old and the new key
)

// Valid reports whether k is one of the kinds.
func (k Kind) Valid() bool {
	switch k {
	case KindRequest, KindAnswer, KindReceipt, KindPairing, KindRekey:
		return true
	}
	return false
}

// ID is a 128-bit name of a bundle or a pair. The zero ID is "none".
type ID [16]byte

var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// NewID reads a random ID.
func NewID(rand io.Reader) (ID, error) {
	var id ID
	if _, err := io.ReadFull(rand, id[:]); err != nil {
		return ID{}, fmt.Errorf("read randomness: %w", err)
	}
	return id, nil
}

// ParseID reads the 26 characters of Crockford's base32 that [ID.String] writes.
func ParseID(s string) (ID, error) {
	b, err := crockford.DecodeString(s)
	if err != nil || len(b) != len(ID{}) || ID(b).String() != s {
		return ID{}, fmt.Errorf("%q is not an id of 26 Crockford base32 characters", s)
	}
	return ID(b), nil
}

// String returns 26 characters of Crockford's base32, the most significant bit
// first, the last two bits zero.
func (id ID) String() string { return crockford.EncodeToString(id[:]) }

// Short returns the first ten characters in lower case, for file names.
func (id ID) Short() string { return strings.ToLower(id.String()[:10]) }

// IsZero reports whether the id is "none".
func (id ID) IsZero() bool { return id == ID{} }

// Digest is a SHA-256 digest. In a manifest it is spelt in lower-case hex. The
// zero Digest is "none".
type Digest [sha256.Size]byte

// Sum returns the digest of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads 64 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != s {
		return Digest{}, fmt.Errorf("%q is not a SHA-256 of 64 lower-case hex digits", s)
	}
	return Digest(b), nil
}

// String returns 64 lower-case hex digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether the digest is "none".
func (d Digest) IsZero() bool { return d == Digest{} }

// Fingerprint names a key or a set of recipients: "SHA256:" and 43 characters of
// unpadded base64, as OpenSSH spells it.
type Fingerprint string

// KeyFingerprint returns the OpenSSH fingerprint of a signing key.
func KeyFingerprint(key ssh.PublicKey) Fingerprint {
	return Fingerprint(ssh.FingerprintSHA256(key))
}

// RecipientsFingerprint returns the fingerprint of a set of age recipient
// strings: SHA-256 over the sorted strings, each followed by a line feed.
func RecipientsFingerprint(recipients []string) Fingerprint {
	sorted := slices.Sorted(slices.Values(recipients))
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\n") + "\n"))
	return Fingerprint("SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]))
}

func parseFingerprint(s string) (Fingerprint, error) {
	b64, ok := strings.CutPrefix(s, "SHA256:")
	b, err := base64.RawStdEncoding.Strict().DecodeString(b64)
	if !ok || err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("%q is not a SHA256: fingerprint", s)
	}
	return Fingerprint(s), nil
}

// ParseRecipient reads a native age recipient string: age1pq1…, age1…,
// age1tag1… or age1tagpq1…. There is no passphrase recipient and no plugin.
func ParseRecipient(s string) (age.Recipient, error) {
	switch {
	case strings.HasPrefix(s, "age1pq1"):
		return age.ParseHybridRecipient(s)
	case strings.HasPrefix(s, "age1tag1"), strings.HasPrefix(s, "age1tagpq1"):
		return tag.ParseRecipient(s)
	case strings.HasPrefix(s, "age1"):
		return age.ParseX25519Recipient(s)
	}
	return nil, fmt.Errorf("%q is not an age recipient (age1pq1…, age1…, age1tag1…, age1tagpq1…)", s)
}

// Limits of the manifest.
const (
	MaxManifest      = 4096 // bytes
	MaxManifestLines = 32
)

const manifestMagic = "azs-courier/v1 "

// Manifest is the signed outside of a bundle. It holds no name of a customer, a
// stamp, a subscription or a site.
type Manifest struct {
	Kind    Kind
	Bundle  ID
	Pair    ID          // none only for pairing
	Seq     uint64      // per direction, strictly increasing, from 1
	From    Fingerprint // of the signer's key
	To      Fingerprint // of the recipients; "" (spelt "-") only for pairing
	Re      Digest      // of the manifest that this one answers; none for request, pairing, rekey
	Created time.Time   // the sender's clock, whole seconds
	Expires time.Time   // the request author's clock
	Size    int64       // bytes of the sealed section
	SHA256  Digest      // of the sealed section
}

// core spells the manifest up to and including its expires line: what the body's
// context binds.
func (m *Manifest) core() []byte {
	var b bytes.Buffer
	line := func(name, value string) {
		if value == "" {
			value = "-"
		}
		b.WriteString(name + ": " + value + "\n")
	}
	id := func(id ID) string {
		if id.IsZero() {
			return ""
		}
		return id.String()
	}
	b.WriteString(manifestMagic + string(m.Kind) + "\n")
	line("bundle", id(m.Bundle))
	line("pair", id(m.Pair))
	line("seq", strconv.FormatUint(m.Seq, 10))
	line("from", string(m.From))
	line("to", string(m.To))
	if m.Re.IsZero() {
		line("re", "")
	} else {
		line("re", m.Re.String())
	}
	line("created", clock.Format(m.Created))
	line("expires", clock.Format(m.Expires))
	return b.Bytes()
}

// Marshal returns the signed bytes: ASCII lines, each ended by a line feed.
func (m *Manifest) Marshal() []byte {
	return fmt.Appendf(m.core(), "size: %d\nsha256: %s\n", m.Size, m.SHA256)
}

// Context is the digest that the body repeats: SHA-256 of the manifest up to and
// including its expires line.
func (m *Manifest) Context() Digest { return Sum(m.core()) }

// Digest is the manifest's own name, which an answer gives as re.
func (m *Manifest) Digest() Digest { return Sum(m.Marshal()) }

// ParseManifest reads the signed bytes. Fields stand in their fixed order, none
// is missing, repeated or unknown, and what is accepted marshals to the same
// bytes.
func ParseManifest(raw []byte) (*Manifest, error) {
	if len(raw) > MaxManifest {
		return nil, fmt.Errorf("manifest has %d bytes, at most %d are allowed", len(raw), MaxManifest)
	}
	if n := bytes.Count(raw, []byte("\n")); n > MaxManifestLines {
		return nil, fmt.Errorf("manifest has %d lines, at most %d are allowed", n, MaxManifestLines)
	}
	l := newLines(raw)
	m := &Manifest{Kind: Kind(l.first(manifestMagic))}
	l.read("bundle", func(s string) (err error) { m.Bundle, err = ParseID(s); return })
	l.read("pair", optional(func(s string) (err error) { m.Pair, err = ParseID(s); return }))
	l.read("seq", func(s string) (err error) { m.Seq, err = parseUint(s, math.MaxInt64); return })
	l.read("from", func(s string) (err error) { m.From, err = parseFingerprint(s); return })
	l.read("to", optional(func(s string) (err error) { m.To, err = parseFingerprint(s); return }))
	l.read("re", optional(func(s string) (err error) { m.Re, err = ParseDigest(s); return }))
	l.read("created", func(s string) (err error) { m.Created, err = clock.Parse(s); return })
	l.read("expires", func(s string) (err error) { m.Expires, err = clock.Parse(s); return })
	l.read("size", func(s string) error {
		n, err := parseUint(s, MaxFile)
		m.Size = int64(n)
		return err
	})
	l.read("sha256", func(s string) (err error) { m.SHA256, err = ParseDigest(s); return })
	if err := l.end(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if !bytes.Equal(m.Marshal(), raw) {
		return nil, fmt.Errorf("manifest: a value is not in its one spelling")
	}
	return m, nil
}

// check holds the rules that the kind sets.
func (m *Manifest) check() error {
	answers := m.Kind == KindAnswer || m.Kind == KindReceipt
	switch {
	case !m.Kind.Valid():
		return fmt.Errorf("kind %q is unknown", m.Kind)
	case m.Bundle.IsZero():
		return fmt.Errorf("bundle id is zero")
	case m.Seq == 0:
		return fmt.Errorf("seq is 0, the first is 1")
	case m.Kind == KindPairing && (!m.Pair.IsZero() || m.To != ""):
		return fmt.Errorf("pair and to must be \"-\" in a pairing")
	case m.Kind != KindPairing && (m.Pair.IsZero() || m.To == ""):
		return fmt.Errorf("pair and to must be named in a %s", m.Kind)
	case m.Re.IsZero() && answers:
		return fmt.Errorf("re must name the manifest that the %s answers", m.Kind)
	case !m.Re.IsZero() && !answers:
		return fmt.Errorf("re must be \"-\" in a %s", m.Kind)
	case m.Expires.Before(m.Created) && !answers:
		return fmt.Errorf("expires lies before created")
	}
	return nil
}

func optional(parse func(string) error) func(string) error {
	return func(s string) error {
		if s == "-" {
			return nil
		}
		return parse(s)
	}
}
