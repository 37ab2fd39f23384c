package bundle

import (
	"bytes"
	"crypto/elliptic"
	"math/big"
	"sync/atomic"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/sshsig"
)

// trap is an identity that notices when it is asked to decrypt.
type trap struct {
	age.Identity
	asked *atomic.Int64
}

func (i trap) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	i.asked.Add(1)
	return i.Identity.Unwrap(stanzas)
}

// TestFlip changes every byte of every golden bundle, in both spellings and in
// three ways. Each change is refused, and no identity is asked for anything. The
// unchanged bundle, opened the same way, does ask.
func TestFlip(t *testing.T) {
	w := newWorld(t)
	changes := map[string]func(byte) byte{
		"xor 0x01": func(c byte) byte { return c ^ 0x01 },
		"xor 0x20": func(c byte) byte { return c ^ 0x20 },
		"zero":     func(byte) byte { return 0 },
	}
	if testing.Short() {
		changes = map[string]func(byte) byte{"xor 0x01": changes["xor 0x01"]}
	}
	for _, g := range w.goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			var by []age.Identity
			for _, id := range g.by {
				by = append(by, trap{id, &asked})
			}
			for _, ext := range []string{".azc", ".azcw"} {
				raw := readFile(t, goldenDir, g.name+ext)
				if _, _, err := openAll(raw, g.expect, by...); err != nil {
					t.Fatal(err)
				}
				if got := asked.Swap(0) > 0; got != (len(by) > 0) {
					t.Fatalf("the unchanged bundle asked the identity: %v", got)
				}
				for at, c := range raw {
					for name, change := range changes {
						raw[at] = change(c)
						if raw[at] == c {
							continue
						}
						if _, _, err := openAll(raw, g.expect, by...); err == nil {
							t.Errorf("%s, byte %d, %s: accepted", ext, at, name)
						}
						if asked.Swap(0) > 0 {
							t.Errorf("%s, byte %d, %s: the identity was asked", ext, at, name)
						}
					}
					raw[at] = c
				}
			}
		})
	}
}

// TestVerifyGivesNothing holds that a refused bundle gives no value that could be
// decrypted.
func TestVerifyGivesNothing(t *testing.T) {
	w := newWorld(t)
	b := seal(t, w.request(), w.agent.signer)
	v, err := b.Verify(expect(w.stranger, w.relay, w.pair, KindRequest))
	if err == nil || v != nil {
		t.Errorf("verified is %v with error %v", v, err)
	}
}

// TestSecondECDSAForm holds the known limit: who sees an ECDSA signature can make
// its second form without the key. The bundle is then spelt otherwise and is
// accepted, but its manifest and so its name and its sequence are the same.
func TestSecondECDSAForm(t *testing.T) {
	w := newWorld(t)
	var answer golden
	for _, g := range w.goldens(t) {
		if g.name == "good-answer" {
			answer = g
		}
	}
	blob := answer.bundle.signatures[0]
	var env struct {
		Version   uint32
		Key       []byte
		Namespace string
		Reserved  []byte
		Hash      string
		Signature []byte
	}
	var sig ssh.Signature
	var rs struct{ R, S *big.Int }
	if err := ssh.Unmarshal(blob[len("SSHSIG"):], &env); err != nil {
		t.Fatal(err)
	}
	if err := ssh.Unmarshal(env.Signature, &sig); err != nil {
		t.Fatal(err)
	}
	if err := ssh.Unmarshal(sig.Blob, &rs); err != nil {
		t.Fatal(err)
	}
	rs.S.Sub(elliptic.P256().Params().N, rs.S)
	sig.Blob = ssh.Marshal(rs)
	env.Signature = ssh.Marshal(sig)
	second := &Bundle{manifest: answer.bundle.manifest, sealed: answer.bundle.sealed, signatures: [][]byte{append([]byte("SSHSIG"), ssh.Marshal(env)...)}}
	if bytes.Equal(second.Wire(), answer.bundle.Wire()) {
		t.Fatal("the second form is the first")
	}
	if _, err := sshsig.Parse(second.signatures[0]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openAll(second.Wire(), answer.expect, answer.by...); err != nil {
		t.Fatal(err)
	}
	if second.Digest() != answer.bundle.Digest() {
		t.Error("the second form has another name")
	}
}
