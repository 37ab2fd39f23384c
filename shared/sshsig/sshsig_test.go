package sshsig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

const namespace = "azs-courier@v1"

var message = []byte("azs-courier/v1 request\nbundle: 7Q2MKX4R9D3T0V6PB8W5YHNC1G\n")

func newKey(t testing.TB, keyType string) (ssh.Signer, any) {
	t.Helper()
	var key any
	var err error
	switch keyType {
	case ssh.KeyAlgoED25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case ssh.KeyAlgoECDSA256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ssh.KeyAlgoECDSA384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case ssh.KeyAlgoECDSA521:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case ssh.KeyAlgoRSA:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		t.Fatalf("key type %q is unknown here", keyType)
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, key
}

// skSigner is a security key in software: what ssh-sk-helper gets from a FIDO
// token, made with a key that lies open (OpenSSH PROTOCOL.u2f).
type skSigner struct {
	key         ed25519.PrivateKey
	application string
	flags       byte
}

func (s skSigner) PublicKey() ssh.PublicKey {
	pub, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name, Key, Application string
	}{ssh.KeyAlgoSKED25519, string(s.key.Public().(ed25519.PublicKey)), s.application}))
	if err != nil {
		panic(err)
	}
	return pub
}

func (s skSigner) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	app, msg := sha256.Sum256([]byte(s.application)), sha256.Sum256(data)
	rest := binary.BigEndian.AppendUint32([]byte{s.flags}, 7)
	signed := append(append(app[:], rest...), msg[:]...)
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(s.key, signed), Rest: rest}, nil
}

func newSK(t testing.TB, flags byte) skSigner {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return skSigner{key, "ssh:azs-courier", flags}
}

func armored(blob []byte) []byte {
	text := base64.StdEncoding.EncodeToString(blob)
	var b strings.Builder
	b.WriteString("-----BEGIN SSH SIGNATURE-----\n")
	for len(text) > 70 {
		b.WriteString(text[:70] + "\n")
		text = text[70:]
	}
	b.WriteString(text + "\n-----END SSH SIGNATURE-----\n")
	return []byte(b.String())
}

func keygen(t *testing.T, stdin []byte, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func needKeygen(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is not installed: the exchange with OpenSSH is not tried")
	}
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What this package signs, ssh-keygen verifies, for every key type of the profile.
func TestKeygenVerifiesOurs(t *testing.T) {
	needKeygen(t)
	signers := map[string]ssh.Signer{"sk": newSK(t, 1)}
	for _, kt := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384} {
		signers[kt], _ = newKey(t, kt)
	}
	for name, signer := range signers {
		t.Run(name, func(t *testing.T) {
			blob, err := Sign(rand.Reader, signer, namespace, message)
			if err != nil {
				t.Fatal(err)
			}
			sig := write(t, "sig", armored(blob))
			allowed := write(t, "allowed_signers", append([]byte("peer "), ssh.MarshalAuthorizedKey(signer.PublicKey())...))
			if out, err := keygen(t, message, "-Y", "verify", "-f", allowed, "-I", "peer", "-n", namespace, "-s", sig); err != nil {
				t.Fatalf("ssh-keygen refuses our signature: %v: %s", err, out)
			}
			if out, err := keygen(t, append(message, '!'), "-Y", "verify", "-f", allowed, "-I", "peer", "-n", namespace, "-s", sig); err == nil {
				t.Fatalf("ssh-keygen accepts our signature for another message: %s", out)
			}
		})
	}
}

