package bundle

import (
	"bytes"
	"io"
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

// Approvers returns the keys that signed the manifest beside its author, in
// [NamespaceApproval]. Whose they are is not said.
func (v *Verified) Approvers() []ssh.PublicKey { return v.Signers[v.Manifest.Kind.authors():] }

// Approve returns the bundle with the approval of a key. A key that approved already
// is a [fault.Replay]; that of the author, and a ninth signature, a [fault.Usage].
func (b *Bundle) Approve(rand io.Reader, signer ssh.Signer) (*Bundle, error) {
	if err := b.mayApprove(signer.PublicKey()); err != nil {
		return nil, err
	}
	blob, err := sshsig.Sign(rand, signer, NamespaceApproval, b.manifest)
	if err != nil {
		return nil, err
	}
	return b.approved(blob)
}

// ApproveBy is [Bundle.Approve] with a signature that somebody else made, for
// instance with `ssh-keygen -Y sign -n azs-courier-approval@v1` over the manifest,
// up to and without the empty line: the armor as ssh-keygen writes it, on Windows
// too. What does not fit the manifest is [fault.Refused].
func (b *Bundle) ApproveBy(armored []byte) (*Bundle, ssh.PublicKey, error) {
	blob, rest, err := armorSignature.decode(bytes.ReplaceAll(armored, []byte("\r\n"), []byte("\n")))
	if err == nil && len(rest) > 0 {
		err = fault.New(fault.Refused, "something follows its end")
	}
	if err != nil {
		return nil, nil, fault.New(fault.Refused, "the signature cannot be read: %w", err)
	}
	sig, err := sshsig.Parse(blob)
	if err != nil {
		return nil, nil, fault.New(fault.Refused, "the signature is damaged: %w", err)
	}
	if err := sig.Verify(NamespaceApproval, b.manifest); err != nil {
		return nil, nil, fault.New(fault.Refused, "the signature is none for the manifest of this bundle: %w", err)
	}
	if err := b.mayApprove(sig.Key); err != nil {
		return nil, sig.Key, err
	}
	out, err := b.approved(blob)
	return out, sig.Key, err
}

// WithApprovalsOf returns the bundle with the approvals of other that it lacks, and
// itself where it lacks none. Another bundle is [fault.Refused].
func (b *Bundle) WithApprovalsOf(other *Bundle) (*Bundle, error) {
	if !bytes.Equal(b.manifest, other.manifest) || !bytes.Equal(b.sealed, other.sealed) {
		return nil, fault.New(fault.Refused, "the approvals are for the bundle with digest %s, not for %s", other.Digest(), b.Digest())
	}
	held, authors, err := b.signers()
	if err != nil {
		return nil, err
	}
	theirs, _, err := other.signers()
	if err != nil {
		return nil, err
	}
	for i, key := range theirs[authors:] {
		if slices.ContainsFunc(held, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), key.Marshal()) }) {
			continue
		}
		if b, err = b.approved(other.signatures[authors+i]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// mayApprove judges a key before anybody is asked to sign with it.
func (b *Bundle) mayApprove(key ssh.PublicKey) error {
	keys, authors, err := b.signers()
	if err != nil {
		return err
	}
	for i, k := range keys {
		switch {
		case !bytes.Equal(k.Marshal(), key.Marshal()):
		case i < authors:
			return fault.New(fault.Usage, "%s made the bundle and cannot approve it", KeyFingerprint(key))
		default:
			return fault.New(fault.Replay, "%s has approved the bundle already", KeyFingerprint(key))
		}
	}
	if len(keys) == MaxSignatures {
		return fault.New(fault.Usage, "the bundle has %d signatures, and no more fit", MaxSignatures)
	}
	return nil
}

func (b *Bundle) approved(blob []byte) (*Bundle, error) {
	out := &Bundle{manifest: b.manifest, sealed: b.sealed, signatures: append(slices.Clone(b.signatures), blob)}
	if _, err := out.Signers(); err != nil {
		return nil, err
	}
	return out, nil
}
