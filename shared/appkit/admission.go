package appkit

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/sshkey"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

// AdmissionNamespace is the SSHSIG namespace of a kiosk's admission record. It is
// no namespace of bundles, so that a kiosk's key can neither send nor approve.
const AdmissionNamespace = "azs-courier-admission@v1"

const armorSSHSIG = "SSH SIGNATURE"

// admission is what a kiosk writes down about a bundle that it let through: the
// text file beside the bundle, nine lines in this order (docs/KIOSK.md). It is for
// people and their books; no program of the courier reads it.
type admission struct {
	Name     string // of the bundle's file
	Size     int    // bytes of that file
	Digest   string // SHA-256 of that file
	Manifest bundle.Digest
	Kind     bundle.Kind
	Bundle   bundle.ID
	Sender   string // as allowed_signers calls the first signer
	Key      bundle.Fingerprint
	Further  int       // signatures after the first, which fit and are not looked up
	Admitted time.Time // the kiosk's clock
}

// Text spells the record in ASCII: what is foreign is quoted.
func (a admission) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, "azs-courier-admission/v1")
	fmt.Fprintf(&b, "file: %s\nsize: %d\nsha256: %s\nmanifest: %s\n", a.Name, a.Size, a.Digest, a.Manifest)
	fmt.Fprintf(&b, "kind: %s\nbundle: %s\n", a.Kind, a.Bundle)
	fmt.Fprintf(&b, "sender: %s key %s and %d further\n", strconv.QuoteToASCII(a.Sender), a.Key, a.Further)
	fmt.Fprintf(&b, "admitted: %s by the clock of the kiosk\n", clock.Format(a.Admitted))
	return b.Bytes()
}

// admit writes the one spelling of a bundle that verified, the record of it and,
// with a signer, the record's signature into dir. The bundle comes first: a
// record without its bundle would claim too much. A bundle that was admitted
// before keeps its first record, so that a broken-off run can be repeated.
func (a admission) admit(dir string, b *bundle.Bundle, signer ssh.Signer) (record string, err error) {
	r, err := medium.Put(dir, a.Name, b.Text())
	if err != nil {
		return "", err
	}
	a.Size, a.Digest = r.Size, r.SHA256
	stem := strings.TrimSuffix(a.Name, medium.Suffix)
	text, old := a.Text(), filepath.Join(dir, stem+".txt")
	if held, err := medium.ReadFile(old); err == nil && bytes.Equal(undated(held), undated(text)) {
		text = held
	}
	if r, err = medium.Put(dir, stem+".txt", text); err != nil {
		return "", err
	}
	if signer == nil {
		return r.Path, nil
	}
	if held, err := medium.ReadFile(old + ".sig"); err == nil && signedBy(signer.PublicKey(), held, text) {
		return r.Path, nil // an ECDSA key makes another one each time
	}
	blob, err := sshsig.Sign(rand.Reader, signer, AdmissionNamespace, text)
	if err != nil {
		return "", fault.New(fault.Locked, "the record key %s: %w", bundle.KeyFingerprint(signer.PublicKey()), err)
	}
	_, err = medium.Put(dir, stem+".txt.sig", pem.EncodeToMemory(&pem.Block{Type: armorSSHSIG, Bytes: blob}))
	return r.Path, err
}

// undated is a record without its last line, the time.
func undated(text []byte) []byte {
	text, _, _ = bytes.Cut(text, []byte("\nadmitted: "))
	return text
}

func signedBy(key ssh.PublicKey, armored, text []byte) bool {
	block, _ := pem.Decode(armored)
	if block == nil || block.Type != armorSSHSIG {
		return false
	}
	sig, err := sshsig.Parse(block.Bytes)
	return err == nil && bytes.Equal(sig.Key.Marshal(), key.Marshal()) && sig.Verify(AdmissionNamespace, text) == nil
}

// recordSigner loads the key that signs admission records: a private key file as
// ssh-keygen writes it without a passphrase, or a .pub file whose key the
// ssh-agent holds, which may then be locked or in hardware.
func recordSigner(ctx context.Context, path string) (ssh.Signer, error) {
	if strings.HasSuffix(path, ".pub") {
		key, err := sshkey.Find(ctx, path)
		if err != nil {
			return nil, err
		}
		return sshkey.Signer(ctx, key), sshkey.Held(ctx, key)
	}
	raw, err := medium.ReadText(path, 16<<10)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(raw)
	clear(raw)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fault.New(fault.Locked, "the record key %q is under a passphrase: the ssh-agent is to hold it, and its .pub file to be named", path).Hint("ssh-add %s", path)
	case err != nil: // its text may quote the file
		return nil, fault.New(fault.Usage, "the file %q holds no private key as ssh-keygen writes it", path).Hint("ssh-keygen -t ed25519 -N '' -f kiosk_key")
	case !sshsig.Allowed(signer.PublicKey().Type()):
		return nil, fault.New(fault.Usage, "the record key %q is of type %s, which may not sign; an Ed25519 key may", path, signer.PublicKey().Type()).Hint("ssh-keygen -t ed25519 -N '' -f kiosk_key")
	}
	return signer, nil
}
