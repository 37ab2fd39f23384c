package trust

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

var labelPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckLabel accepts a label of 1 to 63 letters, digits, dots, underscores and
// hyphens. It is a file name in the state folder and stands in the card, which
// crosses in clear: a label should not tell whose site it is.
func CheckLabel(label string) error {
	if !labelPattern.MatchString(label) {
		return fault.New(fault.Usage, "label %q is not 1 to 63 letters, digits, dots, underscores and hyphens, starting with a letter or digit", label)
	}
	return nil
}

// Card is a pairing card whose self-signature has verified: the public half of
// one side. It proves that its parts belong together, not whose they are.
type Card struct {
	Role       string // bundle.RoleAgent or bundle.RoleRelay
	Label      string
	Key        ssh.PublicKey
	Recipients []string // age
	Approvers  []string // key fingerprints
	Created    time.Time
	Bundle     *bundle.Bundle
}

// newCard makes and signs a card.
func newCard(role, label string, signer ssh.Signer, recipients, approvers []string, now time.Time, rand io.Reader) (*Card, error) {
	id, err := bundle.NewID(rand)
	if err != nil {
		return nil, err
	}
	b, err := bundle.Draft{
		Bundle: id, Seq: 1, Created: now, Expires: now.AddDate(100, 0, 0),
		Content: &bundle.Card{Role: role, Label: label, Key: signer.PublicKey().Marshal(), Recipients: recipients, Approvers: approvers},
	}.Seal(rand, signer)
	if err != nil {
		return nil, err
	}
	return readCard(b)
}

// ReadCard reads a card in either spelling and checks its self-signature.
func ReadCard(raw []byte) (*Card, error) {
	b, err := bundle.Split(raw)
	if err != nil {
		return nil, err
	}
	return readCard(b)
}

func readCard(b *bundle.Bundle) (*Card, error) {
	keys, err := b.Signers()
	if err != nil {
		return nil, err
	}
	// A card is its own introduction: the key that it must be signed by is the one
	// that it carries. Whether that key is the right one, the words decide.
	v, err := b.Verify(bundle.Expect{Signer: keys[0], Kinds: []bundle.Kind{bundle.KindPairing}})
	if err != nil {
		return nil, err
	}
	body, err := v.Decrypt()
	if err != nil {
		return nil, err
	}
	in := body.Content.(*bundle.Card)
	key, err := ssh.ParsePublicKey(in.Key)
	switch {
	case err != nil:
		return nil, fault.New(fault.Refused, "key of the card: %w", err)
	case !sshsig.Allowed(key.Type()):
		return nil, fault.New(fault.Refused, "key of the card has the type %q, which may not sign", key.Type())
	case !bytes.Equal(key.Marshal(), keys[0].Marshal()) || len(keys) != 1:
		return nil, fault.New(fault.Refused, "the card is not signed by the key that it carries, and by that alone")
	case len(in.Recipients) == 0 || len(in.Recipients) > 4:
		return nil, fault.New(fault.Refused, "the card has %d age recipients, want 1 to 4", len(in.Recipients))
	case !labelPattern.MatchString(in.Label):
		return nil, fault.New(fault.Refused, "the card's label %q is not 1 to 63 letters, digits, dots, underscores and hyphens", in.Label)
	case body.Length != 0:
		return nil, fault.New(fault.Refused, "the card has a payload")
	}
	for _, r := range in.Recipients {
		if _, err := bundle.ParseRecipient(r); err != nil {
			return nil, fault.New(fault.Refused, "recipient of the card: %w", err)
		}
	}
	return &Card{Role: in.Role, Label: in.Label, Key: key, Recipients: in.Recipients, Approvers: in.Approvers,
		Created: v.Manifest.Created, Bundle: b}, nil
}

// Fingerprint names the card's signing key.
func (c *Card) Fingerprint() bundle.Fingerprint { return bundle.KeyFingerprint(c.Key) }

// Digest names the card: SHA-256 over its wire spelling.
func (c *Card) Digest() bundle.Digest { return bundle.Sum(c.Bundle.Wire()) }

// SignersLine is the card's line in an allowed_signers file (ssh-keygen(1)).
func (c *Card) SignersLine() string {
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(c.Key)))
	return fmt.Sprintf("%s namespaces=\"%s,%s\" %s\n", c.Label, bundle.Namespace, bundle.NamespaceApproval, key)
}

// order puts two cards into the fixed order, agent first.
func order(a, b *Card) (agent, relay *Card, err error) {
	switch {
	case a.Role == bundle.RoleAgent && b.Role == bundle.RoleRelay:
		return a, b, nil
	case a.Role == bundle.RoleRelay && b.Role == bundle.RoleAgent:
		return b, a, nil
	}
	return nil, nil, fault.New(fault.NotForUs, "a pair is an agent and a relay, these are %s %q and %s %q", a.Role, a.Label, b.Role, b.Label)
}

// PairID names the pair that two cards make: the first 16 bytes of SHA-256 over
// "azs-courier-pair/v1\n" and the digests of the agent's and the relay's card.
func PairID(a, b *Card) (bundle.ID, error) {
	sum, err := hashBoth("azs-courier-pair/v1\n", a, b)
	return bundle.ID(sum[:16]), err
}

func hashBoth(domain string, a, b *Card) (bundle.Digest, error) {
	agent, relay, err := order(a, b)
	if err != nil {
		return bundle.Digest{}, err
	}
	h := sha256.New()
	h.Write([]byte(domain))
	for _, c := range []*Card{agent, relay} {
		d := c.Digest()
		h.Write(d[:])
	}
	return bundle.Digest(h.Sum(nil)), nil
}
