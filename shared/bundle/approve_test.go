package bundle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

// Threat: an approval for one bundle, or for another purpose, is put under another
// bundle, or one person's is counted twice.
func TestApprove(t *testing.T) {
	w := newWorld(t)
	made := seal(t, w.request(), w.agent.signer)
	armored := func(namespace string, b *Bundle, s ssh.Signer) []byte {
		blob, err := sshsig.Sign(rand.Reader, s, namespace, b.manifest)
		if err != nil {
			t.Fatal(err)
		}
		return armorSignature.encode(blob)
	}
	approved, err := made.Approve(rand.Reader, w.approver)
	if err != nil {
		t.Fatal(err)
	}
	if approved.Digest() != made.Digest() || len(made.signatures) != 1 {
		t.Error("an approval changed the bundle")
	}
	by, key, err := made.ApproveBy(armored(NamespaceApproval, made, w.approver))
	if err != nil || by.Digest() != made.Digest() || KeyFingerprint(key) != KeyFingerprint(w.approver.PublicKey()) {
		t.Errorf("an approval that was made elsewhere: %v", err)
	}
	if _, _, err := made.ApproveBy(bytes.ReplaceAll(armored(NamespaceApproval, made, w.approver), []byte("\n"), []byte("\r\n"))); err != nil {
		t.Errorf("as Windows writes it: %v", err)
	}
	for _, wire := range [][]byte{approved.Text(), approved.Wire()} {
		back, err := Split(wire)
		if err != nil {
			t.Fatal(err)
		}
		v, err := back.Verify(w.toRelay(KindRequest))
		if err != nil {
			t.Fatal(err)
		}
		if a := v.Approvers(); len(a) != 1 || !bytes.Equal(a[0].Marshal(), w.approver.PublicKey().Marshal()) {
			t.Errorf("approvers %v", a)
		}
	}

	if _, err := approved.Approve(rand.Reader, w.approver); fault.KindOf(err) != fault.Replay {
		t.Errorf("twice: %v", err)
	}
	if _, err := made.Approve(rand.Reader, w.agent.signer); fault.KindOf(err) != fault.Usage {
		t.Errorf("by the author: %v", err)
	}
	other := seal(t, w.request(), w.agent.signer)
	for name, text := range map[string][]byte{
		"of another bundle": armored(NamespaceApproval, other, w.approver),
		"as author":         armored(Namespace, made, w.approver),
		"of a plain file":   armored("file", made, w.approver),
		"with a tail":       append(armored(NamespaceApproval, made, w.approver), '\n'),
		"cut":               armored(NamespaceApproval, made, w.approver)[:100],
		"no signature":      []byte("hello\n"),
	} {
		if _, _, err := made.ApproveBy(text); fault.KindOf(err) != fault.Refused {
			t.Errorf("%s: %v", name, err)
		}
	}

	full := made
	for range MaxSignatures - 1 {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ssh.NewSignerFromKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if full, err = full.Approve(rand.Reader, s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Split(full.Text()); err != nil {
		t.Error(err)
	}
	if _, err := full.Approve(rand.Reader, w.approver); fault.KindOf(err) != fault.Usage {
		t.Errorf("a ninth signature: %v", err)
	}
}