// What ssh-keygen signs, this package verifies, unless it lies outside the profile.
func TestWeVerifyKeygens(t *testing.T) {
	needKeygen(t)
	tests := []struct {
		name    string
		keyType string
		hash    string
		want    string // part of the error of Parse; "" is accepted
	}{
		{"ed25519", ssh.KeyAlgoED25519, "", ""},
		{"nistp256", ssh.KeyAlgoECDSA256, "", ""},
		{"nistp384", ssh.KeyAlgoECDSA384, "", ""},
		{"nistp521", ssh.KeyAlgoECDSA521, "", `signature key type is "ecdsa-sha2-nistp521"`},
		{"rsa", ssh.KeyAlgoRSA, "", `signature key type is "ssh-rsa"`},
		{"sha256", ssh.KeyAlgoED25519, "sha256", `signature hash is "sha256", want "sha512"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			signer, key := newKey(t, tt.keyType)
			block, err := ssh.MarshalPrivateKey(key, "test")
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"-Y", "sign", "-f", write(t, "key", pem.EncodeToMemory(block)), "-n", namespace}
			if tt.hash != "" {
				args = append(args, "-O", "hashalg="+tt.hash)
			}
			file := write(t, "message", message)
			if out, err := keygen(t, nil, append(args, file)...); err != nil {
				t.Fatalf("ssh-keygen does not sign: %v: %s", err, out)
			}
			text, err := os.ReadFile(file + ".sig")
			if err != nil {
				t.Fatal(err)
			}
			sigBlock, _ := pem.Decode(text)
			if sigBlock == nil {
				t.Fatalf("ssh-keygen made no armor: %q", text)
			}
			if !bytes.Equal(armored(sigBlock.Bytes), text) {
				t.Errorf("armor differs from what ssh-keygen writes:\n%s\n%s", armored(sigBlock.Bytes), text)
			}
			sig, err := Parse(sigBlock.Bytes)
			if !accepted(t, err, tt.want) {
				return
			}
			if !bytes.Equal(sig.Key.Marshal(), signer.PublicKey().Marshal()) {
				t.Error("the embedded key is not the one that signed")
			}
			if err := sig.Verify(namespace, message); err != nil {
				t.Error(err)
			}
			if err := sig.Verify("file", message); err == nil {
				t.Error("verified in a namespace that it was not made for")
			}
			if err := sig.Verify(namespace, message[1:]); err == nil {
				t.Error("verified another message")
			}
		})
	}
}

// accepted compares an error with the wanted part and reports whether there was none.
func accepted(t *testing.T, err error, want string) bool {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("refused: %v", err)
	case want != "" && err == nil:
		t.Fatalf("accepted, want an error with %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Fatalf("error is %q, want %q in it", err, want)
	}
	return err == nil
}

// blobOf makes a whole blob of its parts, as loosely as they are given.
func blobOf(env envelope) []byte { return append([]byte(magic), ssh.Marshal(env)...) }

func TestParse(t *testing.T) {
	ed, _ := newKey(t, ssh.KeyAlgoED25519)
	ec, _ := newKey(t, ssh.KeyAlgoECDSA256)
	sk := newSK(t, 1)
	// base is a whole envelope; each case bends one thing.
	base := func(s ssh.Signer) envelope {
		blob, err := Sign(rand.Reader, s, namespace, message)
		if err != nil {
			t.Fatal(err)
		}
		var env envelope
		if err := ssh.Unmarshal(blob[len(magic):], &env); err != nil {
			t.Fatal(err)
		}
		return env
	}
	value := func(s ssh.Signer, bend func(*ssh.Signature)) []byte {
		env := base(s)
		var sig ssh.Signature
		if err := ssh.Unmarshal(env.Signature, &sig); err != nil {
			t.Fatal(err)
		}
		bend(&sig)
		env.Signature = ssh.Marshal(sig)
		return blobOf(env)
	}
	env := func(s ssh.Signer, bend func(*envelope)) []byte {
		e := base(s)
		bend(&e)
		return blobOf(e)
	}
	str := func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
	// ecdsa spells r and s by hand, so that a wrong spelling can be given.
	ecdsaBlob := func(bend func(r, s []byte) []byte) []byte {
		return value(ec, func(sig *ssh.Signature) {
			var rs struct{ R, S *big.Int }
			if err := ssh.Unmarshal(sig.Blob, &rs); err != nil {
				t.Fatal(err)
			}
			mpint := func(n *big.Int) []byte { b := ssh.Marshal(struct{ N *big.Int }{n}); return b[4:] }
			sig.Blob = bend(mpint(rs.R), mpint(rs.S))
		})
	}
	whole := blobOf(base(ed))

	tests := []struct {
		name string
		blob []byte
		want string
	}{
		1:  {"ed25519", whole, ""},
		2:  {"ecdsa", blobOf(base(ec)), ""},
		3:  {"security key", blobOf(base(sk)), ""},
		4:  {"empty", nil, "does not start with SSHSIG"},
		5:  {"other magic", append([]byte("SSHSIH"), whole[6:]...), "does not start with SSHSIG"},
		6:  {"cut short", whole[:len(whole)-1], "signature blob"},
		7:  {"a byte behind", append(bytes.Clone(whole), 0), "signature blob"},
		8:  {"too long", append(bytes.Clone(whole), make([]byte, MaxBlob)...), "at most 1024"},
		9:  {"version 2", env(ed, func(e *envelope) { e.Version = 2 }), "version is 2"},
		10: {"reserved", env(ed, func(e *envelope) { e.Reserved = []byte("x") }), "reserved field"},
		11: {"sha256", env(ed, func(e *envelope) { e.Hash = "sha256" }), `hash is "sha256"`},
		12: {"no namespace", env(ed, func(e *envelope) { e.Namespace = "" }), "namespace is empty"},
		13: {"a byte behind the key", env(ed, func(e *envelope) { e.PublicKey = append(e.PublicKey, 0) }), "signature key"},
		14: {"no key", env(ed, func(e *envelope) { e.PublicKey = nil }), "signature key"},
		15: {"curve is not the type's", env(ec, func(e *envelope) {
			e.PublicKey = bytes.Replace(e.PublicKey, []byte("ecdsa-sha2-nistp256"), []byte("ecdsa-sha2-nistp384"), 1)
		}), "algorithm type mismatch"},
		16: {"format is another", value(ed, func(s *ssh.Signature) { s.Format = "ssh-rsa" }), "is not the key type"},
		17: {"ed25519 of 63 bytes", value(ed, func(s *ssh.Signature) { s.Blob = s.Blob[:63] }), "63 bytes, want 64"},
		18: {"ed25519 of 65 bytes", value(ed, func(s *ssh.Signature) { s.Blob = append(s.Blob, 0) }), "65 bytes, want 64"},
		19: {"bytes behind ed25519", value(ed, func(s *ssh.Signature) { s.Rest = []byte{0} }), "1 bytes behind its value, want 0"},
		20: {"security key without flags", value(sk, func(s *ssh.Signature) { s.Rest = nil }), "0 bytes behind its value, want 5"},
		21: {"security key with more", value(sk, func(s *ssh.Signature) { s.Rest = append(s.Rest, 0) }), "6 bytes behind its value, want 5"},
		22: {"r with a zero in front", ecdsaBlob(func(r, s []byte) []byte { return append(str(append([]byte{0}, r...)), str(s)...) }), "one encoding"},
		23: {"s with a zero in front", ecdsaBlob(func(r, s []byte) []byte { return append(str(r), str(append([]byte{0}, s...))...) }), "one encoding"},
		24: {"r negative", ecdsaBlob(func(_, s []byte) []byte { return append(str([]byte{0xff}), str(s)...) }), "one encoding"},
		25: {"r zero", ecdsaBlob(func(_, s []byte) []byte { return append(str(nil), str(s)...) }), "one encoding"},
		26: {"a byte behind r and s", ecdsaBlob(func(r, s []byte) []byte { return append(append(str(r), str(s)...), 0) }), "ecdsa signature"},
		27: {"s missing", ecdsaBlob(func(r, _ []byte) []byte { return str(r) }), "ecdsa signature"},
	}
	for i, tt := range tests[1:] {
		t.Run(tt.name, func(t *testing.T) {
			sig, err := Parse(tt.blob)
			if !accepted(t, err, tt.want) {
				return
			}
			if err := sig.Verify(namespace, message); err != nil {
				t.Errorf("case %d: %v", i+1, err)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	ed, _ := newKey(t, ssh.KeyAlgoED25519)
	other, _ := newKey(t, ssh.KeyAlgoED25519)
	signBy := func(s ssh.Signer, ns string, msg []byte) []byte {
		blob, err := Sign(rand.Reader, s, ns, msg)
		if err != nil {
			t.Fatal(err)
		}
		return blob
	}
	swapped := func() []byte { // the other's key beside our value
		var env envelope
		if err := ssh.Unmarshal(signBy(ed, namespace, message)[len(magic):], &env); err != nil {
			t.Fatal(err)
		}
		env.PublicKey = other.PublicKey().Marshal()
		return blobOf(env)
	}
	tests := []struct {
		name string
		blob []byte
		want string
	}{
		{"right", signBy(ed, namespace, message), ""},
		{"another message", signBy(ed, namespace, message[1:]), "does not fit"},
		{"another namespace", signBy(ed, "file", message), `signature is for namespace "file", want "azs-courier@v1"`},
		{"another key", swapped(), "does not fit"},
		{"security key, nobody present", blobWithoutPresence(t), "does not fit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sig, err := Parse(tt.blob)
			if err != nil {
				t.Fatal(err)
			}
			accepted(t, sig.Verify(namespace, message), tt.want)
		})
	}
}

func blobWithoutPresence(t *testing.T) []byte {
	t.Helper()
	blob, err := Sign(rand.Reader, newSK(t, 0), namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func TestSignRefuses(t *testing.T) {
	r, _ := newKey(t, ssh.KeyAlgoRSA)
	if _, err := Sign(rand.Reader, r, namespace, message); err == nil {
		t.Error("an RSA key may sign")
	}
	ed, _ := newKey(t, ssh.KeyAlgoED25519)
	if _, err := Sign(rand.Reader, ed, "", message); err == nil {
		t.Error("the empty namespace may be signed in")
	}
}

// The signed bytes are those of PROTOCOL.sshsig, spelt here by hand.
func TestSignedBytes(t *testing.T) {
	digest := sha512.Sum512(message)
	want := "SSHSIG" + "\x00\x00\x00\x0eazs-courier@v1" + "\x00\x00\x00\x00" + "\x00\x00\x00\x06sha512" + "\x00\x00\x00\x40" + string(digest[:])
	if got := string(signed(namespace, message)); got != want {
		t.Errorf("signed bytes are %q, want %q", got, want)
	}
}

// FuzzSSHSIG holds that an accepted blob has one encoding, that reading is
// total, and that nothing verifies but what was signed.
func FuzzSSHSIG(f *testing.F) {
	for _, kt := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384} {
		s, _ := newKey(f, kt)
		blob, err := Sign(rand.Reader, s, namespace, message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blob)
	}
	blob, err := Sign(rand.Reader, newSK(f, 1), namespace, message)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blob)
	goldens, err := filepath.Glob("../../testdata/golden/good-*.azc")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range goldens {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "SSH SIGNATURE" {
				f.Add(block.Bytes)
			}
		}
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		sig, err := Parse(blob)
		if err != nil {
			return
		}
		again := blobOf(envelope{Version: version, PublicKey: sig.Key.Marshal(), Namespace: sig.Namespace, Hash: hash, Signature: ssh.Marshal(sig.sig)})
		if !bytes.Equal(again, blob) {
			t.Fatalf("accepted %x, encodes again to %x", blob, again)
		}
		if sig.Verify(sig.Namespace, []byte("a message that no key of the seeds ever signed")) == nil {
			t.Fatalf("%x verifies a message that was never signed", blob)
		}
	})
}
